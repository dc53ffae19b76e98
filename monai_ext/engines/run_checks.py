"""Settings of a run that only its parts would refuse, late and in words of their own."""

import os
from typing import Any

import torch

from monai_ext.base import SettingError


def check_paths(**paths: Any) -> None:
    """Refuse settings that should be paths and are not, by name.

    MONAI's command line turns what looks like a number into one: ``--dataset_dir 2024_01`` arrives as 202401,
    which would be another folder.

    Raises:
        SettingError: naming the setting and what it is.
    """
    for name, path in paths.items():
        if not isinstance(path, str | os.PathLike):
            raise SettingError(
                f"{name}: {path!r} is no path; give one, and where a name looks like a number write ./ before it",
                code="setting.path",
            )


def check_counts(least: int, **counts: Any) -> None:
    """Refuse settings that should be whole numbers from ``least`` up and are not, by name.

    Raises:
        SettingError: naming the setting and what it is.
    """
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < least:
            raise SettingError(
                f"{name}: {count!r}; give a whole number of at least {least}",
                code="setting.count",
            )


def check_device(device: Any) -> None:
    """Refuse a device that torch does not know or that this computer lacks.

    Raises:
        SettingError: naming the device and those that are here.
    """
    try:
        torch.empty(0, device=torch.device(device))
    except (RuntimeError, TypeError, AssertionError, NotImplementedError):
        here = ", ".join(["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))])
        raise SettingError(
            f"device: {str(device)!r} cannot be used on this computer; choose among {here}", code="setting.device"
        ) from None
