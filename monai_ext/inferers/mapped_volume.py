"""Large volumes that lie in a file while they are filled, so that they take no memory of the process."""

import mmap
import os
from collections.abc import Sequence
from typing import IO, Literal

import numpy as np
import numpy.typing as npt

_PIECE = 1 << 24


def take_room(file: IO[bytes], start: int, size: int) -> None:
    """Take bytes of zeros on the disk at once: one that is full later ends a process that writes to mapped memory.

    Args:
        file: open for writing, and as long as ``start``.
        start: where they begin.
        size: how many.

    Raises:
        OSError: the disk is full.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), start, size)
        return
    file.seek(start)
    for at in range(0, size, _PIECE):
        file.write(bytes(min(_PIECE, size - at)))
    file.flush()


class MappedVolume:
    """A volume of zeros in an open file, from where the file stands.

    Args:
        file: open for reading and writing; what it holds already, such as a header, stays.
        shape: of the array.
        dtype: of the array.
        order: ``"F"`` for the order of NIfTI, ``"C"`` for that of ``.npy``.

    Raises:
        OSError: the disk is full.
    """

    def __init__(
        self, file: IO[bytes], shape: Sequence[int], dtype: npt.DTypeLike, order: Literal["F", "C"] = "F"
    ) -> None:
        offset, kind = file.tell(), np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        file.flush()
        take_room(file, offset, size)
        self._map = mmap.mmap(file.fileno(), offset + size)
        self.array = np.ndarray(tuple(shape), kind, self._map, offset, order=order)

    def settle(self) -> None:
        """Let go of the pages in memory; they are in the system's cache, or read again."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.flush()
            self._map.madvise(mmap.MADV_DONTNEED)
