"""The reading processes of this process: started when the first scan is read, kept for the next ones."""

import atexit
import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from monai_ext.volumes.reading_limits import ReadLimits
from monai_ext.volumes.reading_process import ReadingProcess

MOST = min(4, os.cpu_count() or 1)  # for threads that read at once; each takes some 150 MB


class ReadingPool:
    """Reading processes, each lent to one thread at a time; one that died is replaced."""

    def __init__(self, most: int = MOST) -> None:
        self._turns = threading.BoundedSemaphore(most)
        self._lock = threading.Lock()
        self._free: list[ReadingProcess] = []
        self._all: set[ReadingProcess] = set()

    @contextmanager
    def lent(self) -> Iterator[ReadingProcess]:
        """Lend a process that lives; one that does not live afterwards is let go."""
        with self._turns:
            process = self._taken()
            try:
                yield process
            finally:
                with self._lock:
                    if process.lives():
                        self._free.append(process)
                    else:
                        process.forget()
                        self._all.discard(process)

    def _taken(self) -> ReadingProcess:
        with self._lock:
            while self._free:
                process = self._free.pop()
                if process.lives():
                    return process
                process.forget()
                self._all.discard(process)
        process = self._start()
        with self._lock:
            self._all.add(process)
        return process

    def _start(self) -> ReadingProcess:
        return ReadingProcess()

    def end(self) -> None:
        """End all processes."""
        with self._lock:
            for process in self._all:
                process.end()
            self._all.clear()
            self._free.clear()

    def forget(self) -> None:
        """Leave all processes to whoever started them."""
        for process in self._all:
            process.forget()


_pool = ReadingPool()


def ask(
    task: str, case: str, told: Mapping[str, Any], *, temporary: str | None = None, scratch: bool = False
) -> tuple[Any, np.ndarray | None]:
    """Have a reading process do a task of ``reading_tasks``.

    Args:
        task: its name.
        case: the id for messages.
        told: what the task is called with; JSON can hold it.
        temporary: the folder for its temporary files; the caller removes it.
        scratch: make such a folder, and remove it when done.

    Returns:
        What the task answers, unchecked, and the voxels, if there are any.

    Raises:
        ScanError: reading crashed, hung, or needs more memory than its limit; or the task refuses.
        InputError: the task refuses.
        SettingError: a limit in the environment is no number.
    """
    limits = ReadLimits.of_environment()
    own = tempfile.mkdtemp(prefix="monai_ext-") if scratch else None
    try:
        with _pool.lent() as process:
            return process.ask(task, case, told, limits, own or temporary)
    finally:
        if own is not None:
            shutil.rmtree(own, ignore_errors=True)


def end_readers() -> None:
    """End the reading processes of this process; the next scan starts one anew."""
    _pool.end()


def _start_anew() -> None:
    # A forked worker must not talk over its parent's line, nor keep the parent's readers alive.
    global _pool
    old, _pool = _pool, ReadingPool()
    with contextlib.suppress(OSError):
        old.forget()


atexit.register(end_readers)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
