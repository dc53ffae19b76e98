"""Jobs on the workers of ``dask.distributed``: a scheduler that runs already, or one on this machine."""

import asyncio
import logging
import os
import pkgutil
import re
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from monai_ext._version import __version__
from monai_ext.base import SettingError, StoreError, hold
from monai_ext.volumes.prepare_pool import interrupts_held
from monai_ext.volumes.store_lock import locked

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")

CONNECT_S = 5.0  # with the imports, one that is not there is told of within ten seconds
_LOOK_S = 5.0  # how often workers are counted while no job finishes; one that is restarted is away for two
_ADDRESS = re.compile(r"(tcp|tls)://[^\s/]+:[0-9]{1,5}")


def check_scheduler(scheduler: str) -> None:
    """Refuse a scheduler that cannot be used, before scans are looked for; for the arguments see :func:`cluster`.

    Raises:
        SettingError: dask.distributed is not installed, or no scheduler answers at the address.
    """
    if scheduler != "local" and not _ADDRESS.fullmatch(scheduler):
        raise SettingError(
            f"scheduler: {scheduler!r} is no address; give tcp://HOST:PORT, or local to start one here",
            code="setting.scheduler",
        )
    try:
        import distributed  # noqa: F401 - only looked for
    except ImportError as error:
        raise SettingError(
            "scheduler: dask.distributed is missing; pip install 'monai-ext[cluster]', or leave the scheduler out",
            code="setting.extra",
        ) from error
    if scheduler == "local":
        return
    try:
        # Asked whether it is a scheduler: a client waits half a minute for a port that is something else.
        answer = asyncio.run(asyncio.wait_for(_identity(scheduler), CONNECT_S))
        if answer["type"] != "Scheduler":
            raise ValueError(f"a {answer['type']} answers")
    except Exception as error:  # whatever else listens there may answer anything, and the libraries raise anything
        raise SettingError(
            f"scheduler: no dask scheduler answers at {scheduler}; start one with 'dask scheduler', check the address, "
            "or leave it out to use this machine's cores",
            code="prepare.no_scheduler",
        ) from error


async def _identity(address: str) -> Any:
    from distributed import rpc
    from distributed.security import Security

    arguments = Security().get_connection_args("client")  # certificates of a tls:// address, by dask's settings
    async with rpc(address, timeout=CONNECT_S, connection_args=arguments) as scheduler:
        return await scheduler.identity()


@contextmanager
def cluster(scheduler: str, workers: int | None, store: Path) -> Iterator[Any]:
    """Connect to a scheduler, and see that its workers can do the work.

    Args:
        scheduler: its address, such as ``"tcp://10.0.0.5:8786"``, or ``"local"`` to start one on this machine,
            which ends with the block.
        workers: processes of a local one.
        store: the store's folder, which every worker must see under the same path.

    Yields:
        A ``distributed.Client``.

    Raises:
        SettingError: dask.distributed is not installed, nothing answers at the address, or a worker has no
            monai-ext or another version of it.
        StoreError: a worker does not see the store.
    """
    check_scheduler(scheduler)
    from distributed import Client

    with (
        _quiet_distributed(),
        _local(workers) if scheduler == "local" else nullcontext(scheduler) as address,
        Client(address, timeout=CONNECT_S, set_as_default=False, name="monai-ext-prepare") as client,
    ):
        _check_workers(client, store)
        yield client


@contextmanager
def _quiet_distributed() -> Iterator[None]:
    """Keep dask's own reports of lost schedulers and workers, with their tracebacks, from the terminal."""
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in ("distributed", "tornado")]
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def _local(workers: int | None) -> Iterator[str]:
    import dask
    from distributed import LocalCluster

    # A job that kills its worker is tried again alone, once all others are done: not at once as well.
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}), interrupts_held():
        here = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",  # seen from this machine only; any free port
            silence_logs=logging.CRITICAL,  # a worker's end is told in a sentence about its scan
        )
    with here:
        yield here.scheduler_address


