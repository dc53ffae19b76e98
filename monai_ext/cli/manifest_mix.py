"""``python -m monai_ext manifest mix``: several manifests into one."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from monai_ext.curation import KnownLeak, MixPart, MixSummary

_PARTS = typer.Argument(
    metavar="MANIFEST[=WEIGHT]...",
    help="Manifests that 'manifest build' made. =2.5 multiplies the weights of its scans; =30% gives it that share of "
    "each split, and the parts without a share divide the rest by their own weights.",
    show_default=False,
)
_OUT = typer.Option(help="The manifest to write.", show_default=False)
_ROOT = typer.Option(
    help="Folder that holds all data sets; paths of the mix start from it. That of OUT by default.", show_default=False
)
_INPUT_ROOT = typer.Option(
    help="Folder that the paths of a part start from, where it is not its own; once for all parts, or once for each.",
    show_default=False,
)
_COMMERCIAL = typer.Option("--commercial-ok", help="Leave out what is not known to be allowed for commercial use.")
_LICENCE = typer.Option(help="Licence to take, such as CC-BY-4.0; repeat for several. Any by default.")
_SPLIT = typer.Option(help="List to take, such as training; repeat for several. All by default.")
_EXCLUDE = typer.Option(help="Data set to leave out; repeat for several.")
_EVALUATE = typer.Option(
    help="Data set that you will report results on, such as btcv; repeat for several. By default every one that is "
    "known for it."
)
_FAIL = typer.Option("--fail-on-leakage", help="Write nothing and exit with 1 if a leak is known.")


def mix(
    parts: Annotated[list[str], _PARTS],
    out: Annotated[Path, _OUT],
    root: Annotated[Path | None, _ROOT] = None,
    input_root: Annotated[list[Path] | None, _INPUT_ROOT] = None,
    commercial_ok: Annotated[bool, _COMMERCIAL] = False,
    licence: Annotated[list[str] | None, _LICENCE] = None,
    split: Annotated[list[str] | None, _SPLIT] = None,
    exclude: Annotated[list[str] | None, _EXCLUDE] = None,
    evaluate_on: Annotated[list[str] | None, _EVALUATE] = None,
    fail_on_leakage: Annotated[bool, _FAIL] = False,
) -> None:
    """Compose manifests into one, by licence and weight, and warn of what is known to leak.

    Ids stay unique, patients stay apart, and splits stay as they are. What
    a filter leaves out is told with the reason. Leaks are those that the
    descriptions in data_manifests tell and those that file names betray;
    'manifest leakage' compares the scans themselves.

    Example: python -m monai_ext manifest mix spleen/manifest.json lidc/manifest.json=30% --out mix.json

    Example: python -m monai_ext manifest mix data/*/manifest.json --out data/mix.json --commercial-ok

    Exit code: 0 written, 1 a leak is known and --fail-on-leakage was given, 2 it cannot be mixed.
    """
    from rich.console import Console

    from monai_ext.cli.shown_paths import shown
    from monai_ext.curation import mix_manifests

    summary = mix_manifests(
        _parts(parts, input_root or []),
        out,
        root=root,
        commercial_ok=commercial_ok,
        licences=licence or (),
        splits=split or (),
        exclude=exclude or (),
        evaluate_on=evaluate_on or (),
        fail_on_leakage=fail_on_leakage,
    )
    console = Console()
    console.print(_sets_table(summary))
    if summary.leaks:
        console.print(leaks_table(summary.leaks))
    for line in _lines(summary):
        typer.echo(line)
    if not summary.written:
        typer.echo(f"not written: {len(summary.leaks)} known leaks; leave data sets out with --exclude", err=True)
        raise typer.Exit(1)
    base = root or out.parent
    rooted = "" if base.absolute() == out.parent.absolute() else f" --root {shown(base)}"
    typer.echo(f"{shown(out)}\nnext: python -m monai_ext manifest summary {shown(out)}{rooted}")


def _parts(words: list[str], roots: list[Path]) -> list["MixPart"]:
    from monai_ext.base import SettingError
    from monai_ext.curation import MixPart

    if len(roots) not in (0, 1, len(words)):
        raise SettingError(
            f"input-root: {len(roots)} folders for {len(words)} parts; give one for all, or one for each",
            code="setting.input_root",
        )
    places: list[Path | None] = [*roots] if len(roots) == len(words) else [roots[0] if roots else None] * len(words)
    parts = []
    for word, place in zip(words, places, strict=True):
        path, equals, weight = word.rpartition("=")
        # A file may have = in its name.
        named = (word, None) if not equals or Path(word).is_file() else (path, weight)
        parts.append(MixPart(Path(named[0]), named[1], place))
    return parts


def _sets_table(summary: "MixSummary") -> "Table":
    from rich.markup import escape
    from rich.table import Column, Table

    from monai_ext.curation import licence_told

    numbers = [Column(name, justify="right") for name in ("scans", "labelled", "share")]
    table = Table(
        Column("data set", overflow="fold"),
        *numbers,
        "licence",
        "commercial use",
        title=f"{summary.path.name}: what it holds",
    )
    total = sum(entry.weight for entry in summary.manifest.entries) or 1
    for name, card in summary.manifest.datasets.items():
        entries = [entry for entry in summary.manifest.entries if entry.dataset == name]
        share = sum(entry.weight for entry in entries) / total
        labelled = sum(entry.label is not None for entry in entries)
        told = escape(licence_told(card))
        table.add_row(escape(name), f"{len(entries):,}", f"{labelled:,}", f"{share:.1%}", told, card.commercial_use)
    for name, (reason, count) in sorted(summary.refused.items()):
        table.add_row(escape(name), "0", "0", "", escape(f"{count:,} left out: {reason}"), "", style="yellow")
    return table


def leaks_table(leaks: "Sequence[KnownLeak]") -> "Table":
    """Return known leaks as a table."""
    from rich.markup import escape
    from rich.table import Column, Table

    table = Table(
        Column("in the mix", overflow="fold"),
        Column("scans", justify="right"),
        "evaluated on",
        Column("what is shared", overflow="fold"),
        "severity",
        "confidence",
        title="known leaks: results on these sets would be too good",
    )
    for leak in leaks:
        name = f"{leak.dataset} (by names of files or folders)" if leak.by_name else leak.dataset
        row = (name, f"{leak.count:,}", leak.evaluation, leak.what, leak.severity, leak.confidence)
        table.add_row(*map(escape, row), style="red" if leak.severity == "high" else "yellow")
    return table


def _lines(summary: "MixSummary") -> list[str]:
    lines = [f"note: {pair.first} and {pair.second} share scans, drawn twice: {pair.what}" for pair in summary.shared]
    if summary.twice:
        lines.append(f"note: {summary.twice} scans were listed by several parts and are taken once")
    return lines + [f"note: {note}" for note in summary.notes]
