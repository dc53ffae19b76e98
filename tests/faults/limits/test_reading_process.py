"""The reading process: whatever becomes of it, the one that asks says so in one sentence and goes on."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from monai_ext.base import GeometryError, LabelError, ScanError, SettingError
from monai_ext.volumes import prepare, read_header, read_labels, read_scan, reading_pool
from monai_ext.volumes.reading_limits import ReadLimits, reading_inside
from monai_ext.volumes.reading_pool import ReadingPool
from monai_ext.volumes.reading_process import TASKS, ReadingProcess

LIMITS = ReadLimits(seconds=0.4, most_bytes=2**29, base_bytes=2**29)
SMALL = ReadLimits(seconds=5, most_bytes=2**28, base_bytes=2**28)


@pytest.fixture(scope="module")
def pool(bad_readers: str) -> Iterator[ReadingPool]:
    class Pool(ReadingPool):
        def _start(self) -> ReadingProcess:
            return ReadingProcess((TASKS, bad_readers))

    made = Pool()
    yield made
    made.end()


@pytest.fixture
def ask(pool: ReadingPool) -> Callable[..., object]:
    def asked(task: str, limits: ReadLimits = LIMITS, **told: object) -> object:
        with pool.lent() as process:
            return process.ask(task, "case_7", told, limits)

    return asked


BAD = {
    "crash": ("scan.crashed", "the process that read it ended by signal 11; leave the scan out, or"),
    "abort": ("scan.crashed", "the process that read it ended by signal 6; leave the scan out, or"),
    "leave": ("scan.crashed", "the process that read it ended without a sound answer; leave the scan out, or"),
    "spin": ("scan.hung", "reading it takes more than 0.4 s beyond what its size takes; export it again, or set MONAI"),
    "sleep": ("scan.hung", "reading it takes more than 0.4 s beyond what its size takes; export it again, or set"),
    "eat": (
        "scan.memory",
        "reading it needs more memory than such a scan takes, or than 0.25 GiB; export it again, or",
    ),
    "write_much": ("scan.unforeseen", "OSError while reading it; leave it out and please report this"),
    "odd_error": ("scan.unforeseen", "KeyError while reading it; leave it out and please report this"),
    "good_again": None,
}
LIES = ("text", "huge", "no_json", "deep", "list", "odd_class", "odd_shape", "odd_time", "short", "still_writable")


def outcome_of(caught: ScanError, seconds: float) -> str:
    if seconds >= 10:
        return "hung"
    return "caught" if caught.case == "case_7" and "SENTINEL" not in str(caught) else "silent"


QUICK = ("crash", "spin", "eat", "good_again", "short", "pickled")  # each costs a start of Python
TASKS_OF_ALL = [*BAD, *LIES, "objects", "pickled"]


@pytest.mark.parametrize(
    "task", [pytest.param(task, marks=() if task in QUICK else pytest.mark.full) for task in TASKS_OF_ALL]
)
def test_whatever_the_reader_does_is_one_sentence(ask, task, record_property, capfd, tmp_path):
    if task == "good_again":  # the ones before it have ended their processes
        np.testing.assert_array_equal(ask("good")[1].ravel(), np.arange(24))
        return
    told = {"folder": str(tmp_path / "made")} if task == "pickled" else {}
    ask("good")  # ten seconds count from when a process has started
    started = time.monotonic()
    with pytest.raises(ScanError) as caught:
        ask(task, SMALL if task == "eat" else LIMITS, **told)
    code, sentence = BAD.get(task) or ("scan.crashed", "the process that read it ended without a sound answer")
    outcome = outcome_of(caught.value, time.monotonic() - started)
    record_property("fault", ["reading process", task, outcome])
    assert outcome == "caught"
    assert (caught.value.code, type(caught.value)) == (code, ScanError)
    assert str(caught.value).startswith(f"case_7: {sentence}")
    assert capfd.readouterr() == ("", "")
    assert not (tmp_path / "made").exists()


def test_voxels_are_one_own_to_change(ask):
    (_, first), (_, second) = ask("good"), ask("good")
    first[0, 0, 0] = -5
    assert first[0, 0, 0] == -5
    np.testing.assert_array_equal(second.ravel(), np.arange(24))


def test_a_process_killed_between_two_scans_is_replaced(ask):
    found, _ = ask("good")
    os.kill(found["pid"], signal.SIGKILL)
    time.sleep(0.1)
    assert ask("good")[0]["pid"] != found["pid"]


def test_interrupted_in_the_middle_the_answer_is_not_taken_for_that_to_the_next_question(ask, pool):
    with pytest.raises(KeyboardInterrupt):
        threading.Timer(0.3, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT]).start()
        ask("sleep", ReadLimits(seconds=5, most_bytes=2**29, base_bytes=2**29))
    np.testing.assert_array_equal(ask("good")[1].ravel(), np.arange(24))


def test_the_process_that_asks_may_be_stopped_meanwhile(ask):
    """SIGSTOP for longer than the reader may take, while the answer waits: it is taken all the same."""
    stopping = f"import os, signal, time; os.kill({os.getpid()}, signal.SIGSTOP); time.sleep(4); "
    stopping += f"os.kill({os.getpid()}, signal.SIGCONT)"
    stopper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.3); " + stopping])
    np.testing.assert_array_equal(ask("slow", ReadLimits(0.5, 2**29, 2**29))[1].ravel(), np.arange(24))
    assert stopper.wait() == 0


def test_a_batch_goes_on_beside_scans_that_crash_hang_and_eat(
    pool, tmp_path, write_ct, monkeypatch, record_property, caplog
):
    monkeypatch.setattr(reading_pool, "_pool", pool)
    monkeypatch.setenv("MONAI_EXT_READ_SECONDS", "1")
    monkeypatch.setenv("MONAI_EXT_READ_GIB", "0.25")
    for name in ("a_good", "b_crash", "c_spin", "d_eat", "e_good"):
        write_ct(tmp_path / "SENTINEL" / f"{name}.nii.gz")
    summary = prepare(tmp_path / "SENTINEL", tmp_path / "store", spacing_mm=(1.5, 1.5, 1.5), workers=0)
    found = {failure.id: failure.code for failure in summary.failed}
    expected = {"b_crash": "scan.crashed", "c_spin": "scan.hung", "d_eat": "scan.memory"}
    whole = sorted(path.stem for path in (tmp_path / "store").rglob("*.b2nd"))
    for case, code in expected.items():
        record_property(
            "fault", ["reading process in a batch", case, "caught" if found.get(case) == code else "silent"]
        )
    assert found == expected
    assert whole == ["a_good", "e_good"]
    assert "SENTINEL" not in caplog.text + "".join(failure.reason for failure in summary.failed)


PARENT = """
import sys, threading
from monai_ext.volumes.reading_limits import ReadLimits
from monai_ext.volumes.reading_process import ReadingProcess

