"""One training step and one evaluation step, shared by pretraining and segmentation."""

import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from monai.data import MetaTensor
from monai.engines.utils import IterationEvents
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from monai_ext.base import SettingError, bare, derive_seed, is_number, rank
from monai_ext.engines.compiling import check_compile, compiled, uncompiled
from monai_ext.engines.finite_numbers import FiniteGuard, SkippingGuard
from monai_ext.engines.precision import autocast, check_precision, choose_precision
from monai_ext.handlers import Quarantine


class TrainingStep:
    """The ``iteration_update`` of a MONAI trainer: forward, backward and, when due, an optimiser step.

    It replaces MONAI's own step, which only knows CUDA autocast, scales the loss in every format and
    clips before unscaling. Global randomness (mask draws, dropout) is seeded anew from (seed,
    iteration, rank) at each step, so a resumed run repeats the uninterrupted one and ranks differ.

    Args:
        seed: the run's seed.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16`` (see `choose_precision`).
        accumulate: batches per optimiser step; the last step of an epoch takes what is left.
        clip_norm: largest gradient norm, or ``None`` for no clipping.
        schedule: learning-rate schedule stepped once per iteration, or ``None``.
        compile: ``off``, ``blocks``, ``network`` or ``graphs`` (see `compiled`).
        quarantine: when given, a step whose loss or gradient norm is not finite is left out and put on that list, see
            `SkippingGuard`; the schedule goes on.

    Raises:
        SettingError: ``accumulate`` below 1, ``clip_norm`` not positive, an unknown precision or way to compile, or
            ``graphs`` beside ``accumulate``.
        FloatingPointError: the loss is not finite, or, outside float16, the gradient norm when clipping. On a CUDA
            card the next iteration says so, or `state_dict`, so that no checkpoint holds what came of it. Not with a
            quarantine.
        RunError: with a quarantine: its budget is spent, or the weights themselves are not finite.
    """

    def __init__(
        self,
        seed: int = 0,
        precision: str = "auto",
        accumulate: int = 1,
        clip_norm: float | None = None,
        schedule: Any | None = None,
        compile: str = "off",
        quarantine: Quarantine | None = None,
    ) -> None:
        if not is_number(accumulate, 1) or (clip_norm is not None and not (is_number(clip_norm) and clip_norm > 0)):
            raise SettingError(
                f"accumulate is {accumulate} and clip_norm is {clip_norm}; "
                "both must be positive (clip_norm may be null for no clipping)",
                code="setting.step",
            )
        check_precision(precision)
        check_compile(compile)
        if compile == "graphs" and accumulate > 1:
            # A replay writes gradients where the one before left its own.
            raise SettingError(
                f"compile: graphs cannot add up gradients over {accumulate} batches; choose blocks or network, or "
                "set accumulate to 1",
                code="setting.compile",
            )
        self.seed, self.precision, self.compile = seed, precision, compile
        self.guard = FiniteGuard() if quarantine is None else SkippingGuard(quarantine)
        self._fast: tuple[nn.Module, Any] | None = None
        self.accumulate, self.clip_norm, self.schedule = accumulate, clip_norm, schedule
        self.between_steps = True  # of the optimiser, where no gradients are on their way
        # Made here and switched on at the first step, so that a checkpoint can restore it before.
        self.scaler = torch.amp.GradScaler("cuda", enabled=torch.cuda.is_available())

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the loss scaling; all else derives from the iteration.

        Raises:
            FloatingPointError: a loss or gradient norm so far was not finite.
        """
        self.guard.settle()
        return {"scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the loss scaling; a state from a machine without CUDA is empty and leaves it fresh."""
        if state["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])

    def __call__(self, engine: Any, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Run one iteration; returns ``image``, ``label``, ``pred`` and the unscaled ``loss`` of the batch.

        They stand alone in a list, for MONAI's handlers look for the loss in the first of several outputs.
        """
        engine.network.train()
        torch.manual_seed(derive_seed(self.seed, "step", engine.state.iteration, rank()))
        image, label = engine.prepare_batch(batch, engine.state.device, engine.non_blocking)
        first, last, window = self._place(engine)
        if first:
            engine.optimizer.zero_grad(set_to_none=True)
            self.guard.begin()
        dtype = choose_precision(self.precision, engine.state.device)
        with self._without_sync(engine.network, last):
            with autocast(dtype, engine.state.device):
                prediction = engine.inferer(image, self._network(engine))
                loss = engine.loss_function(prediction, label).mean()
            # Those of the step before, only now: the device has this step's forward pass to do meanwhile.
            self.guard.settle()
            self.guard.watch(loss, f"iteration {engine.state.iteration}: the loss")
            if last:
                self.guard.agree()
            share = loss / window
            (self.scaler.scale(share) if dtype == torch.float16 else share).backward()
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        if last:
            self._update(engine, dtype)
        self._step_schedule(last, window)
        self.between_steps = last
        engine.state.output = [{"image": image, "label": label, "pred": prediction, "loss": loss.detach()}]
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        output: list[dict[str, Any]] = engine.state.output
        return output

    def _network(self, engine: Any) -> Any:
        """Return the network, compiled when that is asked for; once for each network that comes."""
        if self._fast is None or self._fast[0] is not engine.network:
            self._fast = engine.network, compiled(engine.network, self.compile)
        if self.compile == "graphs":
            torch.compiler.cudagraph_mark_step_begin()
        return self._fast[1]

    def _place(self, engine: Any) -> tuple[bool, bool, int]:
        """Return whether this iteration opens and closes an accumulation window, and the window's length."""
        length = engine.state.epoch_length
        position = (engine.state.iteration - 1) % length
        opening = position - position % self.accumulate
        window = min(self.accumulate, length - opening)
        return position == opening, position == opening + window - 1, window

    def _update(self, engine: Any, dtype: torch.dtype) -> None:
        scaled = dtype == torch.float16
        if not self.guard.may_step(engine.network):
            return
        if self.clip_norm is not None:
            if scaled:
                self.scaler.unscale_(engine.optimizer)
            norm = nn.utils.clip_grad_norm_(engine.network.parameters(), self.clip_norm)
            norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
            # The scaler skips a step whose float16 gradients overflowed; elsewhere infinity is an error.
            place = f"iteration {engine.state.iteration}: the norm of the gradients"
            if not scaled and not self.guard.takes(norm, place):
                return
        if scaled:
            self.scaler.step(engine.optimizer)
            self.scaler.update()
        else:
            engine.optimizer.step()

    def _step_schedule(self, last: bool, window: int) -> None:
        if self.schedule is None or not last:
            return
        with warnings.catch_warnings():
            # A float16 step skipped for overflow leaves the optimiser uncalled; the schedule goes on.
            warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler.step\(\)` before")
            for _ in range(window):
                self.schedule.step()

    @staticmethod
    def _without_sync(network: nn.Module, last: bool) -> AbstractContextManager[Any]:
        # Ranks exchange gradients once per optimiser step, not once per accumulated batch.
        if isinstance(network, nn.parallel.DistributedDataParallel) and not last:
            return network.no_sync()
        if isinstance(network, FSDPModule):
            network.set_requires_gradient_sync(last)
        return nullcontext()


class EvaluationStep:
    """The ``iteration_update`` of a MONAI evaluator: one batch through the inferer, nothing learned.

    Args:
        precision: see `choose_precision`.
        loss: when given, ``loss(pred, label)`` is added to the output as ``val_loss``.
        seed: global randomness (the masks of pretraining) is the same in every validation.
    """

    def __init__(
        self, precision: str = "auto", loss: Callable[[Any, Any], torch.Tensor] | None = None, seed: int = 0
    ) -> None:
        check_precision(precision)  # here, for during the run each scan would be refused for it
        self.precision, self.loss, self.seed = precision, loss, seed

    def __call__(self, engine: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Evaluate one batch; returns ``image``, ``label``, ``pred`` and, when asked, ``val_loss``."""
        engine.network.eval()
        position = engine.state.iteration  # MONAI's evaluators count from 1 again at every run
        image, label = engine.prepare_batch(batch, engine.state.device, engine.non_blocking)
        dtype = choose_precision(self.precision, engine.state.device)
        with torch.random.fork_rng(devices=_cuda(engine.state.device)):
            torch.manual_seed(derive_seed(self.seed, "evaluate", position, rank()))
            with torch.inference_mode(), uncompiled(), autocast(dtype, engine.state.device):
                # Without the distributed wrapper: ranks validate different numbers of windows and must not wait.
                prediction = self.predict(image, bare(engine.network), engine.inferer)
                loss = self.loss(prediction, label).float() if self.loss is not None else None
        if isinstance(image, MetaTensor) and type(prediction) is torch.Tensor:
            # The way back to the scan's own grid is recorded in the image.
            prediction = MetaTensor(prediction).copy_meta_from(image)
        engine.state.output = {"image": image, "label": label, "pred": prediction, **self.told()}
        if loss is not None:
            engine.state.output["val_loss"] = loss
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output

    def predict(self, image: torch.Tensor, network: nn.Module, inferer: Any) -> Any:
        """Return what the network makes of a batch; a plain tensor gets the image's place, a ``MetaTensor`` has one."""
        # The bare tensor: metadata slow a network down, and TorchScript takes none.
        return inferer(plain_tensor(image), network)

    def told(self) -> dict[str, Any]:
        """Return more entries of the output, known after `predict`."""
        return {}


def plain_tensor(value: torch.Tensor) -> torch.Tensor:
    """Return the tensor without MONAI's metadata; it shares memory."""
    as_tensor = getattr(value, "as_tensor", None)
    return as_tensor() if as_tensor is not None else value


def _cuda(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []
