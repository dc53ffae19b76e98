"""What the reading process can be asked for of pictures."""

from collections.abc import Sequence
from pathlib import Path

from monai_ext.volumes.picture_checks import check_mask_here, check_picture_here, picture_pixels_here
from monai_ext.volumes.picture_here import mask_here, picture_here
from monai_ext.volumes.reading_worker import Answer, Task


def _read_picture(path: str, case: str) -> Answer:
    return None, picture_here(Path(path), case)


def _read_mask(path: str, case: str, shape: Sequence[int] | None) -> Answer:
    return None, mask_here(Path(path), case, shape)


def _check_picture(path: str, case: str, whole: bool) -> Answer:
    return check_picture_here(Path(path), case, whole=whole), None


def _check_mask(path: str, case: str, size: Sequence[int] | None, whole: bool) -> Answer:
    check_mask_here(Path(path), case, size, whole=whole)
    return None, None


def _picture_pixels(path: str, case: str) -> Answer:
    return None, picture_pixels_here(Path(path), case)


TASKS: dict[str, Task] = {
    "read_picture": _read_picture,
    "read_mask": _read_mask,
    "check_picture": _check_picture,
    "check_mask": _check_mask,
    "picture_pixels": _picture_pixels,
}
