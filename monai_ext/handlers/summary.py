"""The last lines of a run: how it went and where its results are."""

from pathlib import Path

from ignite.engine import Engine, Events
from rich.console import Console

from monai_ext.base import rank
from monai_ext.handlers.checkpoints import BestModel
from monai_ext.handlers.quarantine import Quarantine


class RunSummary:
    """Print where the model, the checkpoints, the curves and the pictures lie when the trainer ends.

    Args:
        output_dir: the run's folder.
        best: the keeper of the best model.
        quarantine: what the run passed over is told, where it did.
    """

    def __init__(self, output_dir: str, best: BestModel, quarantine: Quarantine | None = None) -> None:
        self.output_dir, self.best, self.quarantine = Path(output_dir), best, quarantine

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer, after everything that writes."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Print the summary on the first rank."""
        if rank():
            return
        console = Console(soft_wrap=True, highlight=False)
        console.print(f"[bold]Trained {engine.state.epoch} epochs, {engine.state.iteration} iterations.[/bold]")
        if self.best.best is None:
            console.print("  no validation took place, so no best model was chosen")
        else:
            console.print(f"  best {self.best.metric} {self.best.best:.4f} in epoch {self.best.epoch}")
            console.print(f"  its weights: {self.best.path}")
        if self.quarantine is not None and (passed := self.quarantine.summary()):
            console.print(f"  passed over: {passed}", markup=False)
        console.print(f"  all results: {self.output_dir}")
        console.print(f"  curves:      tensorboard --logdir {self.output_dir}")
