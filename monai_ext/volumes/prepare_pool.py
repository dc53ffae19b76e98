"""A pool of processes that outlives its workers: a scan that kills one costs that scan alone."""

import multiprocessing
import multiprocessing.forkserver
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import chain, islice
from multiprocessing import connection
from typing import TypeVar

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")

_PRELOAD = ["monai_ext.volumes.prepare_scan"]
_LOOK_S = 1.0  # without a result, before the workers are looked at


def run_jobs(
    work: Callable[[JobT], ResultT],
    jobs: Iterable[JobT],
    workers: int,
    died: Callable[[JobT], ResultT],
) -> Iterator[ResultT]:
    """Yield the result of every job, in the order in which they finish.

    When a worker dies, the jobs then under way are run again, each in a process of its own; only a job that
    dies there too is given up.

    Args:
        work: what to do with a job; picklable, and it does not raise.
        jobs: the jobs, picklable; few are asked for ahead of their turn.
        workers: processes, at least 1; 0 works in this process.
        died: makes the result of a job whose process died.
    """
    if workers == 0:
        yield from map(work, jobs)
        return
    waiting, suspects = iter(jobs), list[JobT]()
    for first in waiting:  # a pool that broke is followed by another one, until none is waiting
        yield from _run_pool(work, chain([first], waiting), workers, suspects)
        for job in suspects:
            alone: list[JobT] = []
            yield from _run_pool(work, iter([job]), 1, alone)
            if alone:
                yield died(job)
        suspects.clear()


def _run_pool(
    work: Callable[[JobT], ResultT], waiting: Iterator[JobT], workers: int, suspects: list[JobT]
) -> Iterator[ResultT]:
    """Yield results until none is waiting, or until a worker dies; jobs then under way go to ``suspects``."""
    pool = ProcessPoolExecutor(workers, mp_context=_context(), initializer=_let_parent_stop)
    running: dict[Future[ResultT], JobT] = {}
    broken = False
    try:
        while not broken:
            # Few at a time: ten thousand jobs cost no memory, and few are suspected when a worker dies.
            for job in islice(waiting, 2 * workers - len(running)):
                try:
                    running[pool.submit(work, job)] = job
                except BrokenProcessPool:
                    broken = True
                    suspects.append(job)
                    break
            if not running:
                break
            done = wait(running, timeout=_LOOK_S, return_when=FIRST_COMPLETED).done
            broken = broken or (not done and _lost_a_worker(pool))
            for future in done:
                job = running.pop(future)
                if isinstance(future.exception(), BrokenProcessPool):
                    broken = True
                    suspects.append(job)
                else:
                    yield future.result()
    finally:
        if broken:
            # A pool that breaks ends the workers that it knows, and then waits for all: one that was just being started
            # is never told, and would be waited for without end. By now all have started, for this thread starts them.
            for process in _workers(pool):
                process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)
    # A job that was under way when the pool broke may have ended all the same.
    for future, job in running.items():
        if not future.done() or future.cancelled() or isinstance(future.exception(), BrokenProcessPool):
            suspects.append(job)
        else:
            yield future.result()


def _lost_a_worker(pool: ProcessPoolExecutor) -> bool:
    # A pool watches the workers that it knew when it last woke. One that was started since, and died before it was
    # entered among them, would be waited for without end.
    return bool(connection.wait([process.sentinel for process in _workers(pool)], 0))


def _workers(pool: ProcessPoolExecutor) -> list[multiprocessing.Process]:
    return list((getattr(pool, "_processes", None) or {}).values())


def _let_parent_stop() -> None:
    # Ctrl-C reaches every process of a terminal: the parent then hands out no more, and workers finish theirs.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _context() -> multiprocessing.context.BaseContext:
    # Not fork: torch's and rich's threads would be copied in the middle of whatever they do.
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)  # import once, not once a worker
    with interrupts_held():
        multiprocessing.forkserver.ensure_running()
    return context


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Let the processes that are started meanwhile ignore Ctrl-C: it would end their imports in tracebacks."""
    if threading.current_thread() is not threading.main_thread():  # no other thread may set handlers
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
