"""Parsing one DICOM file with pydicom, but for elements that it holds twice: libraries differ in which they take."""

from collections.abc import Sequence
from typing import BinaryIO

import pydicom
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag

_PIXELS = {0x7FE00008, 0x7FE00009, 0x7FE00010}  # of floats, of doubles, of integers


class TwiceError(ValueError):
    """An element of the data set stands in the file twice; PS3.5 7.1 allows it once."""


def parse(handle: BinaryIO, *, keep: Sequence[str] | None = None, pixels: bool = True) -> pydicom.FileDataset:
    """Parse a file as `pydicom.dcmread` does, and leave ``handle`` where parsing stopped.

    Args:
        handle: the opened file.
        keep: keywords of the attributes to keep; all by default.
        pixels: whether to read the pixels too, or stop before them.

    Raises:
        TwiceError: an element is given twice.
        Exception: whatever the bytes provoke in pydicom.
    """
    seen: set[int] = set()

    def stop(tag: BaseTag, _: str | None, __: int) -> bool:
        if not pixels and tag in _PIXELS:
            return True
        if tag in seen:
            raise TwiceError
        seen.add(tag)
        return False

    wanted: list[BaseTag | int] | None = None if keep is None else [Tag(word) for word in keep]
    return read_partial(handle, stop_when=stop, specific_tags=wanted)
