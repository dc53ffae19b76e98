"""Sliding windows, optionally averaged over mirrored views of the scan."""

import math
from collections.abc import Callable, Sequence
from itertools import chain, combinations
from typing import Any

import torch
from monai.inferers import SlidingWindowInferer

from monai_ext.base import SettingError, as_numbers, is_number

_MOST = 2**31  # voxels of a window


class MirroredSlidingWindow(SlidingWindowInferer):
    """MONAI's sliding window with Gaussian blending; logits averaged over mirrored views when asked.

    Args:
        roi_size: window in voxels along x, y, z; a network trained on crops wants their size.
        sw_batch_size: windows per forward pass.
        overlap: share of a window that its neighbour covers too.
        mirror_axes: spatial axes (0 is x) to mirror; every combination is averaged, so n axes cost
            2**n passes. Leave x out for a network that tells left from right.
        **window: further arguments of MONAI's ``SlidingWindowInferer``.

    Raises:
        SettingError: an axis is not 0, 1 or 2, or named twice; a number is out of range.
    """

    def __init__(
        self,
        roi_size: Sequence[int],
        sw_batch_size: int = 1,
        overlap: float = 0.5,
        mirror_axes: Sequence[int] = (),
        **window: Any,
    ) -> None:
        axes = list(mirror_axes) if isinstance(mirror_axes, list | tuple) else None
        if axes is None or any(axis not in (0, 1, 2) or axes.count(axis) > 1 for axis in axes):
            raise SettingError(
                f"mirror_axes: {mirror_axes!r} is not a set of spatial axes; choose among 0 (x), 1 (y), 2 (z)",
                code="setting.mirror",
            )
        if not is_number(overlap, 0) or overlap >= 1:
            raise SettingError(
                f"overlap: {overlap!r}; give a share from 0 to below 1, for example 0.5", code="setting.overlap"
            )
        if isinstance(sw_batch_size, bool) or not isinstance(sw_batch_size, int) or sw_batch_size < 1:
            raise SettingError(
                f"sw_batch_size: {sw_batch_size!r}; give a whole number of at least 1", code="setting.count"
            )
        edges = as_numbers(roi_size, 3)
        if edges is None or not all(edge.is_integer() for edge in edges):
            raise SettingError(
                f"image_size: {roi_size!r} is not a window in voxels; give three whole numbers, for example "
                "[96, 96, 96]",
                code="setting.size",
            )
        if math.prod(max(edge, 1) for edge in edges) > _MOST:
            raise SettingError(
                f"image_size: {roi_size!r} is more than 2**31 voxels; give a window that fits a network's memory, for "
                "example [96, 96, 96]",
                code="setting.size",
            )
        super().__init__(tuple(map(int, edges)), sw_batch_size, overlap, mode=window.pop("mode", "gaussian"), **window)
        self.mirror_axes = tuple(mirror_axes)

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Return logits ``(b, classes, x, y, z)`` on the grid of ``inputs`` ``(b, c, x, y, z)``."""
        views = chain.from_iterable(combinations(self.mirror_axes, n) for n in range(len(self.mirror_axes) + 1))
        total: torch.Tensor | None = None
        for axes in views:
            dims = [axis + 2 for axis in axes]
            logits = super().__call__(inputs.flip(dims), network, *args, **kwargs).flip(dims)
            total = logits if total is None else total.add_(logits)
        assert total is not None  # the empty combination is always among the views
        return total.div_(2 ** len(self.mirror_axes))
