"""Hearing of a loader's process that has ended, while its next batch is awaited and at no other time.

torch raises the error wherever the program is when the system tells it, in the middle of a training step too, which
could not be repeated exactly.
"""

import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any


class WorkerEndedError(RuntimeError):
    """A process of a loader has ended."""


class WorkerWatch:
    """The processes of one loader.

    Signals reach the main thread only; in another one, and on systems without this signal, torch itself notices after
    a while of waiting.
    """

    def __init__(self) -> None:
        self.processes: list[BaseProcess] = []
        self.waiting = False

    def begin(self, processes: list[BaseProcess]) -> None:
        """Watch these from now on; after torch has taken the signal for itself."""
        self.processes = processes
        _WATCHES.add(self)
        if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
            before = signal.getsignal(signal.SIGCHLD)
            if not getattr(before, "monai_ext", False):
                signal.signal(signal.SIGCHLD, _handler(before if callable(before) else None))

    def end(self) -> None:
        """Watch them no longer."""
        _WATCHES.discard(self)
        self.processes = []

    def ended(self) -> list[int]:
        """Return the places of those that ended otherwise than by themselves and in peace."""
        return [place for place, one in enumerate(self.processes) if one.exitcode not in (None, 0)]

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Let the end of one raise in this block.

        Raises:
            WorkerEndedError: one ended, before or in the block.
        """
        self.waiting = True
        try:
            if self.ended():
                raise WorkerEndedError
            yield
        finally:
            self.waiting = False


_WATCHES: "weakref.WeakSet[WorkerWatch]" = weakref.WeakSet()


def _handler(before: Callable[[int, FrameType | None], Any] | None) -> Callable[[int, FrameType | None], None]:
    def hear(number: int, frame: FrameType | None) -> None:
        for watch in list(_WATCHES):
            if watch.ended():
                if watch.waiting:
                    raise WorkerEndedError
                return  # raised when it is waited for
        if before is not None:
            before(number, frame)

    hear.monai_ext = True  # type: ignore[attr-defined]
    return hear
