"""A volume is in the store whole or not at all, whatever happens to its writers."""

import errno
import fcntl
import multiprocessing
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from monai_ext.base import StoreError, WriteError, remove_leftovers
from monai_ext.volumes import Body, VolumeStore
from monai_ext.volumes import store_write as module
from monai_ext.volumes.store_chunks import describe_chunks, write_chunks
from monai_ext.volumes.store_index_file import INDEX
from monai_ext.volumes.store_lock import LOCK
from monai_ext.volumes.store_write import NewVolume, write_volume

SHAPE = (37, 41, 29)


def new_volume(name: str, seed: int, labelled: bool = True) -> NewVolume:
    rng = np.random.default_rng(seed)
    return NewVolume(
        id=name,
        hu=rng.integers(-1024, 3072, SHAPE).astype(np.int16),
        affine=np.diag([1.5, 1.5, 1.5, 1]),
        spacing_mm=(1.5, 1.5, 1.5),
        source=f"{name}.nii.gz",
        source_root="0123abcd",
        source_sha256=f"{seed:064x}",
        source_shape=SHAPE,
        source_affine=np.eye(4),
        settings={},
        body=Body(((0, 0, 0), SHAPE), np.array([[1, 2, 3]])),
        label=rng.integers(0, 300, SHAPE).astype(np.uint16) if labelled else None,
    )


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in (LOCK, INDEX)}


def test_same_volume_same_bytes(tmp_path):
    write_volume(tmp_path, new_volume("a", 1))
    first = files(tmp_path)
    write_volume(tmp_path, new_volume("a", 1))
    assert files(tmp_path) == first
    assert set(first) == {"a.b2nd", "a.label.b2nd", "a.json"}


def test_label_goes_with_the_volume_it_belonged_to(tmp_path):
    write_volume(tmp_path, new_volume("a", 1))
    write_volume(tmp_path, new_volume("a", 2, labelled=False))
    assert set(files(tmp_path)) == {"a.b2nd", "a.json"}


def test_another_scan_never_takes_an_id(tmp_path):
    """Two runs over two folders may choose one name at once."""
    write_volume(tmp_path, new_volume("a", 1))
    before = files(tmp_path)
    for change in ({"source_root": "76543210"}, {"source": "x/a.nii.gz"}):
        with pytest.raises(StoreError, match=r"^a: another run has stored another scan of that name meanwhile"):
            write_volume(tmp_path, replace(new_volume("a", 2), **change))
    assert files(tmp_path) == before


