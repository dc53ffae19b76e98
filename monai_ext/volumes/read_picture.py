"""The way into the package for pictures and their masks; like scans, they are read in a process of limited means."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from monai_ext.volumes.reading_limits import reads_inside
from monai_ext.volumes.reading_pool import ask
from monai_ext.volumes.reading_values import trusting_nothing


def read_picture(path: str | os.PathLike[str], case: str | None = None) -> np.ndarray:
    """Read a picture as 8-bit RGB.

    Grey and palette pictures are spread to RGB, transparency is dropped, and 16 bits are scaled from 0..65535
    to 0..255.

    Args:
        path: a PNG, JPEG, TIFF, BMP or WebP file.
        case: what errors call it; its base name if omitted.

    Returns:
        uint8 ``(h, w, 3)``.

    Raises:
        ScanError: missing, truncated, of another kind, too large, without a range of its own (32 bits), or to be
            turned when shown.
    """
    place = Path(os.path.abspath(path))
    return _pixels("read_picture", place, case or place.stem, 3)


def read_mask(
    path: str | os.PathLike[str], case: str | None = None, shape: tuple[int, int] | None = None
) -> np.ndarray:
    """Read a mask: all that is not 0 is abnormal. Of a palette, the numbers count and not the colours.

    Args:
        path: a PNG, TIFF, BMP or lossless WebP file.
        case: what errors call it; its base name if omitted.
        shape: height and width of the picture that it belongs to.

    Returns:
        uint8 ``(h, w)`` of 0 and 1.

    Raises:
        LabelError: unreadable, stored with loss (as JPEG does, whatever the name), of another size, or drawn in
            its transparency.
    """
    place = Path(os.path.abspath(path))
    return _pixels("read_mask", place, case or place.stem, 2, shape=shape)


def check_picture(path: Path, case: str, *, whole: bool) -> tuple[int, int]:
    """Return width and height of a picture.

    Args:
        path: the picture.
        case: the id for messages.
        whole: decode it, rather than read its header.

    Raises:
        ScanError: damaged, of another kind, or too large.
    """
    (width, height), _ = _asked("check_picture", path, case, whole=whole)
    with trusting_nothing(case):
        if not all(isinstance(size, int) and size > 0 for size in (width, height)):
            raise ValueError
    return width, height


def check_mask(path: Path, case: str, size: tuple[int, int] | None, *, whole: bool) -> None:
    """Check the mask of a picture.

    Args:
        path: the mask.
        case: the id for messages.
        size: width and height of its picture; ``None`` where that cannot be read.
        whole: decode it, rather than read its header.

    Raises:
        LabelError: damaged, of another kind or stored with loss, or of another size.
        ScanError: reading it crashes, hangs, or takes more memory than it may.
    """
    _asked("check_mask", path, case, size=size, whole=whole)


def picture_pixels(path: Path, case: str) -> np.ndarray:
    """Return the pixels of a picture, whatever its format holds them as; uint8 ``(y, x, 3)``.

    Raises:
        ScanError: damaged, of another kind, or too large.
    """
    return _pixels("picture_pixels", path, case, 3)


def _pixels(task: str, path: Path, case: str, axes: int, **told: Any) -> np.ndarray:
    _, pixels = _asked(task, path, case, **told)
    with trusting_nothing(case):
        if pixels is None or pixels.dtype != np.uint8 or pixels.ndim != axes or pixels.shape[2:] not in ((), (3,)):
            raise ValueError
        return pixels


def _asked(task: str, path: Path, case: str, **told: Any) -> tuple[Any, np.ndarray | None]:
    told |= {"path": os.path.abspath(path), "case": case}
    if reads_inside():
        from monai_ext.volumes.picture_tasks import TASKS  # not above: who reads scans alone needs no Pillow

        values, pixels = TASKS[task](**told)
        return values, pixels if isinstance(pixels, np.ndarray) else None
    return ask(task, case, told)
