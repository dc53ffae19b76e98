"""Preparing on dask.distributed, with schedulers and workers that are real processes."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from monai_ext import __version__
from monai_ext.base import SettingError, StoreError
from monai_ext.volumes import VolumeStore, prepare, prepare_cluster
from monai_ext.volumes.prepare_cluster import cluster, run_on_cluster

distributed = pytest.importorskip("distributed", reason="needs the extra: pip install 'monai-ext[cluster]'")

DEADLY = "__import__('os').kill(__import__('os').getpid(), 9)"  # jobs here are what eval() is given
SHAPE = (23, 19, 17)


def failed(job: str, error: BaseException) -> str:
    return f"{type(error).__name__}: {job[:10]}"


def silent(sentence: str) -> None:
    raise AssertionError(sentence)


def write_scans(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        hu = np.full(SHAPE, -1000.0)
        hu[4:19, 3:16, 2:15] = 40
        hu = np.rint(hu + np.random.default_rng(number).normal(0, 8, SHAPE)).astype(np.int16)
        image = nib.Nifti1Image(hu, np.diag([3.0, 3.0, 3.0, 1]))
        image.header.set_xyzt_units("mm")
        nib.save(image, folder / f"ct_{number:03}.nii.gz")
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name[0] != "."}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


class Daemons:
    """A scheduler and its workers, as a cluster's administrator starts them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.all = folder, list[subprocess.Popen[bytes]]()
        self.scheduler = self._start("dask_scheduler", "--port", "0", "--scheduler-file", str(folder / "where.json"))
        self.address = ""

    def _start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            command = [sys.executable, "-m", f"distributed.cli.{name}", *arguments, "--no-dashboard"]
            self.all.append(
                subprocess.Popen([*command, "--host", "127.0.0.1"], stdout=log, stderr=log, start_new_session=True)
            )
        return self.all[-1]

    def worker(self, *arguments: str) -> subprocess.Popen[bytes]:
        return self._start("dask_worker", "--scheduler-file", str(self.folder / "where.json"), *arguments)

    def wait(self, workers: int) -> str:
        with distributed.Client(scheduler_file=str(self.folder / "where.json"), set_as_default=False) as client:
            if workers:
                client.wait_for_workers(workers, timeout=30)
            self.address = client.scheduler.address
        return self.address

    def stop(self) -> None:
        for process in self.all:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    started = Daemons(tmp_path)
    yield started
    started.stop()


@pytest.fixture(scope="module")
def _here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with cluster("local", 2, tmp_path_factory.mktemp("here")) as client:
        yield client


@pytest.fixture
def here(_here: Any) -> Any:
    """A client of a local cluster of two workers, both alive."""
    _here.wait_for_workers(2, timeout=30)
    return _here


def test_every_job_is_done_once_and_few_are_with_the_scheduler(here):
    asked, most = 0, 0

    def jobs() -> Iterator[str]:
        nonlocal asked
        for number in range(40):
            asked += 1
            yield f"{number} ** 2"

    results = []
    for result in run_on_cluster(here, eval, jobs(), failed, silent):
        results.append(result)
        most = max(most, asked - len(results))
    assert sorted(results) == [number**2 for number in range(40)]
    assert most <= 4  # two for each worker


def test_death_of_a_worker_costs_its_job_alone(here):
    jobs = ["1 + 1", DEADLY, "2 + 2", "3 + 3", DEADLY, "4 + 4", "5 + 5"]
    results = list(run_on_cluster(here, eval, jobs, failed, silent))
    assert sorted(map(str, results)) == ["10", "2", "4", "6", "8", *["KilledWorker: __import__"] * 2]


def test_what_a_worker_cannot_run_fails_alone(here):
    results = list(run_on_cluster(here, eval, ["1 +", "1 + 1"], failed, silent))
    assert sorted(map(str, results)) == ["2", "SyntaxError: 1 +"]


def test_stopping_early_leaves_nothing_with_the_scheduler(here):
    results = run_on_cluster(here, eval, ["7"] * 50, failed, silent)
    assert next(results) == 7
    results.close()
    del results
    deadline = time.monotonic() + 20  # futures are let go in the client's own thread
    while here.futures:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("import monai_ext._version as v; v.__version__ = '0.0.1'", r"worker tcp://\S+ has monai-ext 0\.0\.1; install"),
        ("import sys; sys.modules['monai_ext._version'] = None", r"worker tcp://\S+ has no monai-ext; install"),
    ],
)
def test_workers_with_another_version_are_told(here, store, code, sentence):
    here.run(exec, code)
    try:
        with pytest.raises(SettingError, match=sentence) as caught, cluster(here.scheduler.address, None, store):
            pass
        assert caught.value.code == "prepare.worker_version"
    finally:
        here.run(exec, "import sys; sys.modules.pop('monai_ext._version', None)")
        here.run(exec, f"import monai_ext._version as v; v.__version__ = {__version__!r}")


def test_workers_that_do_not_see_the_store_are_told(here, store, monkeypatch):
    monkeypatch.setattr("tempfile._RandomNameSequence.__next__", lambda self: "known")
    # As on a machine whose folder of that path is another one.
    here.run(exec, "import genericpath as g; g.known, g.exists = g.exists, lambda path: 'known' not in path")
    try:
        sentence = r"^store: the worker tcp://\S+ does not see the store's folder"
        with pytest.raises(StoreError, match=sentence), cluster(here.scheduler.address, None, store):
            pass
    finally:
        here.run(exec, "import genericpath as g; g.exists = g.known")
    assert not files(store)
    assert {path.name for path in store.iterdir()} == {".lock"}


