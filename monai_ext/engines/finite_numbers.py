"""Refusing losses and gradients that are not finite without making a device wait for its host."""

import math

import torch
from torch import Tensor

_WAY_OUT = "lower the learning rate, or look for a damaged scan among its batch"


class FiniteGuard:
    """Watches single numbers of a training step and raises when one is infinite or NaN.

    A number on the CPU is looked at when it comes. One on a CUDA device is copied to the host behind the
    device's other work and looked at when `settle` is called, so that the host goes on queueing work.
    """

    def __init__(self) -> None:
        self._pending: list[tuple[Tensor, torch.cuda.Event, str]] = []

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
        seen = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
        seen.copy_(value, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record(torch.cuda.current_stream(value.device))
        self._pending.append((seen, arrived, place))

    def settle(self) -> None:
        """Wait for the numbers watched so far; a device is through with them long before its other work.

        Raises:
            FloatingPointError: one of them is not finite.
        """
        pending, self._pending = self._pending, []
        for seen, arrived, place in pending:
            arrived.synchronize()
            _refuse(float(seen), place)


def _refuse(value: float, place: str) -> None:
    if not math.isfinite(value):
        raise FloatingPointError(f"{place} is {value}; {_WAY_OUT}")