def _check_workers(client: Any, store: Path) -> None:
    # Functions of Python's own, for whether the workers have ours is the question.
    versions = client.run(pkgutil.resolve_name, "monai_ext._version:__version__", on_error="return")
    for worker, version in versions.items():
        if version != __version__:
            has = f"has monai-ext {version}" if isinstance(version, str) else "has no monai-ext"
            raise SettingError(
                f"scheduler: the worker {worker} {has}; install monai-ext {__version__} on every worker, then restart "
                "them",
                code="prepare.worker_version",
            )
    # The mark is named as what writers leave, so that the next run removes it if this one is killed.
    with (
        locked(store, "workers"),
        tempfile.NamedTemporaryFile(dir=store, prefix=".writing-", suffix="-workers") as mark,
    ):
        hold(mark.fileno())
        for worker, sees in client.run(os.path.exists, mark.name, on_error="return").items():
            if sees is not True:
                raise StoreError(
                    f"{store.name}: the worker {worker} does not see the store's folder; put scans and store on a disk "
                    "that all workers have under the same path",
                    code="prepare.worker_store",
                )


def run_on_cluster(
    client: Any,
    work: Callable[[JobT], ResultT],
    jobs: Iterable[JobT],
    failed: Callable[[JobT, BaseException], ResultT],
    tell: Callable[[str], None],
) -> Iterator[ResultT]:
    """Yield the result of every job, in the order in which they finish.

    The scheduler holds two jobs for each thread of its workers, however many there are. A job whose workers died
    is run again when all others are done, alone: it may have died of its neighbours.

    Args:
        client: a ``distributed.Client``.
        work: what to do with a job; importable on the workers, and it does not raise.
        jobs: the jobs, picklable; few are asked for ahead of their turn.
        failed: makes the result of a job that killed its worker, or that a worker could not run, of the error.
        tell: shows a sentence.

    Raises:
        SettingError: the connection to the scheduler was lost.
    """
    from distributed import KilledWorker

    suspects: list[JobT] = []
    for job, future in _finished(client, work, jobs, tell):
        error = future.exception()
        if isinstance(error, KilledWorker):
            suspects.append(job)
        else:
            yield _gathered(future) if error is None else failed(job, error)
    for suspect in suspects:
        for job, future in _finished(client, work, [suspect], tell):
            error = future.exception()
            yield _gathered(future) if error is None else failed(job, error)


def _gathered(future: Any) -> Any:
    # Jobs do not raise, and this one has ended well: what fails is the way of its result through the scheduler.
    try:
        return future.result()
    except (OSError, CancelledError) as error:
        raise _lost() from error


def _finished(
    client: Any, work: Callable[[JobT], Any], jobs: Iterable[JobT], tell: Callable[[str], None]
) -> Iterator[tuple[JobT, Any]]:
    waiting, running, done = iter(jobs), dict[str, tuple[JobT, Any]](), SimpleQueue[Any]()
    told = False
    try:
        while True:
            threads = _threads(client)
            for job in islice(waiting, max(2 * threads - len(running), not running)):
                # Keys are shown on the dashboard and in logs: they name no scan.
                future = client.submit(work, job, pure=False, key=f"prepare-{uuid.uuid4().hex}")
                running[future.key] = job, future
                future.add_done_callback(done.put)
            if not running:
                return
            try:
                job, future = running.pop(done.get(timeout=_LOOK_S).key)
            except Empty:
                if not threads and not told:
                    tell("the scheduler has no workers; waiting for them (start some with: dask worker ADDRESS)")
                    told = True
                continue
            if future.cancelled():
                raise _lost()
            yield job, future
    finally:
        if client.status == "running":
            client.cancel([future for _, future in running.values()])


def _threads(client: Any) -> int:
    if client.status != "running":
        raise _lost()
    try:
        return sum(client.nthreads().values())
    except OSError as error:
        raise _lost() from error


def _lost() -> SettingError:
    return SettingError(
        "scheduler: the connection was lost, while what is in the store is whole; start the scheduler again and give "
        "the same command to go on",
        code="prepare.scheduler_lost",
    )
