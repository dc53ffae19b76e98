"""HU windows: the interval of Hounsfield units that a network or a picture sees."""

from collections.abc import Sequence

import numpy as np
import torch

from monai_ext.base.errors import SettingError


def check_window(window: Sequence[float]) -> tuple[float, float]:
    """Return ``(low, high)`` in HU.

    Raises:
        SettingError: not two finite numbers in rising order.
    """
    if len(window) != 2 or not np.isfinite(window).all() or not window[0] < window[1]:
        raise SettingError(
            f"window_hu: {list(window)} is not a window; give [low, high] in HU, for example [-175, 250]",
            code="setting.window",
        )
    return float(window[0]), float(window[1])


def window_hu(volume: torch.Tensor, window: Sequence[float]) -> torch.Tensor:
    """Map HU linearly so that the window becomes 0 to 1, clipped; any shape, float32 out."""
    low, high = check_window(window)
    return ((volume.float() - low) / (high - low)).clamp_(0, 1)
