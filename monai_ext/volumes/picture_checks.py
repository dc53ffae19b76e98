"""Whether a picture and its mask can be used, without unpacking more than is needed."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from monai_ext.base import InputError, LabelError, ScanError
from monai_ext.base.pictures import MAX_PIXELS, PICTURE_FORMATS, check_mask_format, check_mask_size
from monai_ext.volumes.reading_limits import allow


def check_picture_here(path: Path, case: str, *, whole: bool) -> tuple[int, int]:
    """Return width and height of a picture.

    Args:
        path: the picture.
        case: the id for messages.
        whole: decode it, rather than read its header.

    Raises:
        ScanError: damaged, of another kind, or too large.
    """
    with _opened(path, case, "picture", ScanError) as image:
        if whole:
            image.load()
        return image.size


def picture_pixels_here(path: Path, case: str) -> np.ndarray:
    """Return the pixels of a picture, whatever its format holds them as; uint8 ``(y, x, 3)``.

    Raises:
        ScanError: damaged, of another kind, or too large.
    """
    with _opened(path, case, "picture", ScanError) as image:
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
    with _opened(path, case, "mask", LabelError) as image:
        check_mask_format(image.format, case)
        check_mask_size(image.size, None if size is None else (size[0], size[1]), case)
        if whole:
            image.load()


@contextmanager
def _opened(path: Path, case: str, what: str, kind: type[InputError]) -> Iterator[Image.Image]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=PICTURE_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                allow(voxels=image.width * image.height)
                yield image
    except InputError:
        raise
    except MemoryError:
        sentence = f"{case}: the {what} needs more memory than there is; scale it down"
        raise kind(sentence, code="scan.memory", case=case) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise kind(
            f"{case}: the {what} has more than {MAX_PIXELS} pixels, too many to unpack safely; scale it down",
            code=f"{what}.too_large",
            case=case,
        ) from None
    except Exception:  # Pillow's decoders raise many types for a damaged file, and their messages show paths
        raise kind(
            f"{case}: the {what} is truncated or damaged, or none of {', '.join(PICTURE_FORMATS)}; copy it again or "
            "convert it",
            code=f"{what}.unreadable",
            case=case,
        ) from None
