"""Folders of runs: a process that writes into one keeps others out until it ends, if only by its death."""

import errno
import fcntl
import logging
import os
import time
from pathlib import Path

from monai_ext.base.errors import RunError, WriteError
from monai_ext.base.leftovers import NO_LOCKS

RUN_LOCK = ".run-lock"
_LOOK_S = 0.1
_held: dict[tuple[int, Path], int] = {}  # descriptors, by process and folder: a fork inherits the entry, not the lock


def hold_folder(folder: Path, patience_s: float = 5.0) -> None:
    """Keep other processes from running into a folder until `leave_folders`, or this process's end.

    The system gives the lock back when the process ends, however it does. The process itself may take again what it
    holds. Where the file system knows no locks a warning is logged, and nobody is kept out.

    Args:
        folder: made when absent; a hidden file in it is the lock.
        patience_s: how long to wait for a process that is just ending.

    Raises:
        RunError: another process runs into the folder.
        WriteError: the folder cannot be written.
    """
    place = Path(os.path.realpath(folder))
    if (os.getpid(), place) in _held:
        return
    try:
        place.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(place / RUN_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise WriteError(
            f"{place.name}: the run's folder cannot be written ({error.strerror}); free space or choose a writable "
            "output_dir",
            code="write.failed",
        ) from error
    try:
        _take(descriptor, place.name, time.monotonic() + patience_s)
    except BaseException:
        os.close(descriptor)
        raise
    _held[os.getpid(), place] = descriptor


def leave_folders() -> None:
    """Let other processes run into the folders that this one holds."""
    for key in [key for key in _held if key[0] == os.getpid()]:
        os.close(_held.pop(key))


def _take(descriptor: int, name: str, until: float) -> None:
    while True:
        try:
            # Of the process, not of the open file: workers of a loader, which are forked and may outlive a killed run
            # for seconds, do not inherit it.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno in NO_LOCKS:
                logging.getLogger("monai_ext").warning(
                    "%s: its file system knows no locks; see to it that no second run writes there", name
                )
                return
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
        if time.monotonic() >= until:
            raise RunError(
                f"{name}: another run is writing into this folder; wait for its end, or choose another output_dir",
                code="run.folder_busy",
            )
        time.sleep(_LOOK_S)
