"""Jobs on a few processes, with a bar, in the order in which they were given."""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from rich.progress import track

from monai_ext.base import ScanError
from monai_ext.volumes.prepare_pool import run_jobs

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")


def in_order(work: Callable[[JobT], ResultT], jobs: Sequence[JobT], title: str, workers: int = 2) -> list[ResultT]:
    """Do all jobs, and return their results in the order of the jobs.

    Args:
        work: what to do with a job; picklable.
        jobs: the jobs, picklable.
        title: of the bar.
        workers: processes.

    Raises:
        ScanError: a process died.
    """

    def died(job: Any) -> NoReturn:
        raise ScanError(
            f"{title}: a process died, as happens without memory; close other programs and start again",
            code="demo.died",
        )

    done = run_jobs(_Numbered(work), list(enumerate(jobs)), workers, died)
    found: dict[int, ResultT] = dict(track(done, title, total=len(jobs), transient=True))
    return [found[number] for number in range(len(jobs))]


class _Numbered:
    """Work that says which job a result belongs to."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self.work = work

    def __call__(self, job: tuple[int, Any]) -> tuple[int, Any]:
        return job[0], self.work(job[1])
