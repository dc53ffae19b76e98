"""Files of adapters that a training leaves: the last, the best, and by which rule it was chosen."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from rich.console import Console
from torch import Tensor

from monai_ext.base import rank, replacing
from monai_ext.handlers.checkpoints import BestModel
from monai_ext.handlers.quarantine import Quarantine
from monai_ext.networks import AAClip, PromptTable, save_adapters


class BestAdapters(BestModel):
    """A `BestModel` that writes ``adapters.safetensors``: the adapters alone, with what they belong to.

    Args:
        folder: where it is written.
        network: the model whose adapters are trained.
        metric: name of a scalar in the evaluator's ``state.metrics``.
        prompts: the sentences of the training.
        smaller_is_better: ``True`` for losses.
        stage: that is trained, 1 or 2, which the file says.
    """

    def __init__(
        self,
        folder: str,
        network: AAClip,
        metric: str,
        prompts: PromptTable,
        smaller_is_better: bool = False,
        stage: int | None = None,
    ) -> None:
        super().__init__(folder, network, metric, smaller_is_better)
        self.stage = stage
        self.path = Path(folder) / "adapters.safetensors"
        self.model, self.prompts = network, prompts
        self._adapters: dict[str, Tensor] | None = None  # on the first rank

    def write(self) -> None:
        """Write the adapters as they are now."""
        save_adapters(self.model, self.path, self.prompts, self.stage)
        self._adapters = _copied(self.model)

    def state_dict(self) -> dict[str, Any]:
        """Return the best value, its epoch and its adapters: a run may go on in another folder."""
        return {**super().state_dict(), "adapters": self._adapters}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore them, and the file where it is not there."""
        super().load_state_dict(state)
        self._adapters = state["adapters"]
        if self._adapters is not None and not self.path.exists() and rank() == 0:
            current = _copied(self.model)
            self.model.adapters.load_state_dict(self._adapters)
            self.write()
            self.model.adapters.load_state_dict(current)


class AdapterFiles:
    """Write ``last.safetensors`` after each epoch; at the end ``choice.json`` and the last words of the stage.

    Without a validation the last adapters are the result, and written as ``adapters.safetensors`` too. Attach it to
    the trainer, after validation.

    Args:
        best: the keeper of the best adapters.
        stage: 1 or 2.
        held_out: pictures of the validation.
        output_dir: where the stage's results are.
        quarantine: what the stage passed over is told, where it did.
    """

    def __init__(
        self, best: BestAdapters, stage: int, held_out: int, output_dir: str, quarantine: Quarantine | None = None
    ) -> None:
        self.best, self.stage, self.held_out, self.output_dir = best, stage, held_out, Path(output_dir)
        self.quarantine = quarantine

    @property
    def rule(self) -> str:
        """How the epoch is chosen, for people."""
        if self.best.best is None:
            return "the last epoch: no validation could tell epochs apart"
        extreme = "lowest" if self.best.smaller_is_better else "highest"
        return (
            f"the epoch with the {extreme} {self.best.metric} on {self.held_out} held-out pictures of the source sets; "
            "no test picture was looked at"
        )

    def attach(self, engine: Engine) -> None:
        """Write after each epoch and at the end."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._keep_last)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _keep_last(self) -> None:
        if rank() == 0:
            save_adapters(self.best.model, self.best.path.with_name("last.safetensors"), self.best.prompts, self.stage)

    def _finish(self, engine: Engine) -> None:
        if rank():
            return
        if self.best.best is None:
            self.best.write()
        epoch = engine.state.epoch if self.best.best is None else self.best.epoch
        choice = {"stage": self.stage, "epoch": epoch, "of_epochs": engine.state.epoch, "rule": self.rule}
        choice |= {"metric": self.best.metric, "value": self.best.best, "held_out_pictures": self.held_out}
        with replacing(self.best.path.with_name("choice.json")) as temporary:
            temporary.write_text(json.dumps(choice, indent=4) + "\n", encoding="utf-8")
        console = Console(soft_wrap=True, highlight=False)
        console.print(
            f"[bold]Stage {self.stage}: {engine.state.epoch} epochs, {engine.state.iteration} iterations.[/bold]"
        )
        value = "" if self.best.best is None else f", {self.best.metric} {self.best.best:.4f}"
        console.print(f"  chosen:   epoch {epoch}{value}", markup=False)
        console.print(f"  rule:     {self.rule}", markup=False)
        if self.quarantine is not None and (passed := self.quarantine.summary()):
            console.print(f"  left out: {passed}", markup=False)
        console.print(f"  adapters: {self.best.path}", markup=False)
        console.print(f"  results:  {self.output_dir}", markup=False)


def _copied(model: AAClip) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in model.adapters.state_dict().items()}
