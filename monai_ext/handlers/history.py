"""The run's numbers, one JSON line an epoch, for plots and for people."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from ignite.engine import Engine, Events

from monai_ext.base import gather, rank, replacing

Handler = TypeVar("Handler")


class HistoryLines:
    """Write the mean training loss, the learning rate and the latest validation to ``history.jsonl``.

    Attach it to the trainer after validation and before `RunCheckpoints`, and name it among what that saves:
    then the mean of an epoch that was interrupted is that of the whole epoch. Means are over all ranks. The
    lines of epochs that a resumed run repeats are replaced.

    Args:
        path: the file.
        optimizer: its first group's rate is recorded.
        evaluator: the evaluator whose ``state.metrics`` are recorded, or ``None``.
    """

    def __init__(self, path: str, optimizer: Any, evaluator: Engine | None = None) -> None:
        self.path, self.optimizer, self.evaluator = Path(path), optimizer, evaluator
        self._total: Any = 0.0  # a tensor after the first iteration: reading it at each would wait for the device
        self._count: Any = 0

    def attach(self, engine: Engine) -> None:
        """Record after each epoch."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def state_dict(self) -> dict[str, Any]:
        """Return each rank's sum and count of this epoch's losses so far; every rank must call it."""
        return {"ranks": gather([float(self._total), int(self._count)])}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore this rank's: added up in another order, the mean would differ in its last digit."""
        self._total, self._count = state["ranks"][rank()]

    def _add(self, engine: Engine) -> None:
        loss = engine.state.output[0]["loss"].detach()
        counts = loss.isfinite()  # where the run goes on after a loss that is not, no step was taken
        self._total = self._total + torch.where(counts, loss, torch.zeros_like(loss))
        self._count = self._count + counts

    def _write(self, engine: Engine) -> None:
        totals, counts = zip(*self.state_dict()["ranks"], strict=True)
        self._total, self._count = 0.0, 0
        row = {
            "epoch": engine.state.epoch,
            "iteration": engine.state.iteration,
            "train_loss": sum(totals) / sum(counts) if any(counts) else None,
            "lr": self.optimizer.param_groups[0]["lr"],
        }
        if self.evaluator is not None and self.evaluator.state.epoch == engine.state.epoch:
            row |= {k: v for k, v in self.evaluator.state.metrics.items() if isinstance(v, int | float)}
        if rank() == 0:
            lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
            rows = [*(r for r in map(json.loads, lines) if r["epoch"] < row["epoch"]), row]
            with replacing(self.path) as temporary:
                temporary.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")


def shared(handler: Handler) -> Handler:
    """Return the handler itself: how a bundle's list of handlers names one that its checkpoints refer to as well.

    A bare reference may not stand in that list, for MONAI's check of a bundle's properties reads the
    ``_target_`` of each entry.
    """
    return handler
