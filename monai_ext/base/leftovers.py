"""Temporary files of killed writers: told from those of living ones by a lock, and removed."""

import errno
import fcntl
import os
import re
import stat
import time
from contextlib import suppress
from pathlib import Path

PREFIX = ".writing-"
# What file systems without locks answer.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)
_NAME = re.compile(r"\.writing-[a-z0-9_]{8}-.+", re.DOTALL)  # as tempfile fills in the random part
_ABANDONED_S = 24 * 3600  # no file takes a day to write
_cleared: set[Path] = set()


def hold(descriptor: int) -> None:
    """Lock a temporary file against `remove_leftovers` until it is closed, if only by the death of its process."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of writers that were killed; those of living writers are locked and stay.

    Where the file system knows no locks, nobody can tell; files then stay for a day. What cannot be listed, opened or
    removed stays too.
    """
    with suppress(OSError):
        for name in os.listdir(folder):
            if _NAME.fullmatch(name):
                with suppress(OSError):
                    _remove_abandoned(folder / name)


def remove_leftovers_once(folder: Path) -> None:
    """Do as `remove_leftovers`, but once for each folder in a process: listing a large one takes its time."""
    place = folder.absolute()
    if place not in _cleared:
        _cleared.add(place)
        remove_leftovers(folder)


def _remove_abandoned(path: Path) -> None:
    # For writing, without which some network file systems give no such lock; nothing is written.
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode) and _is_free(descriptor, found):
            path.unlink()  # still locked, so that a writer that waits for it sees that it is gone
    finally:
        os.close(descriptor)


def _is_free(descriptor: int, found: os.stat_result) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in NO_LOCKS and time.time() - found.st_mtime > _ABANDONED_S
    return True