def test_address_of_a_worker_is_told(here, store):
    worker = next(iter(here.nthreads()))
    with (
        pytest.raises(SettingError, match=r"^scheduler: no dask scheduler answers at tcp://"),
        cluster(worker, None, store),
    ):
        pass


def test_scheduler_that_is_not_there_is_one_sentence_soon(store, monkeypatch):
    assert prepare_cluster.CONNECT_S <= 5  # of the ten seconds in which it is told
    monkeypatch.setattr(prepare_cluster, "CONNECT_S", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent_port:  # accepts, and says nothing
        address = f"tcp://127.0.0.1:{silent_port.getsockname()[1]}"
        before = time.monotonic()
        with pytest.raises(SettingError, match=f"^scheduler: no dask scheduler answers at {address}; start one"):
            prepare(write_scans(store.parent / "scans", 1), store, scheduler=address)
        assert time.monotonic() - before < 5


@pytest.mark.parametrize("address", ["somewhere", "tcp://there", "http://127.0.0.1:8786", "tcp://127.0.0.1:99999"])
def test_impossible_address_is_told_before_scans_are_looked_for(store, address, monkeypatch):
    monkeypatch.setattr(prepare_cluster, "CONNECT_S", 1)
    with pytest.raises(SettingError, match=r"^scheduler: .*(is no address|no dask scheduler answers)"):
        prepare(store / "nothing here", store, scheduler=address)


def test_missing_extra_is_named(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(SettingError, match=r"pip install 'monai-ext\[cluster\]'"), cluster("local", 1, store):
        pass


def test_store_is_the_same_by_pool_and_by_cluster(tmp_path, store, daemons, monkeypatch):
    """With a worker of one thread and a worker of three, one of which is killed in the middle."""
    scans = write_scans(tmp_path / "scans", 24)
    (scans / "ct_005.nii.gz").write_bytes(b"")
    prepare(scans, tmp_path / "whole", workers=0)
    doomed = daemons.worker("--nthreads", "1")
    daemons.worker("--nthreads", "3")
    address = daemons.wait(2)
    module, count = sys.modules["monai_ext.volumes.prepare_run"], 0
    run = module.run_on_cluster

    def killing(*arguments: Any) -> Iterator[Any]:
        nonlocal count
        for outcome in run(*arguments):
            count += 1
            if count == 6:
                os.killpg(doomed.pid, signal.SIGKILL)
            yield outcome

    monkeypatch.setattr(module, "run_on_cluster", killing)
    summary = prepare(scans, store, scheduler=address)
    assert len(summary.done) + len(summary.skipped) == 23
    assert [outcome.id for outcome in summary.failed] == ["ct_005"]
    assert files(store) == files(tmp_path / "whole")
    assert not list(store.glob(".writing-*"))


def test_lost_scheduler_is_one_sentence(store, daemons, caplog):
    level = logging.getLogger("distributed.client").level
    daemons.worker("--nthreads", "1")
    with cluster(daemons.wait(1), None, store) as client:
        results = run_on_cluster(client, eval, ["1", "__import__('time').sleep(60)"], failed, silent)
        assert next(results) == 1
        os.killpg(daemons.scheduler.pid, signal.SIGKILL)
        with pytest.raises(SettingError, match=r"^scheduler: the connection was lost, while what is in the store"):
            next(results)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert logging.getLogger("distributed.client").level == level  # others hear it again


@pytest.mark.parametrize("error", [OSError("torn"), CancelledError()])
def test_scheduler_lost_on_the_way_of_a_result_is_one_sentence(here, monkeypatch, error):
    def torn(self, timeout=None):
        raise error

    monkeypatch.setattr(distributed.Future, "result", torn)
    with pytest.raises(SettingError, match=r"^scheduler: the connection was lost, while what is in the store"):
        list(run_on_cluster(here, eval, ["1"], failed, silent))


@pytest.mark.full
def test_scheduler_without_workers_is_waited_for_and_told(store, daemons, monkeypatch):
    monkeypatch.setattr(prepare_cluster, "_LOOK_S", 0.2)
    daemons.wait(0)
    told: list[str] = []

    def start_one(sentence: str) -> None:
        told.append(sentence)
        daemons.worker("--nthreads", "1")

    with cluster(daemons.address, None, store) as client:
        assert list(run_on_cluster(client, eval, ["1 + 1"], failed, start_one)) == [2]
    assert told == ["the scheduler has no workers; waiting for them (start some with: dask worker ADDRESS)"]


@pytest.mark.full
def test_ctrl_c_ends_a_local_cluster_and_leaves_the_store_whole(tmp_path, store):
    scans = write_scans(tmp_path / "scans", 60)
    command = [sys.executable, "-m", "monai_ext", "prepare", str(scans), str(store), "--scheduler", "local"]
    run = subprocess.Popen(
        [*command, "--workers", "2"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while len(list(store.glob("[!.]*.json"))) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does, to all of its processes
    output = run.communicate(timeout=60)[0].decode()
    assert run.returncode == 130, output
    assert "interrupted: what is in the store is whole" in output
    assert "Traceback" not in output
    opened = VolumeStore(store)
    for volume_id in opened:
        opened.verify(volume_id)
    assert len(opened) < 60
    summary = prepare(scans, store, workers=0)
    assert len(summary.done) + len(summary.skipped) == 60
