"""HU windows: the interval of Hounsfield units that a network or a picture sees."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from monai_ext.base.errors import SettingError
from monai_ext.base.settings import as_numbers

if TYPE_CHECKING:  # reading scans loads this room, and needs no torch
    import torch


def check_window(window: Sequence[float]) -> tuple[float, float]:
    """Return ``(low, high)`` in HU.

    Raises:
        SettingError: not two finite numbers in rising order.
    """
    numbers = as_numbers(window, 2)
    if numbers is None or not numbers[0] < numbers[1]:
        raise SettingError(
            f"window_hu: {window!r} is not a window; give [low, high] in HU, for example [-175, 250]",
            code="setting.window",
        )
    return numbers[0], numbers[1]


def window_hu(volume: "torch.Tensor", window: Sequence[float]) -> "torch.Tensor":
    """Map HU linearly so that the window becomes 0 to 1, clipped; any shape, float32 out."""
    low, high = check_window(window)
    values = volume.float()
    # In place where float() has made a copy: crops are windowed by the hundred a second.
    values = values - low if values.data_ptr() == volume.data_ptr() else values.sub_(low)
    return values.div_(high - low).clamp_(0, 1)
