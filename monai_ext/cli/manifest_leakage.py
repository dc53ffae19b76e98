"""``python -m monai_ext manifest leakage``: scans that stand in two lists, or twice in one."""

from pathlib import Path
from typing import Annotated

import typer

_FIRST = typer.Argument(metavar="A", help="A manifest, .json, such as what you train on.", show_default=False)
_SECOND = typer.Argument(
    metavar="B",
    help="Another one, such as what you test on; without it, A is compared with itself.",
    show_default=False,
)
_ROOT_A = typer.Option(help="Folder that A's paths start from; its own by default.", show_default=False)
_ROOT_B = typer.Option(help="The same of B.", show_default=False)
_JOBS = typer.Option(help="Processes; as many as cores by default, 0 for none.", show_default=False, min=0)
_THRESHOLD = typer.Option(help="Correlation from which a pair is a near-duplicate; lower finds more, rightly or not.")
_REPORT = typer.Option(help="Write all that was found to this file, .json or .html.", show_default=False)
_PICTURES = typer.Option("--pictures", help="Show thumbnails of the pairs in the .html report: coarse, but patients.")
_CACHE = typer.Option(
    help="Folder to keep fingerprints in, by checksum, so that the next run only reads new files; it holds coarse "
    "thumbnails and no names.",
    show_default=False,
)


def leakage(
    first: Annotated[Path, _FIRST],
    second: Annotated[Path | None, _SECOND] = None,
    root_a: Annotated[Path | None, _ROOT_A] = None,
    root_b: Annotated[Path | None, _ROOT_B] = None,
    jobs: Annotated[int | None, _JOBS] = None,
    threshold: Annotated[float, _THRESHOLD] = 0.92,
    report: Annotated[Path | None, _REPORT] = None,
    pictures: Annotated[bool, _PICTURES] = False,
    cache: Annotated[Path | None, _CACHE] = None,
) -> None:
    """Find scans and pictures that two manifests share, whatever they are called and however they were changed.

    The same file; the same voxels under another name, format, compression
    or affine; and near-duplicates: resampled, cropped by a few percent,
    turned, mirrored, or in other grey values. A score tells how alike a
    pair is. What the data sets' descriptions say of shared scans is told
    too. A scan that cannot be read is named, and the others go on.

    Example: python -m monai_ext manifest leakage train.json test.json

    Example: python -m monai_ext manifest leakage mix.json btcv.json --root-a /data --report pairs.html --pictures

    Exit code: 0 nothing found, 1 a pair was found or a scan could not be compared, 2 a manifest or setting cannot
    be used, 130 interrupted.
    """
    from rich.console import Console
    from rich.markup import escape

    from monai_ext.base import SettingError
    from monai_ext.curation import (
        check_report,
        check_report_target,
        find_leakage,
        leakage_sentence,
        leakage_table,
        problems_table,
    )
    from monai_ext.curation import write_leakage as write
    from monai_ext.manifests import read_manifest

    if report is not None:
        check_report(report)
        check_report_target(report, *([first] if second is None else [first, second]))
    if pictures and (report is None or report.suffix.lower() != ".html"):
        raise SettingError("--pictures: only a page shows them; give --report NAME.html too", code="setting.report")
    lists = read_manifest(first), None if second is None else read_manifest(second)
    try:
        summary = find_leakage(
            *lists,
            first_root=root_a or first.parent,
            second_root=root_b or (second.parent if second else None),
            jobs=jobs,
            threshold=threshold,
            cache=cache,
            looks=pictures,
            progress=True,
        )
    except KeyboardInterrupt as error:
        kept = "give the same command again to go on" if cache else "with --cache the next run could go on"
        typer.echo(f"\ninterrupted: not everything was compared; {kept}", err=True)
        raise typer.Exit(130) from error
    console = Console()
    if summary.pairs:
        console.print(leakage_table(summary))
    if summary.problems:
        console.print(problems_table(summary.problems))
    for overlap in summary.overlaps:
        sets = f"{overlap.first} and {overlap.second}" if overlap.first != overlap.second else overlap.first
        console.print(escape(f"known: {sets}: {overlap.what} (severity: {overlap.severity})"), soft_wrap=True)
    for note in summary.notes:
        console.print(escape(f"note: {note}"), soft_wrap=True)
    console.print(escape(leakage_sentence(summary)), soft_wrap=True)
    if report is not None:
        write(report, summary)
        typer.echo(f"{report}: {len(summary.pairs)} pair{'s' * (len(summary.pairs) != 1)}")
    raise typer.Exit(summary.exit_code)
