"""What became of the scans of a run: counted, listed and written down."""

import csv
import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from rich.markup import escape
from rich.table import Column, Table

from monai_ext.base import plain_name, printable, replacing
from monai_ext.volumes.prepare_job import Outcome
from monai_ext.volumes.prepare_source import Found
from monai_ext.volumes.prepare_sources import listed

SHOWN = 12  # failures in a terminal: of ten thousand scans hundreds may fail, for a few reasons


@dataclass(frozen=True)
class PrepareSummary:
    """What became of the scans.

    Attributes:
        done: ids prepared in this run, sorted.
        skipped: ids that the store held already, whole and by the same settings.
        failed: for each scan that could not be prepared its id, a sentence why, and the code of the error.
        left_out: relative paths that look like labels, which only a datalist can pair with their scans.
        relaxed: of each rule that was relaxed, the ids of the scans prepared in this run that broke it.
    """

    done: list[str]
    skipped: list[str]
    failed: list[Outcome]
    left_out: list[str]
    relaxed: dict[str, list[str]] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """1 if a scan failed, else 0."""
        return 1 if self.failed else 0

    def table(self) -> Table:
        """Return the summary for a terminal, with the first failures."""
        table = Table("outcome", "scans", Column("what and why", overflow="fold"))  # a long name is shown whole
        table.add_row("done", str(len(self.done)), _shown(listed(self.done)))
        table.add_row("skipped", str(len(self.skipped)), "in the store already" if self.skipped else "")
        for rule, ids in self.relaxed.items():
            table.add_row("relaxed", str(len(ids)), _shown(f"{rule}: {listed(ids)}"))
        if self.left_out:
            why = f"{listed(self.left_out)}: named like labels; pair them with their scans in a datalist"
            table.add_row("left out", str(len(self.left_out)), _shown(why))
        table.add_row("failed", str(len(self.failed)), "")
        for outcome in self.failed[:SHOWN]:
            table.add_row("", "", _shown(outcome.reason), style="red")
        if len(self.failed) > SHOWN:
            table.add_row("", "", f"and {len(self.failed) - SHOWN} more", style="red")
        return table

    def write_failed(self, path: str | os.PathLike[str]) -> None:
        """Write every failure as CSV: the scan's id, the code of the error, the sentence.

        Raises:
            WriteError: the file cannot be written.
        """
        with (
            replacing(path) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as handle,
        ):
            rows = csv.writer(handle)
            rows.writerow(["id", "code", "reason"])
            rows.writerows([_written(item.id), item.code, _written(item.reason)] for item in self.failed)


def _shown(text: str) -> str:
    return escape(printable(text))


def _written(text: str) -> str:
    return printable(plain_name(text))


def summary_of(outcomes: Iterable[Outcome], found: Found) -> PrepareSummary:
    """Sort the outcomes of a run; they may arrive in any order."""
    relaxed: dict[str, list[str]] = {}
    by_state: dict[str, list[Outcome]] = {"done": [], "skipped": [], "failed": []}
    for outcome in outcomes:
        by_state[outcome.state].append(outcome)
        for rule in outcome.relaxed:
            relaxed.setdefault(rule, []).append(outcome.id)
    return PrepareSummary(
        done=sorted(outcome.id for outcome in by_state["done"]),
        skipped=sorted(outcome.id for outcome in by_state["skipped"]),
        failed=sorted(by_state["failed"], key=lambda item: item.id),
        left_out=found.left_out,
        relaxed={rule: sorted(ids) for rule, ids in sorted(relaxed.items())},
    )
