"""Recorded passes without a card; with one see tests/gpu."""

import torch

from monai_ext.networks.replay import Replayed


def test_on_a_cpu_the_function_is_called() -> None:
    calls = []

    def double(x: torch.Tensor) -> list[torch.Tensor]:
        calls.append(x)
        return [2 * x]

    replayed = Replayed(double, list)
    given = torch.arange(3.0)
    with torch.no_grad():
        assert replayed(given)[0].tolist() == [0, 2, 4]
        assert replayed(given + 1)[0].tolist() == [2, 4, 6]
    assert len(calls) == 2
