"""Reading pictures and masks in this process: whatever Pillow can hold becomes 8-bit RGB, a mask 0 and 1."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from monai_ext.base import LabelError, ScanError
from monai_ext.base.pictures import check_mask_format, check_mask_size
from monai_ext.volumes.picture_opening import opened_picture

MASK_KINDS = 16  # different values of a mask: kinds of defects are few, lossy compression makes many
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")


def picture_here(path: Path, case: str) -> np.ndarray:
    """Read a picture as uint8 RGB ``(h, w, 3)``."""
    with opened_picture(path, case, "picture", ScanError) as image:
        return np.asarray(_eight_bits(image, case).convert("RGB"))


def mask_here(path: Path, case: str, shape: Sequence[int] | None) -> np.ndarray:
    """Read a mask as uint8 ``(h, w)`` of 0 and 1."""
    with opened_picture(path, case, "mask", LabelError) as image:
        check_mask_format(image.format, case)
        values = _mask_values(image, case)
    if shape is not None:
        check_mask_size((values.shape[1], values.shape[0]), (shape[1], shape[0]), case)
    if values.dtype.kind == "f" and (broken := int(np.count_nonzero(~np.isfinite(values)))):
        raise LabelError(
            f"{case}: {broken} of {values.size} pixels of the mask are NaN or infinite, and so neither normal nor "
            "abnormal; make it again as PNG with 0 and 255",
            code="label.not_finite",
            case=case,
        )
    if (kinds := len(np.unique(values))) > MASK_KINDS:
        raise LabelError(
            f"{case}: the mask has {kinds} different values, so it is not binary or was stored with loss; "
            "make it again as PNG with 0 and 255",
            code="label.not_binary",
            case=case,
        )
    return (values != 0).astype(np.uint8)


def _mask_values(image: Image.Image, case: str) -> np.ndarray:
    """Return one number a pixel, 0 where every channel is 0."""
    if image.mode in ("1", "L", "P", "I", "F", *_SIXTEEN_BITS):
        return np.asarray(image)
    if image.mode not in ("LA", "PA", "RGB", "RGBA"):
        raise LabelError(
            f"{case}: the mask is stored as {image.mode}, where 0 need not be black; make it again as PNG with 0 and "
            "255",
            code="label.mode",
            case=case,
        )
    channels = np.asarray(image)
    if image.mode.endswith("A"):
        if (channels[..., -1] != 255).any():
            raise LabelError(
                f"{case}: the mask is transparent in places, so that its drawing may be in either; "
                "make it again as PNG with 0 and 255",
                code="label.transparent",
                case=case,
            )
        channels = channels[..., :-1]
    # Not as grey, whose rounding makes 0 of the darkest colours.
    return (channels.astype(np.uint32) << (8 * np.arange(channels.shape[-1], dtype=np.uint32))).sum(axis=-1)


def _eight_bits(image: Image.Image, case: str) -> Image.Image:
    if image.mode in _SIXTEEN_BITS or (image.mode == "I" and image.format == "PNG"):
        # Pillow would clip at 255; 65535 / 257 is 255. PNG has no more than 16 bits, whatever the mode says.
        return Image.fromarray((np.asarray(image).astype(np.uint32) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ScanError(
            f"{case}: the picture has 32 bits a pixel and no range of its own; save it with 8 or 16 bits",
            code="picture.depth",
            case=case,
        )
    return image
