"""Jobs survive the death of a worker, other than the one that caused it."""

import multiprocessing
import signal
import time

import pytest

from monai_ext.volumes.prepare_pool import _context, run_jobs

DEADLY = "__import__('os').kill(__import__('os').getpid(), 9)"  # jobs here are what eval() is given


def died(job: str) -> str:
    return f"died: {job[:10]}"


@pytest.mark.parametrize("workers", [0, 2])
def test_every_job_is_done_once(workers):
    assert sorted(run_jobs(eval, [f"{number} ** 2" for number in range(11)], workers, died)) == [
        number**2 for number in range(11)
    ]


def test_death_of_a_worker_costs_its_job_alone():
    jobs = ["1 + 1", DEADLY, "2 + 2", "3 + 3", DEADLY, "4 + 4", "5 + 5"]
    results = list(run_jobs(eval, jobs, 2, died))
    assert sorted(map(str, results)) == ["10", "2", "4", "6", "8", "died: __import__", "died: __import__"]


@pytest.mark.parametrize("turn", [0, 1])
def test_a_worker_that_starts_while_another_dies_is_ended_too(monkeypatch, turn):
    """The pool breaks while a worker is being started, before it is among those that the pool watches and ends."""
    process = type(_context().Process(target=print))
    start, turns, before = process.start, iter(range(99)), set(multiprocessing.active_children())

    def slow(self):
        start(self)
        if next(turns) == turn:
            time.sleep(1)

    monkeypatch.setattr(process, "start", slow)
    assert sorted(run_jobs(eval, [DEADLY, "1 + 1"], 2, died), key=str) == [2, "died: __import__"]
    for child in set(multiprocessing.active_children()) - before:
        child.join(5)
    assert set(multiprocessing.active_children()) <= before


def test_death_of_a_worker_that_the_pool_did_not_know_yet_is_noticed(monkeypatch, tmp_path):
    """The worker that is still being started takes the deadly job, while the pool watches the other one alone."""
    process, started, mark = type(_context().Process(target=print)), [], tmp_path / "mark"
    start = process.start

    def slow(self):
        started.append(self)
        while len(started) == 2 and not mark.exists():  # the first worker has its job
            time.sleep(0.01)
        start(self)
        if len(started) == 2:
            self.join()

    monkeypatch.setattr(process, "start", slow)
    long_once = (
        f"__import__('os').path.exists({str(mark)!r}) or (open({str(mark)!r}, 'w'), __import__('time').sleep(600))"
    )
    assert sorted(map(str, run_jobs(eval, [long_once, DEADLY], 2, died))) == ["True", "died: __import__"]


def test_jobs_are_handed_out_few_at_a_time():
    asked = []

    class Jobs(list[str]):
        def __iter__(self):
            for job in super().__iter__():
                asked.append(job)
                yield job

    results = run_jobs(eval, Jobs(["1"] * 5), 0, died)
    assert next(results) == 1
    assert len(asked) == 1


def test_stopping_early_ends_the_workers():
    results = run_jobs(eval, ["7"] * 50, 2, died)
    assert next(results) == 7
    results.close()


def test_no_jobs():
    assert list(run_jobs(eval, [], 2, died)) == []


def test_ctrl_c_does_not_reach_the_imports_of_new_workers():
    handler = signal.getsignal(signal.SIGINT)
    worker = _context().Process(
        target=exec, args=("import signal, sys\nsys.exit(7 * (signal.getsignal(2) is signal.SIG_IGN))",)
    )
    worker.start()
    worker.join()
    assert worker.exitcode == 7
    assert signal.getsignal(signal.SIGINT) is handler  # the parent is to stop at it
