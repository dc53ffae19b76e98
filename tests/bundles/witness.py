"""What each rank of a run under ``torchrun`` saw, written by the rank itself: handlers that test configurations add."""

from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from monai_ext.base import SettingError, rank


class Witness:
    """Attach to the trainer: keep every batch, the gradients after each step, and the weights at both ends."""

    def __init__(self, network: torch.nn.Module, folder: str) -> None:
        self.network, self.path = network, Path(folder) / f"rank_{rank()}.pt"
        self.seen: dict[str, Any] = {"steps": []}

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, lambda: self.seen.update(before=self._weights()))
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _weights(self) -> dict[str, torch.Tensor]:
        return {name: value.clone() for name, value in self.network.state_dict().items()}

    def _step(self, engine: Engine) -> None:
        output = engine.state.output[0]
        step = {name: output[name] for name in ("image", "label", "loss")}
        step["shuffle"] = getattr(output["pred"], "shuffle_indices", None)
        step["gradients"] = {n: p.grad.clone() for n, p in self.network.named_parameters() if p.grad is not None}
        self.seen["steps"].append(step)

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({**self.seen, "after": self._weights()}, self.path)


class ValidationWitness:
    """Attach to the evaluator: keep the loss of every batch of the last validation."""

    def __init__(self, folder: str) -> None:
        self.path = Path(folder) / f"validation_{rank()}.pt"
        self.losses: list[float] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self.losses.clear)
        engine.add_event_handler(
            Events.ITERATION_COMPLETED, lambda: self.losses.append(float(engine.state.output["val_loss"]))
        )
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(self.losses, self.path)


class Trouble:
    """Attach to the trainer: the second rank meets a scan that cannot be used."""

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), self._stop)

    def _stop(self) -> None:
        if rank() == 1:
            raise SettingError("ct_007: is torn; copy it again", code="scan.torn", case="ct_007")
