"""Reading pictures and masks in this process: whatever Pillow can hold becomes 8-bit RGB, a mask 0 and 1."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from monai_ext.base import InputError, LabelError, ScanError
from monai_ext.base.pictures import MAX_PIXELS, PICTURE_FORMATS, check_mask_format, check_mask_size
from monai_ext.volumes.png_chunks import chunks_are_whole
from monai_ext.volumes.reading_limits import allow

MASK_KINDS = 16  # different values of a mask: kinds of defects are few, lossy compression makes many
_ORIENTATION = 0x0112  # of EXIF
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")


def picture_here(path: Path, case: str) -> np.ndarray:
    """Read a picture as uint8 RGB ``(h, w, 3)``."""
    with _opened(path, case, "picture", ScanError) as image:
        return np.asarray(_eight_bits(image, case).convert("RGB"))


def mask_here(path: Path, case: str, shape: Sequence[int] | None) -> np.ndarray:
    """Read a mask as uint8 ``(h, w)`` of 0 and 1."""
    with _opened(path, case, "mask", LabelError) as image:
        check_mask_format(image.format, case)
        values = _mask_values(image, case)
    if shape is not None:
        check_mask_size((values.shape[1], values.shape[0]), (shape[1], shape[0]), case)
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


@contextmanager
def _opened(path: Path, case: str, what: str, kind: type[InputError]) -> Iterator[Image.Image]:
    """Open and decode an image whose size is known to be sane; whatever is wrong with the file is one sentence."""
    try:
        if path.exists() and not path.is_file():  # to open a pipe would wait for its writer
            raise kind(
                f"{case}: the {what} {path.name} is not a file; give a PNG, JPEG, TIFF, BMP or WebP file",
                code=f"{what}.unreadable",
                case=case,
            )
        # Only the header is read before the size is known.
        with Image.open(path, formats=PICTURE_FORMATS) as image:
            _check_header(image, case, what, kind)
            if image.format == "PNG" and not chunks_are_whole(path):
                raise _unreadable(path, case, what, kind)
            image.load()
            _check_upright(image, case, what, kind)
            yield image
    except InputError:
        raise
    except MemoryError:
        sentence = f"{case}: the {what} needs more memory than there is; scale it down"
        raise kind(sentence, code="scan.memory", case=case) from None
    except FileNotFoundError as error:
        raise kind(
            f"{case}: there is no {what} {path.name}; check the list and its root folder",
            code=f"{what}.missing",
            case=case,
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(case, what, kind) from error
    except Exception as error:  # Pillow's decoders raise many types for a damaged file
        raise _unreadable(path, case, what, kind) from error


def _unreadable(path: Path, case: str, what: str, kind: type[InputError]) -> InputError:
    return kind(
        f"{case}: the {what} {path.name} is truncated or damaged, or none of {', '.join(PICTURE_FORMATS)}; "
        "copy it again or convert it",
        code=f"{what}.unreadable",
        case=case,
    )


def _check_header(image: Image.Image, case: str, what: str, kind: type[InputError]) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(case, what, kind, f", {image.width}x{image.height}")
    allow(voxels=image.width * image.height)
    if image.mode == "P" and image.palette is None:
        raise kind(
            f"{case}: the {what} has a palette without colours; save it again as PNG",
            code=f"{what}.unreadable",
            case=case,
        )
    if (frames := getattr(image, "n_frames", 1)) > 1:
        raise kind(
            f"{case}: the {what} holds {frames} frames; save the one to be used as PNG",
            code=f"{what}.frames",
            case=case,
        )


def _check_upright(image: Image.Image, case: str, what: str, kind: type[InputError]) -> None:
    turned = image.getexif().get(_ORIENTATION, 1)
    if turned != 1:
        raise kind(
            f"{case}: the {what} is to be turned when shown (EXIF orientation {str(turned)[:20]}), which only some "
            "programs heed, so that picture and mask may not match; save it upright",
            code=f"{what}.orientation",
            case=case,
        )


def _too_large(case: str, what: str, kind: type[InputError], size: str = "") -> InputError:
    return kind(
        f"{case}: the {what} has more than {MAX_PIXELS} pixels{size}, too many to unpack safely; scale it down",
        code=f"{what}.too_large",
        case=case,
    )


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
