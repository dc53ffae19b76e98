"""Numbers that are not finite, on the CPU and as a CUDA card hands them over."""

import math

import pytest
import torch

from monai_ext.engines import FiniteGuard


def test_a_number_of_the_cpu_is_refused_at_once() -> None:
    with pytest.raises(FloatingPointError, match="iteration 7: the loss is inf; lower the learning rate"):
        FiniteGuard().watch(torch.tensor(math.inf), "iteration 7: the loss")


class Arrival:
    """An event of a card that tells when it was waited for."""

    def __init__(self, seen: list[str], name: str) -> None:
        self.seen, self.name = seen, name

    def synchronize(self) -> None:
        self.seen.append(self.name)


def test_what_is_pending_is_refused_when_settled_and_only_once() -> None:
    guard, waited = FiniteGuard(), []
    for name, value in (("one", 1.5), ("two", math.nan), ("three", 2.5)):
        guard._pending.append((torch.tensor(value), Arrival(waited, name), name))  # type: ignore[arg-type]
    with pytest.raises(FloatingPointError, match="two is nan"):
        guard.settle()
    assert waited == ["one", "two"]
    guard.settle()
