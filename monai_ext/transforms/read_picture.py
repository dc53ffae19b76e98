"""Pictures and their masks as plain arrays: whatever Pillow can hold becomes 8-bit RGB, a mask 0 and 1."""

import os
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform
from PIL import Image

from monai_ext.base import InputError, LabelError, ScanError
from monai_ext.base.pictures import MAX_PIXELS, PICTURE_FORMATS, check_mask_format, check_mask_size
from monai_ext.transforms.png_chunks import chunks_are_whole

MASK_KINDS = 16  # different values of a mask: kinds of defects are few, lossy compression makes many
_ORIENTATION = 0x0112  # of EXIF
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")


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
    path = Path(path)
    case = case or path.stem
    with _opened(path, case, "picture", ScanError) as image:
        return np.asarray(_eight_bits(image, case).convert("RGB"))


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
    path = Path(path)
    case = case or path.stem
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


class ReadPictured(MapTransform):
    """Read the picture of an entry, and the mask where it has one.

    ``image`` becomes uint8 ``(h, w, 3)``, ``mask`` uint8 ``(h, w)`` of 0 and 1; an empty path is a normal picture,
    whose mask is all 0.

    Args:
        keys: entry with the path of the picture.
        mask_key: entry with the path of the mask, if any.
        label_key: entry with the label, 0 or 1; where present, a normal picture must have an empty mask.
        case_key: entry with the name that errors use.

    Raises:
        ScanError: see `read_picture`.
        LabelError: see `read_mask`; or a picture labelled normal has a mask that is not empty.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        mask_key: str = "mask",
        label_key: str = "label",
        case_key: str = "case",
    ) -> None:
        super().__init__(keys)
        self.mask_key, self.label_key, self.case_key = mask_key, label_key, case_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        (key,) = self.key_iterator(out)
        case = out.get(self.case_key)
        out[key] = picture = read_picture(out[key], case)
        height, width = picture.shape[:2]
        path = out.get(self.mask_key)
        mask = read_mask(path, case, (height, width)) if path else np.zeros((height, width), np.uint8)
        check_label(out.get(self.label_key), int(mask.sum()), str(case))
        out[self.mask_key] = mask
        return out


def check_label(label: Any, abnormal_pixels: int, case: str) -> None:
    """Refuse a normal picture or volume whose mask is not empty.

    Args:
        label: 0 or 1, ``None`` where there is none.
        abnormal_pixels: of its mask.
        case: what errors call it.

    Raises:
        LabelError: label and mask contradict each other.
    """
    if label is not None and not label and abnormal_pixels:
        raise LabelError(
            f"{case}: labelled normal, but {abnormal_pixels} pixels of its mask are abnormal; mend label or mask",
            code="label.contradiction",
            case=case,
        )


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
