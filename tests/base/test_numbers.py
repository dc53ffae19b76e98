"""Derived seeds and HU windows."""

import itertools

import pytest
import torch

from monai_ext.base import SettingError, check_window, derive_seed, window_hu


def test_seeds_depend_on_every_part_on_order_and_on_type() -> None:
    names = [(0, 1), (1, 0), (0, "1"), (0, 1, 0), ("0", 1), (0, 11), (1, 0, 0)]
    seeds = [derive_seed(*parts) for parts in dict.fromkeys(names)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_seeds_are_the_same_in_every_release() -> None:
    # Fixed values: a change here would break the resuming of runs begun with an earlier version.
    assert [derive_seed(0, "crop", 3, 5), derive_seed(7)] == [4239086928, 3334015024]


def test_seeds_spread_over_the_whole_range() -> None:
    seeds = torch.tensor([derive_seed(0, "x", a, b) for a, b in itertools.product(range(50), range(50))])
    # Mean of 2,500 uniform draws: its standard error is 0.29 / 50 of the range, so 5 of them are 0.029.
    assert abs(seeds.double().mean().item() / 2**32 - 0.5) < 0.029


def test_window_maps_its_ends_to_zero_and_one_and_clips() -> None:
    volume = torch.tensor([-1000, -175, 37, 250, 3000], dtype=torch.int16)
    expected = torch.tensor([0, 0, (37 + 175) / 425, 1, 1])
    torch.testing.assert_close(window_hu(volume, (-175, 250)), expected, rtol=0, atol=6e-8)  # one float32 step


@pytest.mark.parametrize("window", [(250, -175), (0, 0), (0, float("nan")), (1, 2, 3), (0, float("inf"))])
def test_impossible_windows_are_refused_with_an_example(window: tuple[float, ...]) -> None:
    with pytest.raises(SettingError, match=r"window_hu: .* for example \[-175, 250\]"):
        check_window(window)
