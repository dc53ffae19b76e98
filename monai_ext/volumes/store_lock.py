"""Locks of a store's volumes: they end with their writer, whichever machine that shares the disk it runs on."""

import errno
import fcntl
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from monai_ext.base import WriteError

LOCK = ".lock"
# What file systems without locks answer; checksums then still tell when two writers mixed their files.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)


@contextmanager
def locked(folder: Path, volume_id: str, *, wait: bool = True) -> Iterator[bool | None]:
    """Lock one volume against other writers, threads of this process among them, until the block ends.

    Yields:
        ``True`` when it is locked, ``False`` when another writer has it and this one would not wait, ``None``
        when the file system knows no locks.

    Raises:
        WriteError: the folder cannot be written.
    """
    # One byte of one file for each id: 10,000 volumes need no lock files.
    try:
        handle = open(folder / LOCK, "ab")  # noqa: SIM115 - closed by the with below
    except OSError as error:
        raise WriteError(
            f"{folder.name}: the store cannot be written ({error.strerror}); choose a writable folder",
            code="write.failed",
            case=volume_id,
        ) from error
    with handle:
        taken: bool | None = True
        try:
            _take(handle, zlib.crc32(volume_id.encode()), wait)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN, *_NO_LOCKS):
                raise
            taken = None if error.errno in _NO_LOCKS else False
        yield taken  # closing the file gives the lock back


def _take(handle: IO[bytes], place: int, wait: bool) -> None:
    if not hasattr(fcntl, "F_OFD_SETLKW"):
        fcntl.lockf(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, place)
        return
    # Linux has locks of the open file. Those of lockf belong to the process: threads would share them, and lose
    # them all when one closes its file. The two kinds respect each other. Struct flock of fcntl(2).
    request = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0)
    fcntl.fcntl(handle, fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK, request)
