"""The run's numbers, one JSON line an epoch, for plots and for people."""

import json
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from monai_ext.base import replacing


class HistoryLines:
    """Append the mean training loss, the learning rate and the latest validation to ``history.jsonl``.

    Attach it to the trainer after validation. A resumed run drops the lines that it will write again.

    Args:
        path: the file.
        optimizer: its first group's rate is recorded.
        evaluator: the evaluator whose ``state.metrics`` are recorded, or ``None``.
    """

    def __init__(self, path: str, optimizer: Any, evaluator: Engine | None = None) -> None:
        self.path, self.optimizer, self.evaluator = Path(path), optimizer, evaluator
        self._total, self._count = 0.0, 0

    def attach(self, engine: Engine) -> None:
        """Record after each epoch."""
        engine.add_event_handler(Events.STARTED, self._keep_earlier)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def _keep_earlier(self, engine: Engine) -> None:
        if not _first_rank(engine) or not self.path.exists():
            return
        rows = [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]
        with replacing(self.path) as temporary:
            kept = [json.dumps(row) + "\n" for row in rows if row["epoch"] <= engine.state.epoch]
            temporary.write_text("".join(kept), encoding="utf-8")

    def _add(self, engine: Engine) -> None:
        self._total = self._total + engine.state.output["loss"].detach()
        self._count += 1

    def _write(self, engine: Engine) -> None:
        row = {
            "epoch": engine.state.epoch,
            "iteration": engine.state.iteration,
            "train_loss": float(self._total / max(self._count, 1)),
            "lr": self.optimizer.param_groups[0]["lr"],
        }
        self._total, self._count = 0.0, 0
        if self.evaluator is not None and self.evaluator.state.epoch == engine.state.epoch:
            row |= {k: v for k, v in self.evaluator.state.metrics.items() if isinstance(v, int | float)}
        if _first_rank(engine):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(row) + "\n")


def _first_rank(engine: Engine) -> bool:
    return getattr(engine.state, "rank", 0) == 0
