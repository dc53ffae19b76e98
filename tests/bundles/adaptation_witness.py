"""What each rank of an adaptation under ``torchrun`` saw, written by the rank itself."""

from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from monai_ext.base import rank
from monai_ext.networks import AAClip


class AdaptationWitness:
    """Attach to a trainer: keep pictures and gradients of every step, and the adapters at both ends."""

    def __init__(self, network: AAClip, folder: str, stage: int) -> None:
        self.network, self.path = network, Path(folder) / f"stage_{stage}_rank_{rank()}.pt"
        self.seen: dict[str, Any] = {"steps": []}

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, lambda: self.seen.update(before=self._adapters()))
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _adapters(self) -> dict[str, torch.Tensor]:
        return {name: value.clone() for name, value in self.network.adapters.state_dict().items()}

    def _step(self, engine: Engine) -> None:
        learning = {n: p.grad.clone() for n, p in self.network.adapters.named_parameters() if p.grad is not None}
        self.seen["steps"].append({"image": engine.state.output[0]["image"]["image"], "gradients": learning})

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({**self.seen, "after": self._adapters()}, self.path)
