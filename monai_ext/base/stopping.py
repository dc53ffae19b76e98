"""Ending a run between two steps because its machine is wanted: on SIGTERM, and on SIGUSR1 as SLURM sends it."""

import atexit
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

REQUEUE = 75  # EX_TEMPFAIL of sysexits.h: not finished, try again later
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

_asked: list[tuple[str, float]] = []  # the signal's name and when it came, in seconds of the monotonic clock


@contextmanager
def stop_on_signals(patience_s: float = 5.0) -> Iterator[None]:
    """Note a signal instead of dying of it, so that a run can end at a good moment; see :func:`stop_asked`.

    A second signal ends the process at once, with its usual exit code. Those within the patience count as one: a
    scheduler signals every process of a job, and ``torchrun`` then passes its own on to the same ranks. Outside the
    main thread, where Python takes no signals, nothing changes.

    Args:
        patience_s: seconds after the first signal during which others say the same.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if not _asked:
            _asked.append((signal.Signals(number).name, now))
        elif now - _asked[0][1] > patience_s:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    before = {number: signal.signal(number, ask) for number in STOP_SIGNALS}
    end_children_at_exit()
    try:
        yield
    finally:
        _asked.clear()
        for number, handler in before.items():
            # None is a handler that C code installed, and that Python cannot put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def stop_asked() -> str:
    """Return the name of the signal that asks this process to stop, or nothing."""
    return _asked[0][0] if _asked else ""


def leave_stopping_to_the_run(_worker: int = 0) -> None:
    """Let a loader's worker pass over stop signals: its ``worker_init_fn``.

    Schedulers and ``torchrun`` signal every process of a job. Workers that died of it would end the run amid a step.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def end_children_at_exit() -> None:
    """Have this process kill its daemonic children when it ends; call it again when there are new ones.

    multiprocessing asks them by SIGTERM, which workers of :func:`leave_stopping_to_the_run` pass over, and waits for
    ever. torch waits five seconds for each that persists beside pinned memory, unless it is gone before: hence again.
    """
    atexit.unregister(_end_children)
    atexit.register(_end_children)  # what is registered last runs first


def _end_children() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises where a worker is killed
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()
