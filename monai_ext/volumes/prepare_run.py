"""Running many jobs: in a pool of processes or on a cluster, with a bar, beside other runs on the same store."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from monai_ext.volumes.prepare_cluster import cluster, run_on_cluster
from monai_ext.volumes.prepare_job import Job, Outcome
from monai_ext.volumes.prepare_pool import run_jobs
from monai_ext.volumes.prepare_scan import prepare_scan

Runner = Callable[[Iterable[Job]], Iterator[Outcome]]


def run_all(
    jobs: Sequence[Job], store: Path, workers: int | None, scheduler: str | None, progress: bool
) -> Iterator[Outcome]:
    """Yield what became of each scan, in the order in which they finish.

    Scans that another run is preparing are put off to the end, so that two runs share the work; then their end
    is waited for.

    Args:
        jobs: the scans.
        store: the store's folder.
        workers: processes of this machine; all cores where a local scheduler is to choose.
        scheduler: address of a dask scheduler, ``"local"``, or ``None`` for a pool of processes.
        progress: show a progress bar on stderr.

    Raises:
        SettingError: the scheduler is not there, is lost, or its workers cannot do the work.
        StoreError: a worker of the scheduler does not see the store.
    """
    bar = Progress(
        TextColumn("preparing"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]} failed"),
        console=Console(stderr=True),
        disable=not progress,
    )
    with _runner(store, workers, scheduler, bar) as run, bar:
        task, failed = bar.add_task("", total=len(jobs), failed=0), 0
        for outcome in _twice(run, jobs):
            failed += outcome.state == "failed"
            bar.update(task, advance=1, failed=failed)
            yield outcome


@contextmanager
def _runner(store: Path, workers: int | None, scheduler: str | None, bar: Progress) -> Iterator[Runner]:
    if scheduler is None:
        yield lambda jobs: run_jobs(prepare_scan, jobs, workers or 0, _died)
        return

    def tell(sentence: str) -> None:
        bar.console.print(sentence, markup=False, soft_wrap=True)

    with cluster(scheduler, workers, store) as client:
        if not bar.disable:
            tell(f"dashboard: {client.dashboard_link}")
        yield lambda jobs: run_on_cluster(client, prepare_scan, jobs, _failed, tell)


def _twice(run: Runner, jobs: Sequence[Job]) -> Iterator[Outcome]:
    busy: set[str] = set()
    for outcome in run(replace(job, wait=False) for job in jobs):
        if outcome.state == "busy":
            busy.add(outcome.id)
        else:
            yield outcome
    if busy:
        yield from run(job for job in jobs if job.id in busy)


def _died(job: Job) -> Outcome:
    reason = (
        f"{job.source.case}: its worker process died, most likely for lack of memory; "
        "prepare it with fewer workers, or leave it out"
    )
    return Outcome(job.id, "failed", reason, "prepare.worker_died")


def _failed(job: Job, error: BaseException) -> Outcome:
    if type(error).__name__ == "KilledWorker":
        return _died(job)
    reason = (
        f"{job.source.case}: a worker could not run it ({type(error).__name__}); install the same monai-ext with the "
        "same libraries on every worker, then run again"
    )
    return Outcome(job.id, "failed", reason, "prepare.worker")
