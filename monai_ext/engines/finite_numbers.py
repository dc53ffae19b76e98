"""Refusing losses and gradients that are not finite without making a device wait for its host."""

import math

import torch
from torch import Tensor, nn

from monai_ext.base import RunError, own_part_is_finite, world
from monai_ext.handlers import Finding, Quarantine

_WAY_OUT = "lower the learning rate, or look for a damaged scan among its batch"


class FiniteGuard:
    """Watches single numbers of a training step, and raises when one is infinite or NaN.

    A number on the CPU is looked at when it comes. One on a CUDA device is copied to the host behind the
    device's other work and looked at when `settle` is called, so that the host goes on queueing work.
    """

    def __init__(self) -> None:
        self._pending: list[tuple[Tensor, torch.cuda.Event | None, str]] = []

    def watch(self, value: Tensor, place: str) -> None:
        """Look at a scalar, now or when `settle` is called.

        Args:
            value: one number.
            place: what it is, such as ``"iteration 3: the loss"``.

        Raises:
            FloatingPointError: a number on another device than a CUDA card is not finite.
        """
        value = value.detach()
        if value.device.type != "cuda":
            _refuse(float(value), place)
            return
        self._pending.append((*_on_its_way(value), place))

    def begin(self) -> None:
        """Do nothing: what is not finite is told whether a step is due or not."""

    def settle(self) -> None:
        """Wait for the numbers watched so far; a device is through with them long before its other work.

        Raises:
            FloatingPointError: one of them is not finite.
        """
        pending, self._pending = self._pending, []
        for seen, arrived, place in pending:
            _refuse(_here(seen, arrived), place)

    def agree(self) -> None:
        """Do nothing: no step is left out."""

    def may_step(self, network: nn.Module) -> bool:
        """Return ``True``: a number that is not finite ends the run instead."""
        return True

    def takes(self, norm: Tensor, place: str) -> bool:
        """Watch the norm of the gradients, and return ``True``."""
        self.watch(norm, place)
        return True


class SkippingGuard:
    """Has a step of the optimiser left out when a loss or the gradients are not finite, and put on the list.

    All ranks leave out the same steps: one number is reduced over them for each step, behind the forward pass. The
    host waits for it, and on a CUDA device for the forward pass with it, before it queues the optimiser's work; the
    backward pass is queued by then, so that the device does not idle. Only a norm, where gradients are clipped, is
    waited for to the end.

    Args:
        quarantine: the list and its budget; also knows the iteration and the scans of its batch.
    """

    def __init__(self, quarantine: Quarantine) -> None:
        self.quarantine = quarantine
        self._seen: list[tuple[Tensor, torch.cuda.Event | None, Finding]] = []
        self._bad: Tensor | None = None
        self._verdict: tuple[Tensor, torch.cuda.Event | None] | None = None

    def settle(self) -> None:
        """Do nothing: each step is judged before it is taken."""

    def begin(self) -> None:
        """Forget what was watched of a step that was never due."""
        self._seen, self._bad, self._verdict = [], None, None

    def watch(self, value: Tensor, place: str) -> None:
        """Take note of the loss of one batch; ``place`` is such as ``"iteration 3: the loss"``."""
        value = value.detach()
        bad = (~value.isfinite()).float()
        self._bad = bad if self._bad is None else torch.maximum(self._bad, bad)
        self._seen.append((*_on_its_way(value), self._finding(place, "step.loss")))

    def agree(self) -> None:
        """Let all ranks know of one another's losses since the last step; every rank must call it."""
        if self._bad is None:
            return
        if world() > 1:
            torch.distributed.all_reduce(self._bad, torch.distributed.ReduceOp.MAX)
        self._verdict = _on_its_way(self._bad)

    def may_step(self, network: nn.Module) -> bool:
        """Tell whether the losses of all ranks were finite, and put those of this rank that were not on the list.

        Raises:
            RunError: one was not, nor are the weights, or the list is beyond its budget.
        """
        seen, verdict = self._seen, self._verdict
        self.begin()
        for value, arrived, finding in seen:
            number = _here(value, arrived)
            if not math.isfinite(number):
                self._refuse_weights(network, finding)
                self.quarantine.add(finding._replace(problem=f"{finding.problem} is {number}; {_WAY_OUT}"))
        return verdict is None or not _here(*verdict)

    def takes(self, norm: Tensor, place: str) -> bool:
        """Tell whether the norm of the gradients, alike on all ranks, is finite; else put it on the list.

        Raises:
            RunError: the list is beyond its budget.
        """
        number = float(norm)
        if math.isfinite(number):
            return True
        finding = self._finding(place, "step.gradients")
        self.quarantine.add(finding._replace(problem=f"{finding.problem} is {number}; {_WAY_OUT}"))
        return False

    def _finding(self, place: str, code: str) -> Finding:
        names = ", ".join(dict.fromkeys(self.quarantine.batch))
        return Finding(names, "step", *self.quarantine.now(), code, f"{place}{names and f' of {names}'}", "train")

    def _refuse_weights(self, network: nn.Module, finding: Finding) -> None:
        if not own_part_is_finite(network):
            raise RunError(
                f"{finding.problem} is not finite, as the weights are not; resume from a checkpoint before that, or "
                "start anew with a lower learning rate",
                code="run.weights",
            )


def _on_its_way(value: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """Return the number on the host and, from a CUDA device, the event of its arrival."""
    if value.device.type != "cuda":
        return value, None
    seen = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
    seen.copy_(value, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record(torch.cuda.current_stream(value.device))
    return seen, arrived


def _here(seen: Tensor, arrived: torch.cuda.Event | None) -> float:
    if arrived is not None:
        arrived.synchronize()
    return float(seen)


def _refuse(value: float, place: str) -> None:
    if not math.isfinite(value):
        raise FloatingPointError(f"{place} is {value}; {_WAY_OUT}")
