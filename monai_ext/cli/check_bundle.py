"""``python -m monai_ext check-bundle``: what a bundle would run, read, write and fetch, before anybody runs it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from monai_ext.audit import BundleReport

_BUNDLE = typer.Argument(metavar="DIR", help="Folder of the bundle, or a zip of it.", show_default=False)
_ALLOW = typer.Option(
    "--allow",
    metavar="NAME",
    help="Allow this too: a dotted name with all below it, a path, or a sha256, as the column 'what' shows it; repeat.",
    show_default=False,
)
_ALL = typer.Option("--all", help="Show what is allowed as well.")
_JSON = typer.Option("--json", help="Print everything as JSON, for programs.")


def check_bundle(
    bundle: Annotated[Path, _BUNDLE],
    allow: Annotated[list[str] | None, _ALLOW] = None,
    show_all: Annotated[bool, _ALL] = False,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Tell what a bundle would use, and refuse what is outside a list.

    Looks at every _target_, $ expression, import and reference of the
    configurations, metadata.json and logging.conf, at Python files, weights,
    links and checksums. Nothing of the bundle is imported, run or loaded.

    A configuration runs code by design: this compares names with a list, it
    is no sandbox. docs/how-to/check-a-bundle.md says what it cannot see.

    Example: python -m monai_ext check-bundle downloaded_bundle

    Example: python -m monai_ext check-bundle downloaded_bundle --allow scripts

    Exit code: 0 nothing refused, 1 something is, 2 no bundle.
    """
    import json

    from rich.console import Console

    from monai_ext.audit import check_bundle as check

    report = check(bundle, allow or ())
    if as_json:
        typer.echo(json.dumps(report.content(), indent=1))
    else:
        console = Console(highlight=False)
        found = list(report.findings) if show_all else report.refused
        if found:
            console.print(_table(report, found))
        counts = ", ".join(
            f"{kind} {every}" + (f" ({bad} refused)" if bad else "") for kind, (every, bad) in report.counts().items()
        )
        console.print(f"{report.name}: {report.files} files; {counts or 'nothing used'}", markup=False)
        if report.refused:
            console.print("[red]Refused.[/red] Do not run it before you have read what is listed.")
        else:
            console.print("[green]Nothing refused.[/green] It still runs code: see docs/how-to/check-a-bundle.md.")
    if report.refused:
        raise typer.Exit(1)


def _table(report: "BundleReport", found: list) -> "Table":
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"{escape(report.name)}: what it would use")
    for name in ("file", "id", "kind", "what", "why it is refused"):
        table.add_column(name, overflow="fold")
    for one in found:
        style = "red" if one.refused else None
        table.add_row(*map(escape, (one.file, one.place, one.kind, one.what, one.why)), style=style)
    return table
