"""Whether a picture and its mask can be used, without unpacking more than is needed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from monai_ext.base import LabelError, ScanError
from monai_ext.base.pictures import check_mask_format, check_mask_size
from monai_ext.volumes.picture_opening import opened_picture


def check_picture_here(path: Path, case: str, *, whole: bool) -> tuple[int, int]:
    """Return width and height of a picture.

    Args:
        path: the picture.
        case: the id for messages.
        whole: decode it, rather than read its header.

    Raises:
        ScanError: missing, damaged, of another kind, too large, of several frames, or, when whole, to
            be turned when shown.
    """
    with opened_picture(path, case, "picture", ScanError, whole=whole) as image:
        return image.size


def picture_pixels_here(path: Path, case: str) -> np.ndarray:
    """Return the pixels of a picture, whatever its format holds them as; uint8 ``(y, x, 3)``.

    Raises:
        ScanError: damaged, of another kind, or too large.
    """
    with opened_picture(path, case, "picture", ScanError, usable=False) as image:
        if image.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255
            grey = np.asarray(image).astype(np.int64).clip(0, 65535) // 257
            return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)
        return np.asarray(image.convert("RGB"))


def check_mask_here(path: Path, case: str, size: Sequence[int] | None, *, whole: bool) -> None:
    """Check the mask of a picture.

    Args:
        path: the mask.
        case: the id for messages.
        size: width and height of its picture; ``None`` where that cannot be read.
        whole: decode it, rather than read its header.

    Raises:
        LabelError: damaged, of another kind or stored with loss, or of another size.
    """
    with opened_picture(path, case, "mask", LabelError, whole=whole) as image:
        check_mask_format(image.format, case)
        check_mask_size(image.size, None if size is None else (size[0], size[1]), case)
