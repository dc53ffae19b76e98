"""Settings of MONAI's sliding window that are only refused when it runs, or taken for others without a word."""

from collections.abc import Mapping
from typing import Any

import torch
from monai.utils import BlendMode

from monai_ext.base import InputError, SettingError, as_numbers, is_number

_PADDINGS = ("constant", "reflect", "replicate", "circular")


def check_window_settings(settings: Mapping[str, Any]) -> None:
    """Refuse a way of blending or padding, or a device, that there is not.

    Args:
        settings: some of ``mode``, ``sigma_scale``, ``padding_mode``, ``cval``, ``sw_device``, ``device`` and
            ``progress``.

    Raises:
        SettingError: naming the setting, its value and what it may be.
    """
    for name, value in settings.items():
        if why := _wrong(name, value):
            raise SettingError(f"{name}: {value!r}; give {why}", code="setting.window")


def check_room_to_pad(mode: str, pads: list[int], shape: tuple[int, ...]) -> None:
    """Refuse to mirror or repeat more voxels than a part of a scan has.

    Args:
        mode: one of torch's.
        pads: two of each axis of ``shape``, those of the last one first.
        shape: of what is padded, along x, y, z.

    Raises:
        InputError: the window is too large for a volume as thin as this.
    """
    spare = {"reflect": -1, "circular": 0}.get(mode)
    for axis in range(3):
        most = max(pads[2 * (2 - axis) : 2 * (3 - axis)])
        if spare is not None and most > shape[axis] + spare:
            raise InputError(
                f"padding_mode: {mode} cannot add {most} voxels to the {shape[axis]} along axis {'xyz'[axis]}; choose "
                "constant or replicate, or a smaller window",
                code="inference.input",
            )


def _wrong(name: str, value: Any) -> str | None:
    """Return what a setting should be, ``None`` if it is."""
    if name in ("sw_device", "device"):
        return None if value is None or _device(value) else "a device of this computer, such as 'cpu'"
    if name == "mode":
        modes = [str(mode) for mode in BlendMode]
        return None if isinstance(value, str) and value in modes else f"one of {', '.join(modes)}"
    if name == "padding_mode":
        return None if isinstance(value, str) and value in _PADDINGS else f"one of {', '.join(_PADDINGS)}"
    if name == "sigma_scale":
        sigmas = as_numbers([value] * 3, 3) or as_numbers(value, 3)
        return None if sigmas and min(sigmas) > 0 else "a share of the window above 0, or three"
    if name == "cval":
        return None if is_number(value) else "a number"
    return None if isinstance(value, bool) else "true or false"


def _device(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, str | int | torch.device):
        return False
    try:
        torch.empty(0, device=value)
    except (RuntimeError, ValueError, AssertionError, NotImplementedError):
        return False
    return True
