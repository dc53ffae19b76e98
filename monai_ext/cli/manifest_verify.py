"""``python -m monai_ext manifest verify``: can a manifest and its files be trusted."""

from pathlib import Path
from typing import Annotated

import typer

_MANIFEST = typer.Argument(metavar="MANIFEST", help="The manifest, .json.", show_default=False)
_ROOT = typer.Option(help="Folder that its paths start from; its own by default.", show_default=False)
_JOBS = typer.Option(help="Processes; as many as cores by default, 0 for none.", show_default=False, min=0)
_DEEP = typer.Option("--deep", help="Read the voxels of images too, rather than their headers.")
_CHECKSUMS = typer.Option(help="Read every file and compare its SHA-256; finds images listed twice, too.")
_ASSUME_HU = typer.Option("--assume-hu", help="Accept other images than CT, and values that do not look like HU.")
_REPORT = typer.Option(help="Write every problem to this file, a line of JSON each.", show_default=False)


def verify(
    manifest: Annotated[Path, _MANIFEST],
    root: Annotated[Path | None, _ROOT] = None,
    jobs: Annotated[int | None, _JOBS] = None,
    deep: Annotated[bool, _DEEP] = False,
    checksums: Annotated[bool, _CHECKSUMS] = True,
    assume_hu: Annotated[bool, _ASSUME_HU] = False,
    report: Annotated[Path | None, _REPORT] = None,
) -> None:
    """Check a manifest and every file that it lists: present, unchanged, readable, labels on the image's grid.

    Also that no patient and no image is in two splits, that no image is
    listed twice under other names, and that labels hold known ids. One bad
    scan never stops the rest; problems are counted by kind.

    Example: python -m monai_ext manifest verify Task09_Spleen/manifest.json

    Example: python -m monai_ext manifest verify mix.json --root /data --deep --report problems.jsonl

    Exit code: 0 all is well, 1 there are problems, 2 the manifest cannot be used, 130 interrupted.
    """
    from rich.console import Console

    from monai_ext.cli.manifest_tables import verify_parts
    from monai_ext.curation import check_report_target, verify_manifest, write_report

    if report is not None:
        check_report_target(report, manifest)
    try:
        summary = verify_manifest(
            manifest, root, jobs=jobs, checksums=checksums, deep=deep, assume_hu=assume_hu, progress=True
        )
    except KeyboardInterrupt as error:
        typer.echo("\ninterrupted: not everything was looked at", err=True)
        raise typer.Exit(130) from error
    console = Console()
    for part in verify_parts(summary):
        console.print(part)
    if report is not None:
        write_report(report, summary.problems)
        typer.echo(f"{report}: {len(summary.problems)} problems")
    raise typer.Exit(summary.exit_code)
