"""Sliding windows over mirrored views: what is averaged, and what is refused."""

from typing import Any

import pytest
import torch

from monai_ext.base import SettingError
from monai_ext.inferers import MirroredSlidingWindow

WINDOW = (4, 6, 5)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"overlap": 1.0}, r"overlap: 1\.0; give a share from 0 to below 1"),
        ({"overlap": -0.1}, "overlap: -0.1"),
        ({"overlap": "half"}, "overlap: 'half'"),
        ({"sw_batch_size": 0}, "sw_batch_size: 0; give a whole number of at least 1"),
        ({"sw_batch_size": 1.5}, "sw_batch_size: 1.5"),
        ({"mirror_axes": [3]}, r"mirror_axes: \[3\] is not a set of spatial axes"),
        ({"mirror_axes": [1, 1]}, r"mirror_axes: \[1, 1\]"),
        ({"mirror_axes": 1}, "mirror_axes: 1 is not a set of spatial axes"),
        ({"mirror_axes": [[1]]}, r"mirror_axes: \[\[1\]\] is not a set of spatial axes"),
    ],
)
def test_settings_out_of_range_are_refused_before_a_scan_is_read(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingError, match=f"^{sentence}"):
        MirroredSlidingWindow(WINDOW, **settings)


def test_a_window_has_three_sizes() -> None:
    with pytest.raises(SettingError, match=r"^image_size: 16 is not a window in voxels; give three"):
        MirroredSlidingWindow(16)  # type: ignore[arg-type]


def test_views_are_mirrored_back_and_averaged() -> None:
    generator = torch.Generator().manual_seed(3)
    volume = torch.rand((1, 1, 7, 11, 13), generator=generator)
    ramp = torch.rand(WINDOW, generator=generator)  # a network that tells a window's places apart

    def network(window: torch.Tensor) -> torch.Tensor:
        return window * ramp

    plain = MirroredSlidingWindow(WINDOW, 3, 0.25)
    flips: list[list[int]] = [[], [2], [4], [2, 4]]
    expected = sum(plain(volume.flip(dims), network).flip(dims) for dims in flips) / 4
    found = MirroredSlidingWindow(WINDOW, 3, 0.25, mirror_axes=[0, 2])(volume, network)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)  # float32 sums in another order
    assert (found - plain(volume, network)).abs().max() > 0.01
