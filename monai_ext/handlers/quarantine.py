"""What a training passed over and why: the quarantine list, its file, and how much of it a run allows."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ignite.engine import Engine, Events

from monai_ext.base import RunError, SettingError, StoreError, gather, is_number, rank, replacing

Kind = Literal["scan", "worker", "step", "restart"]
_SKIPPED = ("scan", "worker", "step")


class Finding(NamedTuple):
    """One line of the list.

    ``id`` names the scan, of a step all scans of its batch. ``scan`` cannot be read or holds numbers that are not
    finite; ``worker`` ended or blocked the process that read it, twice; ``step`` had a loss or gradients that are not
    finite and was not taken; ``restart`` made the loader begin anew with new processes. From ``iteration`` on, a
    ``scan`` or ``worker`` finding bars item number ``item`` of the ``part`` of the data. Epochs and iterations count
    from 1.
    """

    id: str
    kind: Kind
    epoch: int
    iteration: int
    code: str
    problem: str
    part: str = ""
    item: int = -1


class Quarantine:
    """The findings of a run, within a budget; beyond it the run stops.

    Each finding is one line of ``quarantine.jsonl`` at once. Every rank has its own findings and budget; the first
    writes that file, the others ``quarantine_rank1.jsonl`` and so on. A resumed run takes up the file, or, in another
    folder, what its checkpoint says, and bars the same scans from the same iterations on, also those that the run
    before met later than the checkpoint: it ends with the same weights. A line that is deleted lets its scan in
    again. Name it among what `RunCheckpoints` saves, and attach it after that.

    Args:
        folder: where the list is written.
        max_skipped: scans and steps that an epoch may lose: a whole number, or below 1 a share of the training's scans.
            0 stops at the first.
        max_restarts: how often in an epoch a loader may begin anew after a process of it ended or hung.

    Raises:
        SettingError: one of them is negative, or a count is not a whole number.
    """

    def __init__(self, folder: str, max_skipped: float = 3, max_restarts: int = 3) -> None:
        whole = all(number < 1 or number == int(number) for number in (max_skipped, max_restarts) if is_number(number))
        if not is_number(max_skipped, 0) or not is_number(max_restarts, 0) or not whole or 0 < max_restarts < 1:
            raise SettingError(
                f"max_skipped is {max_skipped!r} and max_restarts {max_restarts!r}; give whole numbers from 0 on, or "
                "for max_skipped a share of the scans below 1",
                code="setting.quarantine",
            )
        self.folder, self.max_skipped, self.max_restarts = Path(folder), max_skipped, int(max_restarts)
        self.findings: list[Finding] = []
        self.batch: list[str] = []  # the names of the scans in the batch that was handed out last
        self._scans: dict[str, int] = {}
        self._barred: dict[tuple[str, int], int] = {}
        self._engine: Engine | None = None
        self._restored = False

    @property
    def path(self) -> Path:
        """The file of this rank."""
        return self.folder / (f"quarantine_rank{rank()}.jsonl" if rank() else "quarantine.jsonl")

    def attach(self, engine: Engine) -> None:
        """Follow the trainer's count; a list of an earlier run that this one does not resume is removed."""
        self._engine = engine
        engine.add_event_handler(Events.STARTED, self._begin)

    def now(self) -> tuple[int, int]:
        """Return the trainer's epoch and iteration."""
        return (0, 0) if self._engine is None else (self._engine.state.epoch, self._engine.state.iteration)

    def expect(self, part: str, scans: int) -> None:
        """Take note of how many scans a part of the data has, for a budget that is a share."""
        self._scans[part] = scans

    def allowed(self, scans: int) -> int:
        """Return how many scans and steps an epoch of a training over so many scans may lose."""
        return int(self.max_skipped if self.max_skipped >= 1 else self.max_skipped * scans)

    def bars(self, part: str, item: int, iteration: int) -> bool:
        """Tell whether an item may not be drawn for an iteration."""
        return iteration >= self._barred.get((part, item), iteration + 1)

    def add(self, finding: Finding) -> None:
        """Write a finding down and log it.

        Raises:
            RunError: it is one more than the budget of its epoch; it stands in the list all the same.
        """
        if finding in self.findings:  # known from the run that this one resumes
            return
        spent = [one for one in self.findings if one.epoch == finding.epoch and one.iteration <= finding.iteration]
        restart = finding.kind == "restart"
        count = 1 + sum((one.kind == "restart") == restart for one in spent)
        allowed = self.max_restarts if restart else self.allowed(self._scans.get("train", 0))
        if count > allowed:
            self._write([finding])
            raise RunError(
                f"{finding.problem} (number {count} of epoch {finding.epoch}, and "
                f"{'max_restarts' if restart else 'max_skipped'} allows {allowed}; {self.path.name} lists all)",
                code="run.restarts" if restart else "run.skipped",
                case=finding.id or None,
            )
        self._keep(finding)
        self._write()
        logging.getLogger("monai_ext").error("passed over: %s", finding.problem)

    def counts(self) -> dict[str, int]:
        """Return how many findings there are of each kind, of this rank and up to now."""
        found: dict[str, int] = {}
        for one in self.findings:
            if self._engine is None or one.iteration <= self._engine.state.iteration:
                found[one.kind] = found.get(one.kind, 0) + 1
        return found

    def summary(self) -> str:
        """Return the counts in words, empty where nothing was passed over."""
        words = {"scan": "scans", "worker": "scans that ended workers", "step": "steps", "restart": "restarts"}
        counts = self.counts()
        told = ", ".join(f"{counts[kind]} {word}" for kind, word in words.items() if kind in counts)
        return told and f"{told}, see {self.path}"

    def bad_scans(self) -> set[str]:
        """Return the scans in all ranks' lists, also those that stopped a run; every rank must call it."""
        found = [one for one, _ in self._listed()] if self.path.exists() else self.findings
        return set().union(*gather({one.id for one in found if one.kind in ("scan", "worker")}))

    def state_dict(self) -> dict[str, Any]:
        """Return every rank's findings; every rank must call it."""
        return {"ranks": gather([one._asdict() for one in self.findings])}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the list's file where there is one, else what a checkpoint says.

        Raises:
            StoreError: the file holds something else than findings.
        """
        lists = state["ranks"]
        lines = lists[rank()] if rank() < len(lists) else []
        self.findings, self._barred, self._restored = [], {}, True
        for finding in self._read() if self.path.exists() else [Finding(**line) for line in lines]:
            self._keep(finding)
        if self.findings:
            self._write()
        else:
            self.path.unlink(missing_ok=True)

    def _begin(self) -> None:
        if not self._restored and not self.findings:
            self.path.unlink(missing_ok=True)

    def _keep(self, finding: Finding) -> None:
        self.findings.append(finding)
        if finding.kind in ("scan", "worker"):
            place = finding.part, finding.item
            self._barred[place] = min(finding.iteration, self._barred.get(place, finding.iteration))

    def _write(self, last: Sequence[Finding] = ()) -> None:
        rows = [one._asdict() for one in self.findings] + [one._asdict() | {"stopped": True} for one in last]
        with replacing(self.path) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def _read(self) -> list[Finding]:
        """Return the findings of the file but for the one that stopped the run: what it names is tried again."""
        return [one for one, stopped in self._listed() if not stopped]

    def _listed(self) -> list[tuple[Finding, bool]]:
        """Return the findings of the file, each with whether it stopped the run."""
        try:
            rows = [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines() if line.strip()]
            stopped = [bool(row.pop("stopped", False)) for row in rows]
            return [(Finding(**row), last) for row, last in zip(rows, stopped, strict=True)]
        except (ValueError, TypeError, AttributeError) as error:
            raise StoreError(
                f"{self.path.name}: holds a line that is no finding; delete that line, or the file", code="run.list"
            ) from error
