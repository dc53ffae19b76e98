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

_SPARE = 1 << 25  # bytes that wait for another use
# Shared with nobody, which costs the system less; it is so by itself where there are no such flags.
_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_ANONYMOUS") else {}


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
    """Memory of the process or of another device.

    On a processor it comes from the system and goes back to it, for bricks of many sizes that come and go leave holes
    in a heap; a few that are given back serve the next of their size, for new memory costs as much as a sum.

    Args:
        device: where it is.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._free: list[Tensor] = []
        self._taken: dict[Index, Tensor] = {}

    def take(self, index: Index, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        if self.device.type != "cpu":
            return torch.empty(shape, dtype=dtype, device=self.device)
        count = shape.numel()
        at = next((at for at, each in enumerate(self._free) if each.numel() == count and each.dtype == dtype), None)
        if at is None:
            taken = torch.frombuffer(mmap.mmap(-1, count * dtype.itemsize, **_PRIVATE), dtype=dtype)
        else:
            taken = self._free.pop(at)
        self._taken[index] = taken
        return taken.view(shape)

    def rest(self, index: Index) -> None:
        """Keep it."""

    def give_back(self, index: Index) -> None:
        if index in self._taken:
            self._free.append(self._taken.pop(index))
            while sum(each.nbytes for each in self._free) > _SPARE:
                del self._free[0]


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
