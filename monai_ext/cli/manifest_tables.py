"""What ``manifest build`` and ``manifest verify`` print at their end."""

from collections import Counter
from collections.abc import Iterator

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Column, Table

from monai_ext.base import printable
from monai_ext.curation import BuildSummary, ManifestVerification
from monai_ext.curation.problems import first_names, problems_table
from monai_ext.manifests import SPLITS, Manifest


def build_table(summary: BuildSummary) -> Iterator[RenderableType]:
    """Yield what was found, what was left out, and what is wrong."""
    manifest = summary.manifest
    table = Table(Column(overflow="fold"), Column(overflow="fold"), show_header=False)
    (card,) = manifest.datasets.values()
    table.add_row("data set", escape(f"{card.title} - {summary.told}"))
    licence = card.facts.get("licence")
    sure = "" if licence is None or licence.value is None else f" ({licence.confidence} confidence)"
    table.add_row("licence", escape(f"{card.licence}{sure}; commercial use: {card.commercial_use}"))
    for split, told in _counts(manifest).items():
        table.add_row(split, told)
    if summary.reused:
        table.add_row("checksums", f"{summary.reused} of files that did not change since the last run were kept")
    if summary.without_label:
        count = len(summary.without_label)
        table.add_row("no label", escape(f"{count} where the layout has one: {first_names(summary.without_label)}"))
    for reason, names in summary.left_out.items():
        table.add_row("left out", escape(f"{len(names)}: {reason} ({first_names(names)})"))
    if summary.other or summary.junk:
        kinds = [f"{count} {ending}" for ending, count in sorted(summary.other.items())]
        kinds += [f"{summary.junk} hidden or left by systems"] if summary.junk else []
        table.add_row("other files", escape(first_names(kinds, 8)))
    yield table
    if summary.problems:
        yield problems_table(summary.problems)


def verify_parts(summary: ManifestVerification) -> Iterator[RenderableType]:
    """Yield what was looked at, what is wrong, and what could not be checked."""
    entries = summary.manifest.entries
    patients = len({entry.patient for entry in entries})
    if summary.problems:
        yield problems_table(summary.problems)
        bad = len({problem.case for problem in summary.problems})
        yield escape(f"{len(entries)} entries of {patients} patients: {len(summary.problems)} problems in {bad}")
    else:
        yield escape(f"{len(entries)} entries of {patients} patients: no problem found")
    for note in summary.notes:
        yield escape(printable(f"note: {note}"))


def _counts(manifest: Manifest) -> dict[str, str]:
    told = {}
    for split in SPLITS:
        entries = [entry for entry in manifest.entries if entry.split == split]
        if entries:
            parts = [f"{len(entries)} entries", f"{sum(entry.label is not None for entry in entries)} with label"]
            parts.append(f"{len({entry.patient for entry in entries})} patients")
            kinds = Counter(entry.abnormal for entry in entries if entry.abnormal is not None)
            parts += [f"{kinds[0]} normal, {kinds[1]} abnormal"] if kinds else []
            told[split] = ", ".join(parts)
    return told
