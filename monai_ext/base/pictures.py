"""What a picture and its mask may be, wherever they are looked at."""

from pathlib import Path

from monai_ext.base.errors import LabelError, WriteError

# What data sets of pictures use. Fewer decoders are fewer ways for a prepared file to do harm.
PICTURE_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
MAX_PIXELS = 80_000_000  # below where Pillow warns: a small file may unpack to gigabytes


def check_mask_format(image_format: str | None, case: str) -> None:
    """Refuse a mask that is stored with loss, whatever its name says.

    Raises:
        LabelError: the format is JPEG.
    """
    if image_format == "JPEG":
        raise LabelError(
            f"{case}: the mask is a JPEG, which blurs its values; make it again as PNG with 0 and 255",
            code="label.jpeg",
            case=case,
        )


def check_mask_size(mask: tuple[int, int], picture: tuple[int, int] | None, case: str) -> None:
    """Refuse a mask of another size than its picture; sizes are width and height, ``None`` where it is not known.

    Raises:
        LabelError: they differ.
    """
    if picture is not None and mask != picture:
        sizes = [f"{width}x{height}" for width, height in (mask, picture)]
        raise LabelError(
            f"{case}: the mask has {sizes[0]} pixels and the picture {sizes[1]}; give a mask of the picture's size",
            code="label.shape",
            case=case,
        )


def check_picture_whole(path: Path) -> None:
    """Read back a picture that was drawn, all of it; for ``replacing``.

    Raises:
        WriteError: it is none, or ends early.
    """
    from PIL import Image  # not above: reading scans loads this room, and needs no pictures

    try:
        with Image.open(path) as picture:
            picture.load()
    except (OSError, SyntaxError) as error:
        raise WriteError(
            f"{path.name.split('-', 2)[-1]}: the picture could not be read back; check the disk and run again",
            code="write.verify",
        ) from error
