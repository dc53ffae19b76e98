"""How many processes, and the bar that shows how far they are."""

import os
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from monai_ext.base import SettingError

ItemT = TypeVar("ItemT")


def processes(jobs: int | None) -> int:
    """Return the number of processes: as many as cores if it is not given.

    Raises:
        SettingError: a negative number.
    """
    if jobs is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if jobs < 0:
        raise SettingError(
            f"jobs: {jobs} is negative; give a number of processes, or 0 for none", code="setting.workers"
        )
    return jobs


def shown(items: Iterable[ItemT], total: int, what: str, progress: bool) -> Iterator[ItemT]:
    """Pass items on, with a progress bar on stderr."""
    bar = Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not progress or not total,
    )
    with bar:
        task = bar.add_task("", total=total)
        for item in items:
            bar.advance(task)
            yield item
