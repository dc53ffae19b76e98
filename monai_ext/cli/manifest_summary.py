"""``python -m monai_ext manifest summary``: what a manifest holds, in the terminal and as a page."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from monai_ext.curation import ManifestSummary

_MANIFEST = typer.Argument(metavar="MANIFEST", help="The manifest, .json.", show_default=False)
_HTML = typer.Option(help="Write this page too: one file with plots, that needs nothing beside it.", show_default=False)
_ROOT = typer.Option(
    help="Folder that the paths start from, to read headers for sizes; its own by default.", show_default=False
)
_STORE = typer.Option(help="Take the sizes from this volume store instead.", show_default=False)
_HEADERS = typer.Option(help="Scans to measure at most, evenly spread; 0 for none.", min=0)
_JOBS = typer.Option(help="Processes; as many as cores by default, 0 for none.", show_default=False, min=0)


def summary(
    manifest: Annotated[Path, _MANIFEST],
    html: Annotated[Path | None, _HTML] = None,
    root: Annotated[Path | None, _ROOT] = None,
    store: Annotated[Path | None, _STORE] = None,
    headers: Annotated[int, _HEADERS] = 1000,
    jobs: Annotated[int | None, _JOBS] = None,
) -> None:
    """Tell what a manifest holds: scans by data set and split, licences, sizes, known leaks.

    Sizes come from the headers of the files, never from their voxels, or
    from a store that was prepared from the manifest.

    Example: python -m monai_ext manifest summary mix.json --html mix.html

    Exit code: 0 all is well, 1 some headers cannot be read, 2 the manifest cannot be used, 130 interrupted.
    """
    from rich.console import Console

    from monai_ext.curation import check_report_target, summarize_manifest, write_summary_page

    if html is not None:
        check_report_target(html, manifest)
    try:
        found = summarize_manifest(manifest, root, store=store, headers=headers, jobs=jobs, progress=True)
    except KeyboardInterrupt as error:
        typer.echo("\ninterrupted: nothing was written", err=True)
        raise typer.Exit(130) from error
    console = Console()
    for table in _tables(found):
        console.print(table)
    for pair in found.shared:
        typer.echo(f"note: {pair.first} and {pair.second} share scans, drawn twice: {pair.what}")
    if found.sizes is not None and found.sizes.problems:
        typer.echo(f"{len(found.sizes.problems)} scans could not be read: {found.sizes.problems[0].sentence}", err=True)
    if html is not None:
        write_summary_page(html, found)
        typer.echo(f"page: {html}")
    raise typer.Exit(found.exit_code)


def _tables(found: "ManifestSummary") -> Iterator["Table"]:
    from rich.markup import escape
    from rich.table import Column, Table

    from monai_ext.cli.manifest_mix import leaks_table
    from monai_ext.curation import licence_told

    title = escape(found.manifest.title or found.manifest.name)
    if found.counts:
        numbers = [Column(name, justify="right") for name in ("scans", "labelled", "patients", "share")]
        table = Table(Column("data set", overflow="fold"), "split", *numbers, title=title)
        for row in found.counts:
            counts = (f"{number:,}" for number in (row.scans, row.labelled, row.patients))
            table.add_row(escape(row.dataset), row.split, *counts, f"{row.share:.1%}")
        yield table
    names = (Column(name, overflow="fold") for name in ("licence", "commercial use", "access"))
    scans = Column("scans", justify="right")
    table = Table(Column("data set", overflow="fold"), scans, *names, title="" if found.counts else title)
    for card in found.cards:
        use = card.commercial_use
        if use != "unknown" and card.confidence("commercial_use") not in ("verified", "high"):
            use += f" ({card.confidence('commercial_use')} confidence)"
        told = (card.id, found.told_scans(card), licence_told(card), use, card.value("access", "unknown"))
        table.add_row(*map(escape, told))
    yield table
    if found.ranges and found.sizes is not None:
        measures = ("edge in slice, mm", "between slices, mm", "voxels", "slices", "height, mm")
        caption = f"median (smallest to largest) of {found.sizes.looked_at:,} of {found.sizes.total:,} scans"
        table = Table("data set", *(Column(name, justify="right") for name in measures), caption=caption)
        for one in found.ranges:
            edges = (f"{b:.2f} ({a:.2f} to {c:.2f})" for a, b, c in (one.plane_mm, one.slice_mm))
            voxels = (f"{b:.0f} ({a:.0f} to {c:.0f})" for a, b, c in (one.plane, one.slices, one.height_mm))
            table.add_row(escape(one.dataset), *edges, *voxels)
        yield table
    if found.leaks:
        yield leaks_table(found.leaks)
