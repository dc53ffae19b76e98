"""A loader that outlives bad scans and processes that end or hang, and hands out the same batches all the same."""

import itertools
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import wait
from typing import Any, Protocol

from monai.data import DataLoader
from torch.utils.data import Dataset, Sampler

from monai_ext.base import RunError, SettingError, end_children_at_exit, is_number, leave_stopping_to_the_run
from monai_ext.engines.draws import Draw
from monai_ext.engines.ended_workers import WorkerWatch
from monai_ext.engines.watched_samples import DrawNotes, Troubles, UsableBatch, WatchedSamples, name_of
from monai_ext.handlers import Finding, Quarantine
from monai_ext.transforms import collate_placed

_ATTEMPTS = 10_000
_STRIKES = 2  # what ended a process once may have met it by chance
_END = object()


class DrawingPlan(Protocol):
    """What a plan offers: the draws of an epoch from a place on, and other scans in the place of one."""

    epoch: int
    start: int

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Draw]: ...
    def another(self, draw: Draw, attempt: int) -> Draw: ...


class Course(Sampler[Draw]):
    """The rest of an epoch's plan, with other scans in the place of those in quarantine.

    Args:
        plan: of all samples.
        quarantine: which scans are barred from which iteration on.
        batch_size: samples per iteration.
        part: of the data; ``"train"`` counts iterations by the plan, others go by the trainer's.
    """

    def __init__(self, plan: DrawingPlan, quarantine: Quarantine, batch_size: int, part: str) -> None:
        self.plan, self.quarantine, self.batch_size, self.part = plan, quarantine, batch_size, part
        self.done = 0  # samples handed out since the epoch, or what a resumed run does of it, began
        self._places: dict[Draw, int] = {}

    def __len__(self) -> int:
        """Return the samples of an epoch, whatever is left of this one."""
        return len(self.plan)

    def __iter__(self) -> Iterator[Draw]:
        """Yield the draws that are still to be handed out."""
        self._places = {}
        for place, draw in enumerate(itertools.islice(self.plan, self.done, None), self.done):
            chosen = self._allowed(draw, place)
            self._places[chosen] = place
            yield chosen

    def moment(self, place: int) -> tuple[int, int]:
        """Return the epoch and the iteration of a place, both counted from 1."""
        if self.part != "train":
            return self.quarantine.now()
        length = -(-len(self.plan) // self.batch_size)
        return self.plan.epoch + 1, self.plan.epoch * length + (self.plan.start + place) // self.batch_size + 1

    def place(self, draw: Draw) -> int:
        """Return where a draw stands that was asked for and not yet handed out."""
        return self._places.get(draw, self.done)

    def next_batch(self) -> list[Draw]:
        """Return the draws of the next batch to be handed out, as far as they were asked for."""
        return [draw for draw, place in self._places.items() if place < self.done + self.batch_size]

    def advance(self) -> None:
        """Count one batch as handed out."""
        self.done += self.batch_size
        self._places = {draw: place for draw, place in self._places.items() if place >= self.done}

    def _allowed(self, draw: Draw, place: int) -> Draw:
        iteration = self.moment(place)[1]
        attempts = range(_ATTEMPTS) if self.quarantine.bars(self.part, draw.item, iteration) else []
        for attempt in attempts:
            other = self.plan.another(draw, attempt)
            if not self.quarantine.bars(self.part, other.item, iteration):
                return other
        if attempts:
            raise RunError(
                f"{self.quarantine.path.name}: hardly any scan of the {self.part} data is left to draw; mend those in "
                "that list and delete their lines",
                code="run.no_scans",
            )
        return draw


class SupervisedLoader(DataLoader):
    """MONAI's loader over a plan of draws, whose bad scans and lost processes go on the quarantine list.

    A scan that cannot be read, or holds numbers that are not finite, is replaced by another one that derives from the
    draw, and barred from then on. When a worker process ends or takes longer than ``worker_timeout`` over a batch, all
    are started anew where the run stands; a draw that does so twice has its scan barred. The process of the run
    decides, batch by batch, so that the batches are the same for any number of workers.

    Args:
        dataset: takes a `Draw`, such as a `DrawDataset`.
        plan: a `DrawPlan` or `VisitPlan`.
        quarantine: the list, and the budgets beyond which the run stops.
        batch_size: samples per iteration.
        num_workers: processes; with 0 a scan that hangs or ends the process cannot be survived.
        worker_timeout: seconds that a batch may be waited for, 0 for ever.
        part: of the data, as it stands in the list.
        pin_memory: see torch.
        persistent_workers: see torch.

    Raises:
        SettingError: ``worker_timeout`` is negative.
        RunError: while it is iterated: more trouble than the budget.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        plan: DrawingPlan,
        quarantine: Quarantine,
        batch_size: int,
        num_workers: int = 0,
        worker_timeout: float = 600,
        part: str = "train",
        pin_memory: bool = False,
        persistent_workers: bool = False,
    ) -> None:
        if not is_number(worker_timeout, 0):
            raise SettingError(
                f"worker_timeout: {worker_timeout!r}; give seconds, more than a batch takes, or 0 to wait for ever",
                code="setting.worker_timeout",
            )
        self.quarantine, self.course = quarantine, Course(plan, quarantine, batch_size, part)
        self.draws = dataset
        self.notes, self.watch = DrawNotes(num_workers), WorkerWatch()
        self._running: Any = None
        self._strikes: Counter[Draw] = Counter()
        quarantine.expect(part, len(dataset))  # type: ignore[arg-type]
        super().__init__(
            WatchedSamples(dataset, self.notes),
            num_workers,
            sampler=self.course,
            batch_size=batch_size,
            timeout=worker_timeout if num_workers else 0,
            collate_fn=UsableBatch(collate_placed),
            pin_memory=pin_memory,
            persistent_workers=persistent_workers,
            worker_init_fn=leave_stopping_to_the_run,
        )

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches of the plan's epoch from its start on."""
        self.course.done = 0
        self._strikes.clear()
        try:
            while True:
                try:
                    with self.watch.heard():
                        if self._running is None:
                            self._begin()
                        batch = next(self._running, _END)
                except (RuntimeError, OSError, EOFError) as error:
                    self._begin_anew_after(error)
                    continue
                if batch is _END:
                    return
                if isinstance(batch, Troubles):
                    self._bar(batch)
                    self._leave()  # what was read ahead may hold the same scans
                    continue
                self.quarantine.batch = [name_of(self.draws, draw.item) for draw in self.course.next_batch()]
                self.course.advance()
                yield batch
        finally:
            self._leave()

    def _begin(self) -> None:
        self._running = super().__iter__()
        if self.num_workers:
            end_children_at_exit()
        self.watch.begin(list(getattr(self._running, "_workers", [])))

    def _leave(self) -> None:
        running, self._running = self._running, None
        if not self.persistent_workers:
            if hasattr(running, "_shutdown_workers"):
                running._shutdown_workers()  # now, while the watch keeps torch from raising what ends meanwhile
            self.watch.end()

    def _bar(self, troubles: Troubles) -> None:
        for one in troubles.found:
            epoch, iteration = self.course.moment(self.course.place(one.draw))
            if not self.quarantine.bars(self.course.part, one.draw.item, iteration):  # twice in a batch
                self.quarantine.add(
                    Finding(one.name, "scan", epoch, iteration, one.code, one.problem, self.course.part, one.draw.item)
                )

    def _begin_anew_after(self, error: Exception) -> None:
        """Throw the worker processes away and note who ended or hung over what; other errors are raised."""
        processes = self.watch.processes
        late = str(error).startswith("DataLoader timed out")
        if processes and not isinstance(error, RuntimeError):
            # The way to a process breaks off a moment before the system says that it ended.
            broken = wait([process.sentinel for process in processes], timeout=5)
            for process in processes:
                process.join(5 if process.sentinel in broken else 0)
        ended = [place for place, process in enumerate(processes) if not process.is_alive()]
        if not ended and not late:
            raise error
        awaited = self.course.next_batch()
        suspects = [(place, self.notes.of(place)) for place in (ended or range(len(processes)))]
        found = [(place, draw) for place, draw in suspects if draw is not None and (ended or draw in awaited)]
        how = [_how(processes[place].exitcode) if ended else f"took over {self.timeout:g} s" for place, _ in found]
        self._discard()
        for (_, draw), words in zip(found, how, strict=True):
            self._strike(draw, words, "worker.ended" if ended else "worker.hung")
        if not found:
            epoch, iteration = self.course.moment(self.course.done)
            what = "ended while it read nothing" if ended else f"took over {self.timeout:g} s"
            problem = f"a worker process of the loader {what}; look at the computer's memory and disk"
            code = "worker.ended" if ended else "worker.hung"
            self.quarantine.add(Finding("", "restart", epoch, iteration, code, problem, self.course.part))

    def _strike(self, draw: Draw, how: str, code: str) -> None:
        self._strikes[draw] += 1
        last = self._strikes[draw] >= _STRIKES
        name = name_of(self.draws, draw.item)
        epoch, iteration = self.course.moment(self.course.place(draw))
        problem = (
            f"{name}: the worker process that read it {how}{', a second time' if last else ''}; look at the scan, "
            + ("the memory and the disk" if code == "worker.ended" else "the disk and worker_timeout")
        )
        finding = Finding(name, "restart", epoch, iteration, code, problem, self.course.part)
        self.quarantine.add(finding._replace(kind="worker", item=draw.item) if last else finding)

    def _discard(self) -> None:
        """End the worker processes, whatever state they are in."""
        running, self._running = self._running or vars(self).get("_iterator"), None
        self._iterator = None  # torch's own, where the workers persist
        if running is None:
            return
        for process in running._workers:
            process.kill()  # one that is stopped or hangs in the system takes no gentler word

        def close() -> None:
            with suppress(Exception):  # of a pool that is gone already
                running._shutdown_workers()

        # A process that ended while it held a lock of their queues leaves it locked for ever: wait for a while only.
        closing = threading.Thread(target=close, daemon=True)
        closing.start()
        closing.join(30)
        self.watch.end()  # not before, or torch would raise that they end
        self.notes.clear()


def _how(exitcode: int | None) -> str:
    if exitcode is None or exitcode >= 0:
        return f"ended with exit code {exitcode}"
    return f"was ended by {signal.Signals(-exitcode).name}"
