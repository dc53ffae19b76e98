"""A progress bar over the whole run, on the first rank."""

import math

from ignite.engine import Engine, Events
from tqdm import tqdm

from monai_ext.base import rank
from monai_ext.handlers.quarantine import Quarantine


class TrainingProgress:
    """One tqdm bar from the first iteration to the last, with the running loss.

    Args:
        smoothing: weight of the newest loss in the running mean.
        quarantine: how many scans and steps it passed over is shown as soon as there are some.
    """

    def __init__(self, smoothing: float = 0.05, quarantine: Quarantine | None = None) -> None:
        self.smoothing, self.quarantine = smoothing, quarantine
        self._bar: tqdm[None] | None = None
        self._loss: float | None = None

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer, after the handler that resumes."""
        engine.add_event_handler(Events.STARTED, self._open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._advance)
        engine.add_event_handler(Events.COMPLETED | Events.EXCEPTION_RAISED, self._close)

    def _open(self, engine: Engine) -> None:
        if rank():
            return
        total = engine.state.max_epochs * engine.state.epoch_length
        self._bar = tqdm(total=total, initial=engine.state.iteration, desc="training", unit="it", mininterval=0.5)

    def _advance(self, engine: Engine) -> None:
        if self._bar is None:
            return
        self._bar.update()
        # Reading the loss waits for the device; once per redrawn bar is enough.
        if self._bar.n % 10 == 0 or self._bar.n == self._bar.total:
            loss = float(engine.state.output[0]["loss"])
            if math.isfinite(loss):
                self._loss = loss if self._loss is None else self._loss + 10 * self.smoothing * (loss - self._loss)
            counts = self.quarantine.counts() if self.quarantine is not None else {}
            shown = loss if self._loss is None else self._loss
            self._bar.set_postfix(epoch=engine.state.epoch, loss=f"{shown:.4f}", refresh=False, **counts)

    def _close(self, engine: Engine, *error: BaseException) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if error:
            raise error[0]


class ScanProgress:
    """One tqdm bar over the scans of an inference or evaluation, on the first rank."""

    def __init__(self) -> None:
        self._bar: tqdm[None] | None = None

    def attach(self, engine: Engine) -> None:
        """Attach to the evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._advance)
        engine.add_event_handler(Events.COMPLETED, self._close)

    def _open(self, engine: Engine) -> None:
        if not rank():
            self._bar = tqdm(total=engine.state.epoch_length, desc="scans", unit="scan")

    def _advance(self, engine: Engine) -> None:
        if self._bar is not None:
            self._bar.update()

    def _close(self, engine: Engine) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
