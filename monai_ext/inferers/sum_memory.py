"""Where sums of windows lie while they wait for further windows: in memory, or in a file that takes none."""

import mmap
import os
import tempfile
import weakref
from typing import Protocol

import torch
from torch import Tensor

from monai_ext.base import WriteError
from monai_ext.inferers.mapped_volume import take_room
from monai_ext.inferers.windows import Index


def check_scratch(folder: str | os.PathLike[str]) -> None:
    """Refuse what is no folder.

    Raises:
        WriteError: there is none.
    """
    if not os.path.isdir(folder):
        raise WriteError(
            "scratch_dir: there is no such folder; make it, choose another, or leave it out to keep sums in memory",
            code="write.scratch",
        )


class SumMemory(Protocol):
    """Memory for the sums of bricks."""

    def take(self, index: Index, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """Return memory for a brick, of any content."""

    def rest(self, index: Index) -> None:
        """Hear that the brick is not touched for some time."""

    def give_back(self, index: Index) -> None:
        """Hear that the brick is no longer needed; its memory may serve another one."""


class OwnMemory:
    """Memory of the process or of another device, of its own for each brick.

    Args:
        device: where it is.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def take(self, index: Index, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        if self.device.type != "cpu":
            return torch.empty(shape, dtype=dtype, device=self.device)
        # From the system and back to it: bricks of many sizes that come and go leave holes in a heap.
        return torch.frombuffer(mmap.mmap(-1, shape.numel() * dtype.itemsize), dtype=dtype).view(shape)

    def rest(self, index: Index) -> None:
        """Keep it."""

    def give_back(self, index: Index) -> None:
        """Leave it to whoever holds the brick."""


class FileMemory:
    """Slots of one size in a file without a name, which is gone with the process, whatever ends it.

    What rests is let go of by the process; the system writes it out when it needs the memory, and has it at hand else.

    Args:
        folder: on a disk of this machine, with room for what waits.
        bytes_each: what the largest brick needs.

    Raises:
        WriteError: the folder is none, cannot be written to, or has too little room; then, or while bricks are taken.
    """

    def __init__(self, folder: str | os.PathLike[str], bytes_each: int) -> None:
        self.bytes_each = -(-bytes_each // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        self._free: list[mmap.mmap] = []
        self._taken: dict[Index, mmap.mmap] = {}
        check_scratch(folder)
        try:
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed with this object
        except OSError as error:
            raise _unwritable(0, error) from error
        weakref.finalize(self, self._file.close)

    def take(self, index: Index, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        slot = self._taken[index] = self._free.pop() if self._free else self._another()
        return torch.frombuffer(slot, dtype=dtype, count=shape.numel()).view(shape)

    def rest(self, index: Index) -> None:
        if index in self._taken and hasattr(mmap, "MADV_DONTNEED"):
            self._taken[index].madvise(mmap.MADV_DONTNEED)

    def give_back(self, index: Index) -> None:
        if index in self._taken:
            self.rest(index)
            self._free.append(self._taken.pop(index))

    def _another(self) -> mmap.mmap:
        start = (len(self._free) + len(self._taken)) * self.bytes_each
        try:
            take_room(self._file, start, self.bytes_each)
            return mmap.mmap(self._file.fileno(), self.bytes_each, offset=start)
        except OSError as error:
            raise _unwritable(start, error) from error


def _unwritable(held: int, error: OSError) -> WriteError:
    return WriteError(
        f"scratch_dir: no room for sums beyond {held / 1e9:.1f} GB ({error.strerror}); free space, choose another "
        "folder, or leave it out to keep them in memory",
        code="write.scratch",
    )
