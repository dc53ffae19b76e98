"""Full disks, files that may not grow, read-only folders: an error, nothing half-written, the older file intact."""

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from monai_ext.base import InputError, WriteError

EVERYTHING = [
    "mask",
    "mask and picture",
    "localization",
    "localization and picture",
    "reconstruction",
    "store volume",
    "weights (.pt)",
    "weights (.safetensors)",
    "history",
    "manifest",
    "HTML page",
    "scores",
    "phantoms",
    "SEG",
    "parametric map",
    "report",
]
QUICK = {"mask", "localization", "store volume", "weights (.safetensors)", "history"}
each_writer = pytest.mark.parametrize(
    "what", [name if name in QUICK else pytest.param(name, marks=pytest.mark.full) for name in EVERYTHING]
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 4 MB in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip("needs the right to mount a small file system (root in a container with CAP_SYS_ADMIN)")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def largest_new(tmp_path: Path, write: Callable[..., None], faults: SimpleNamespace) -> Callable[[str], int]:
    """Return the size of the largest file that a writer makes of the second version."""

    def measure(what: str) -> int:
        folder = tmp_path / "new"
        folder.mkdir()
        write(what, folder, 1)
        return max(map(len, faults.content(folder).values()))

    return measure


def fill(folder: Path, free: int) -> None:
    """Leave so many bytes of a disk free."""
    left = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    with (folder / "filler").open("wb") as handle:
        handle.write(bytes(max(0, left - free)))


@contextmanager
def no_larger(size: int) -> Iterator[None]:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def try_to_write(write: Callable[[], None]) -> str:
    """Tell how a writing ended: ``written``, or the name of the error's type."""
    try:
        write()
    except InputError as error:
        return type(error).__name__
    return "written"


def judged(ended: str, before: dict[str, bytes], after: dict[str, bytes]) -> str:
    """Name an outcome, where the writing cannot have succeeded."""
    if ended == "written":
        return "silent"
    if ended != WriteError.__name__:
        return "crashed"
    return "caught" if after == before else "torn"


@each_writer
@pytest.mark.parametrize("room", ["half", *(pytest.param(room, marks=pytest.mark.full) for room in ("none", "most"))])
def test_full_disk(
    what: str,
    room: str,
    disk: Path,
    largest_new: Callable[[str], int],
    write: Callable[..., None],
    faults: SimpleNamespace,
    record: Callable[..., None],
) -> None:
    folder = disk / "out"
    folder.mkdir()
    write(what, folder, 0)
    before = faults.content(folder)
    # Blocks of 4 kB: what is left must not hold the largest file.
    largest = largest_new(what)
    free = {"none": 0, "half": largest // 2, "most": largest - 1}[room] // 4096 * 4096
    fill(disk, free)
    ended = try_to_write(lambda: write(what, folder, 1))
    outcome = judged(ended, before, faults.content(folder))
    record("full disk (tmpfs)", f"{what}, room for {room}", outcome, ended)
    assert not record.bad
    (disk / "filler").unlink()
    write(what, folder, 1)
    assert faults.content(folder).keys() >= before.keys()


@each_writer
@pytest.mark.parametrize("share", [0.5, *(pytest.param(share, marks=pytest.mark.full) for share in (0.0, 0.99))])
def test_file_that_may_not_grow(
    what: str,
    share: float,
    tmp_path: Path,
    largest_new: Callable[[str], int],
    write: Callable[..., None],
    faults: SimpleNamespace,
    record: Callable[..., None],
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    write(what, folder, 0)
    before = faults.content(folder)
    with no_larger(int(share * largest_new(what))):
        ended = try_to_write(lambda: write(what, folder, 1))
    outcome = judged(ended, before, faults.content(folder))
    record("file size limit (RLIMIT_FSIZE)", f"{what}, {share:.0%} of the largest file", outcome, ended)
    assert not record.bad
    write(what, folder, 1)


@each_writer
def test_read_only_folder(
    what: str, disk: Path, write: Callable[..., None], faults: SimpleNamespace, record: Callable[..., None]
) -> None:
    folder = disk / "out"
    folder.mkdir()
    write(what, folder, 0)
    before = faults.content(folder)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    ended = try_to_write(lambda: write(what, folder, 1))
    after = faults.content(folder)
    outcome = "silent" if ended == "written" else "crashed" if ended != "WriteError" else "caught"
    record("read-only folder", what, "torn" if after != before else outcome, ended)
    assert not record.bad
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    write(what, folder, 1)


def test_the_rest_of_a_batch_goes_on(tmp_path: Path, faults: SimpleNamespace, record: Callable[..., None]) -> None:
    """The second of three scans does not fit the disk: it alone fails, by name, and leaves nothing."""
    import torch
    from ignite.engine import Engine

    from monai_ext.engines import GuardedStep
    from monai_ext.outputs import LabelMapWriter

    writer = LabelMapWriter("pred", tmp_path, faults.names)

    class Writing(GuardedStep):
        def evaluate(self, engine: Engine, batch: dict) -> dict:
            return writer({"pred": batch["pred"]})

    step = Writing("fp32")
    empty = torch.zeros(1, *faults.labels(0).shape, dtype=torch.uint8)
    volumes = {"a": empty, "b": torch.as_tensor(faults.labels(1)[None]), "c": empty}
    with no_larger(1500):  # noise compresses to 1800 bytes, nothing to less
        for case, volume in volumes.items():
            step(Engine(lambda *_: None), {"case": [case], "pred": faults.scan(volume, case)})
    good = step.done == ["a", "c"] and set(step.failures) == {"b"} and "File too large" in step.failures["b"]
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    meant = {f"{case}_seg{ending}" for case in "ac" for ending in (".json", ".nii.gz")}
    outcome = "caught" if good and left == meant else "torn" if good else "lost"
    record("file size limit (RLIMIT_FSIZE)", "one scan of a batch", outcome, (step.done, step.failures, left))
    assert not record.bad