def run():
    process = ReadingProcess((sys.argv[1],))
    print(process.pid, flush=True)
    process.ask(sys.argv[2], "case_7", {}, ReadLimits(seconds=60))

thread = threading.Thread(target=run)
thread.start()
thread.join()
"""


@pytest.mark.parametrize("task", ["spin", pytest.param("sleep", marks=pytest.mark.full)])
def test_it_ends_with_the_process_that_asks_whatever_it_is_at(bad_readers, task, record_property):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, bad_readers, task], stdout=subprocess.PIPE, encoding="ascii", env=environment
    )
    reader = int(parent.stdout.readline())
    time.sleep(0.5)
    assert lives(reader)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    ended = waits_for(lambda: not lives(reader))
    record_property("fault", ["SIGKILL of the process that reads a batch", task, "passed" if ended else "lost"])
    assert ended


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def waits_for(condition: Callable[[], bool], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def test_the_thread_that_started_it_may_end(ask, pool):
    with ThreadPoolExecutor(1) as threads:
        found = threads.submit(ask, "good").result()[0]["pid"]
    time.sleep(0.3)
    assert lives(found)


def test_twenty_reads_in_threads(tmp_path, write_ct):
    paths = [write_ct(tmp_path / f"scan{number}.nii") for number in range(20)]
    with ThreadPoolExecutor(20) as threads:
        found = list(threads.map(read_scan, paths))
    with reading_inside():
        for path, scan in zip(paths, found, strict=True):
            np.testing.assert_array_equal(scan.voxels, read_scan(path).voxels)
    assert len(reading_pool._pool._all) <= reading_pool.MOST


def test_forked_workers_have_readers_of_their_own(tmp_path, write_ct):
    paths = [write_ct(tmp_path / f"scan{number}.nii") for number in range(6)]
    own = read_scan(paths[0]).voxels.sum()  # this process has a reader before it forks
    with multiprocessing.get_context("fork").Pool(2) as workers:
        found = workers.map(reader_and_sum, paths, chunksize=3)
    readers = {reader for reader, _ in found}
    assert not readers & {process.pid for process in reading_pool._pool._all}
    assert len(readers) <= 2
    assert found[0][1] == own == read_scan(paths[0]).voxels.sum()
    assert waits_for(lambda: not any(map(lives, readers)))


def reader_and_sum(path: Path) -> tuple[int, float]:
    total = read_scan(path).voxels.sum()
    (process,) = reading_pool._pool._all
    return process.pid, float(total)


def test_typed_errors_and_warnings_arrive_as_they_are(tmp_path, write_ct, write_series, caplog):
    image = write_ct(tmp_path / "SENTINEL" / "ct.nii")
    with pytest.raises(ScanError, match=r"^ct: the file cannot be used") as damaged:
        image.write_bytes(image.read_bytes()[:-5])
        read_header(image)
    with pytest.raises(LabelError, match=r"^labels of case_7: a DICOM series") as dicom:
        read_labels(tmp_path, case="case_7")
    series = write_series(tmp_path / "series", np.full((7, 5, 4), -1000), ImagePositionPatient=[0, 0, 0])
    with pytest.raises(GeometryError, match=r"^series: 3 slices lie where another one does") as doubled:
        read_header(series)
    assert [error.value.code for error in (damaged, dicom, doubled)] == [
        "scan.damaged",
        "label.dicom",
        "dicom.duplicates",
    ]
    assert [error.value.case for error in (damaged, dicom, doubled)] == ["ct", "case_7", "series"]


@pytest.mark.parametrize("name", ["MONAI_EXT_READ_SECONDS", "MONAI_EXT_READ_GIB"])
@pytest.mark.parametrize("word", ["many", "0", "-1", "nan"])
def test_limits_that_are_no_numbers(monkeypatch, tmp_path, write_ct, name, word):
    monkeypatch.setenv(name, word)
    with pytest.raises(SettingError, match=f"^{name}: '{word}' is not a number above 0; set it to one"):
        read_scan(write_ct(tmp_path / "ct.nii"))


def test_the_switch_is_said_and_never_taken(monkeypatch, tmp_path, write_ct):
    path = write_ct(tmp_path / "ct.nii")
    monkeypatch.setattr(reading_pool, "_pool", None)  # nobody to ask
    for word in ("", "0"):
        monkeypatch.setenv("MONAI_EXT_READ_INSIDE", word)
        with pytest.raises(AttributeError):
            read_scan(path)
    monkeypatch.setenv("MONAI_EXT_READ_INSIDE", "1")
    assert read_scan(path).shape == (19, 23, 29)
    monkeypatch.setenv("MONAI_EXT_READ_INSIDE", "yes")
    with pytest.raises(SettingError, match=r"^MONAI_EXT_READ_INSIDE: 'yes' is neither 0 nor 1"):
        read_scan(path)
    monkeypatch.setenv("MONAI_EXT_READ_INSIDE", "0")
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SettingError, match=r"^darwin: .* only Linux offers; set MONAI_EXT_READ_INSIDE=1"):
        read_scan(path)


def test_real_ct_is_the_same_both_ways(shared_ct):
    names = ("abdomen_slab_3mm.nii.gz", "heart_1p5mm.nii.gz", "torso_3mm.nii.gz", "dicom_jpeg2000")
    for name in names:
        outside = read_scan(shared_ct / name)
        with reading_inside():
            inside = read_scan(shared_ct / name)
        np.testing.assert_array_equal(outside.voxels, inside.voxels)
        np.testing.assert_array_equal(outside.affine, inside.affine)
        assert outside.voxels.strides == inside.voxels.strides
        assert (outside.case, outside.source, outside.kind) == (inside.case, inside.source, inside.kind)
