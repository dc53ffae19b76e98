"""Opening pictures and masks, such that whatever is wrong with a file is one sentence with a code."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from monai_ext.base import InputError
from monai_ext.base.pictures import MAX_PIXELS, PICTURE_FORMATS
from monai_ext.volumes.png_chunks import chunks_are_whole
from monai_ext.volumes.reading_limits import allow

_ORIENTATION = 0x0112  # of EXIF


@contextmanager
def opened_picture(
    path: Path, case: str, what: str, kind: type[InputError], *, whole: bool = True, usable: bool = True
) -> Iterator[Image.Image]:
    """Open a picture whose size is known to be sane.

    Args:
        path: a file.
        case: what errors call it.
        what: ``"picture"`` or ``"mask"``.
        kind: of the errors raised.
        whole: decode it, rather than read its header.
        usable: refuse what readers would not agree about: several frames and, when whole, a way to be turned when
            shown.

    Raises:
        InputError: of the given kind.
    """
    try:
        if path.exists() and not path.is_file():  # to open a pipe would wait for its writer
            raise kind(
                f"{case}: the {what} {path.name} is not a file; give a PNG, JPEG, TIFF, BMP or WebP file",
                code=f"{what}.unreadable",
                case=case,
            )
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # Only the header is read before the size is known.
            with Image.open(path, formats=PICTURE_FORMATS) as image:
                _check_header(image, case, what, kind)
                if usable:
                    _check_one(image, case, what, kind)
                if whole:
                    if image.format == "PNG" and not chunks_are_whole(path):
                        raise _unreadable(path, case, what, kind)
                    image.load()
                    if usable:  # to ask a PNG decodes it
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


def _check_one(image: Image.Image, case: str, what: str, kind: type[InputError]) -> None:
    if image.format == "TIFF":  # Pillow turns it as it decodes, and forgets that it did
        _refuse_turned(image.tag_v2.get(_ORIENTATION, 1), case, what, kind)  # type: ignore[attr-defined]
    if (frames := getattr(image, "n_frames", 1)) > 1:
        raise kind(
            f"{case}: the {what} holds {frames} frames; save the one to be used as PNG",
            code=f"{what}.frames",
            case=case,
        )


def _check_upright(image: Image.Image, case: str, what: str, kind: type[InputError]) -> None:
    _refuse_turned(image.getexif().get(_ORIENTATION, 1), case, what, kind)


def _refuse_turned(turned: object, case: str, what: str, kind: type[InputError]) -> None:
    if turned != 1:
        raise kind(
            f"{case}: the {what} is to be turned when shown (orientation {str(turned)[:20]}), which only some "
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