def fill_disk_at(call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have one flush of a file or folder find the disk full; new files are flushed, then the old ones go."""
    calls, flush = iter(range(99)), os.fsync

    def full(descriptor: int) -> None:
        if next(calls) == call:
            raise OSError(errno.ENOSPC, "full")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", full)


@pytest.mark.parametrize("call", [0, 1, 2, 4, 8])  # image, label and sidecar beside the old ones, later in their places
def test_full_disk_leaves_no_half_volume(tmp_path, monkeypatch, call):
    write_volume(tmp_path, new_volume("b", 2))
    fill_disk_at(call, monkeypatch)
    with pytest.raises(WriteError, match=r"^a\..* could not be written \(No space left on device\); free space"):
        write_volume(tmp_path, new_volume("a", 1))
    monkeypatch.undo()
    whole = ["a", "b"] if call == 8 else ["b"]  # the folder's flush, behind the last rename
    assert VolumeStore(tmp_path).ids == whole
    assert not list(tmp_path.glob(".writing-*"))
    write_volume(tmp_path, new_volume("a", 1))
    VolumeStore(tmp_path).verify("a")


@pytest.mark.parametrize("call", [0, 1, 2])
def test_full_disk_leaves_the_older_volume(tmp_path, monkeypatch, call):
    write_volume(tmp_path, new_volume("a", 1))
    before = files(tmp_path)
    fill_disk_at(call, monkeypatch)
    with pytest.raises(WriteError, match="No space left on device"):
        write_volume(tmp_path, new_volume("a", 2))
    monkeypatch.undo()
    assert files(tmp_path) == before
    VolumeStore(tmp_path).verify("a")


def test_what_reads_back_differently_is_refused(tmp_path, monkeypatch):
    write = module.write_chunks
    monkeypatch.setattr(module, "write_chunks", lambda path, voxels: write(path, voxels + 1))
    with pytest.raises(WriteError, match=r"^a: read back other voxels than were written; check the disk"):
        write_volume(tmp_path, new_volume("a", 1))
    assert not files(tmp_path)


def test_describing_searches_the_file_once_however_many_chunks(tmp_path, monkeypatch):
    """A search for each chunk takes a second of a scan's preparing, and four times that for twice the scan."""
    searched: list[int] = []

    class Counted(bytes):
        def find(self, part: bytes, *limits: int) -> int:
            searched.append(len(self))
            return bytes.find(self, part, *limits)

    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: Counted(read_bytes(path)))
    rng = np.random.default_rng(0)
    for edge, chunks in ((31, 1), (97, 64)):
        voxels = rng.integers(-1024, 3072, (edge,) * 3).astype(np.int16)
        voxels[:, :, : edge // 2] = 0  # chunks of zeros, which have no bytes in the file, at the start too
        write_chunks(tmp_path / "a.b2nd", voxels)
        data = describe_chunks(tmp_path / "a.b2nd")
        assert len(data.ends) == chunks + 1
        assert searched == [data.size]
        searched.clear()


def test_short_write_is_refused(tmp_path, monkeypatch):
    def short(path: Path, voxels: np.ndarray) -> None:
        path.write_bytes(b"\x00" * 100)

    monkeypatch.setattr(module, "write_chunks", short)
    with pytest.raises(WriteError, match="read back other voxels"):
        write_volume(tmp_path, new_volume("a", 1))


def test_folder_that_is_absent_is_said(tmp_path):
    with pytest.raises(WriteError, match=r"^none: the store cannot be written \(No such file or directory\)"):
        write_volume(tmp_path / "none", new_volume("a", 1))


def fork(target, *args) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=target, args=args)
    process.start()
    return process


forks = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@forks
def test_two_writers_of_one_volume_never_mix_it(tmp_path):
    def writer(seed: int) -> None:
        for _ in range(15):
            write_volume(tmp_path, new_volume("a", seed))

    both = [fork(writer, seed) for seed in (1, 2)]
    for process in both:
        process.join(60)
        assert process.exitcode == 0
    store = VolumeStore(tmp_path)
    store.verify("a")
    seed = int(store.record("a").source_sha256, 16)
    assert np.array_equal(store.volume("a"), new_volume("a", seed).hu)
    assert np.array_equal(store.volume("a", "label"), new_volume("a", seed).label)
    assert set(files(tmp_path)) == {"a.b2nd", "a.label.b2nd", "a.json"}


@forks
def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(tmp_path):
    for name in ("dead", "living"):
        (tmp_path / f".writing-0a1b2c3d-{name}.label.b2nd").write_bytes(b"half")
    reading, writing = os.pipe()

    def living() -> None:
        with (tmp_path / ".writing-0a1b2c3d-living.label.b2nd").open("ab") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            os.write(writing, b"x")
            os.read(stop, 1)

    stop, go = os.pipe()
    process = fork(living)
    os.read(reading, 1)
    remove_leftovers(tmp_path)
    assert {path.name.split("-")[-1] for path in tmp_path.glob(".writing-*")} == {"living.label.b2nd"}
    os.write(go, b"x")
    process.join(20)
    remove_leftovers(tmp_path)
    assert not list(tmp_path.glob(".writing-*"))


def test_file_system_without_locks_is_written_all_the_same(tmp_path, monkeypatch):
    for name in ("b", "old"):
        (tmp_path / f".writing-0a1b2c3d-{name}.b2nd").write_bytes(b"half")
    os.utime(tmp_path / ".writing-0a1b2c3d-old.b2nd", (0, time.time() - 90_000))  # more than a day ago

    def no_locks(*args: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    monkeypatch.setattr(fcntl, "lockf", no_locks)
    monkeypatch.setattr(fcntl, "fcntl", no_locks)
    write_volume(tmp_path, new_volume("a", 1))
    remove_leftovers(tmp_path)
    assert set(files(tmp_path)) == {"a.b2nd", "a.label.b2nd", "a.json", ".writing-0a1b2c3d-b.b2nd"}
