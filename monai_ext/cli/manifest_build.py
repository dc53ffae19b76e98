"""``python -m monai_ext manifest build``: a downloaded folder into a manifest."""

from pathlib import Path
from typing import Annotated

import typer

_FOLDER = typer.Argument(metavar="FOLDER", help="Folder that the download was unpacked into.", show_default=False)
_DATASET = typer.Option(
    help="What it is: the id of a shipped data set, or a .json file that describes one. Recognised by default.",
    metavar="ID|FILE",
    show_default=False,
)
_OUT = typer.Option(help="The manifest to write; manifest.json in the folder by default.", show_default=False)
_SPLIT = typer.Option(help="List for scans that the data set's own split puts into none, such as training.")
_JOBS = typer.Option(help="Processes; as many as cores by default, 0 for none.", show_default=False, min=0)
_CHECKSUMS = typer.Option(help="Read every file and note its SHA-256; without, changed files go unnoticed later.")


def build(
    root: Annotated[Path, _FOLDER],
    dataset: Annotated[str | None, _DATASET] = None,
    out: Annotated[Path | None, _OUT] = None,
    split: Annotated[str, _SPLIT] = "unassigned",
    jobs: Annotated[int | None, _JOBS] = None,
    checksums: Annotated[bool, _CHECKSUMS] = True,
) -> None:
    """Scan a downloaded data set into a manifest: its scans, labels, patients, split, licence and checksums.

    The layouts of the listed data sets are known; a folder of another
    becomes a list of unknown licence. Run it again at any time: files that
    did not change are not read again, and a run that was killed goes on.
    It replaces the manifest: make your corrections in a copy.

    Example: python -m monai_ext manifest build Task09_Spleen

    Example: python -m monai_ext manifest build scans --dataset ours.json --split training

    Exit code: 0 all is well, 1 some files cannot be used, 2 no manifest was written, 130 interrupted.
    """
    from rich.console import Console

    from monai_ext.base import SettingError
    from monai_ext.cli.manifest_tables import build_table
    from monai_ext.cli.shown_paths import shown
    from monai_ext.curation import build_manifest
    from monai_ext.manifests import SPLITS

    if split not in SPLITS:
        raise SettingError(f"split: {split!r} is none; give one of {', '.join(SPLITS)}", code="setting.split")
    try:
        summary = build_manifest(root, out, dataset=dataset, split=split, jobs=jobs, checksums=checksums, progress=True)
    except KeyboardInterrupt as error:
        typer.echo("\ninterrupted: nothing was written; the same command goes on with the checksums taken", err=True)
        raise typer.Exit(130) from error
    console = Console()
    for part in build_table(summary):
        console.print(part)
    rooted = "" if summary.path.parent == Path(root).absolute() else f" --root {shown(root)}"
    typer.echo(f"{shown(summary.path)}\nnext: python -m monai_ext manifest verify {shown(summary.path)}{rooted}")
    raise typer.Exit(summary.exit_code)
