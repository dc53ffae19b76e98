"""The index says what the sidecars say, notices whatever becomes of them, and is never believed when torn."""

import hashlib
import io
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from monai_ext.base import StoreError, WriteError
from monai_ext.volumes import Origin, VolumeStore
from monai_ext.volumes import store as store_module
from monai_ext.volumes import store_index as module
from monai_ext.volumes import store_index_file as file_module
from monai_ext.volumes.store_index_file import INDEX

Add = Callable[..., None]
forks = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def settle(folder: Path) -> None:
    """Make the sidecars older than the coarsest clock; younger ones are read again at each opening."""
    for path in folder.glob("*.json"):
        changed = path.stat().st_mtime_ns - 10**10
        os.utime(path, ns=(changed, changed))


@pytest.fixture
def folder(tmp_path: Path, add_volume: Add) -> Path:
    folder = tmp_path / "store"
    label = np.ones((37, 41, 29), np.uint8)
    add_volume(folder, "b", 1, origin=Origin("set_1", "CC0-1.0", "patient", "training", 0.25))
    add_volume(folder, "c", 2, origin=Origin("set_22", "CC-BY-4.0", "other", "test"), label=label)
    add_volume(folder, "a", 3)
    settle(folder)
    return folder


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the sidecars that making the index reads."""
    names: list[str] = []
    real = module.read_marked
    monkeypatch.setattr(module, "read_marked", lambda path: (names.append(path.stem), real(path))[1])
    return names


def test_rows_say_what_the_sidecars_say(folder):
    VolumeStore(folder)
    for _ in range(2):  # made, and read back
        store = VolumeStore(folder)
        index = store.index
        assert index.ids.tolist() == store.ids == ["a", "b", "c"]
        assert index.shapes.tolist() == [[37, 41, 29]] * 3
        assert index.spacings_mm.tolist() == [[1.5, 2.0, 2.5]] * 3
        assert index.body_boxes.tolist() == [[[1, 2, 3], [31, 37, 23]]] * 3
        assert index.body_fractions == pytest.approx(30 * 35 * 20 / (37 * 41 * 29))
        assert index.datasets.tolist() == ["", "set_1", "set_22"]
        assert index.licences.tolist() == ["", "CC0-1.0", "CC-BY-4.0"]
        assert index.groups.tolist() == ["a", "patient", "other"]  # alone, a scan is its own patient
        assert index.splits.tolist() == ["", "training", "test"]
        assert index.weights.tolist() == [1, 0.25, 1]
        assert index.has_label.tolist() == [store.has_label(name) for name in store] == [False, False, True]
        sizes = [[(folder / name).stat().st_size for name in ("c.b2nd", "c.label.b2nd")]]
        assert index.data_bytes[2:].tolist() == sizes


def test_an_opening_reads_only_what_is_new_or_changed(folder, read, add_volume):
    VolumeStore(folder)
    assert read == ["a", "b", "c"]
    VolumeStore(folder)
    assert read == ["a", "b", "c"]
    add_volume(folder, "d", 4)
    add_volume(folder, "b", 5, origin=Origin("set_9", "CC0-1.0", "patient", "training"))
    (folder / "c.json").unlink()
    settle(folder)  # of all of them: the times of a and c change as well
    read.clear()
    assert VolumeStore(folder).index.datasets.tolist() == ["", "set_9", ""]
    assert read == ["a", "b", "d"]
    read.clear()
    assert VolumeStore(folder).ids == ["a", "b", "d"]
    assert read == []


def test_a_volume_that_is_gone_leaves_the_others_unread(folder, read):
    VolumeStore(folder)
    read.clear()
    (folder / "b.json").unlink()
    assert VolumeStore(folder).ids == ["a", "c"]
    assert read == []


def test_a_change_that_no_clock_shows_is_noticed(folder, add_volume):
    add_volume(folder, "b", 1, origin=Origin("set_1", "CC0-1.0", "patient", "training", 0.25))
    first = (folder / "b.json").stat()
    assert VolumeStore(folder).index.weights[1] == 0.25
    add_volume(folder, "b", 1, origin=Origin("set_1", "CC0-1.0", "patient", "training", 0.75))
    os.utime(folder / "b.json", ns=(first.st_atime_ns, first.st_mtime_ns))
    assert (folder / "b.json").stat().st_size == first.st_size
    assert VolumeStore(folder).index.weights[1] == 0.75


@pytest.mark.parametrize("keep", [0, 10, 60, 500, -1])
def test_a_torn_index_is_made_anew(folder, read, keep):
    VolumeStore(folder)
    read.clear()
    path = folder / INDEX
    path.write_bytes(path.read_bytes()[:keep])
    assert VolumeStore(folder).index.weights.tolist() == [1, 0.25, 1]
    assert read == ["a", "b", "c"]
    read.clear()
    VolumeStore(folder)
    assert read == []


def test_any_altered_byte_of_the_index_is_noticed(folder, read):
    VolumeStore(folder)
    good = (folder / INDEX).read_bytes()
    for place in range(0, len(good), len(good) // 23):
        read.clear()
        (folder / INDEX).write_bytes(good[:place] + bytes([good[place] ^ 0x15]) + good[place + 1 :])
        assert VolumeStore(folder).index.weights.tolist() == [1, 0.25, 1]
        assert read == ["a", "b", "c"]


@pytest.mark.parametrize("change", ["missing", "pickle", "type", "shape"])
def test_an_index_of_other_columns_is_made_anew(folder, read, change):
    VolumeStore(folder)
    start = len(file_module._HEAD) + 32
    columns = dict(np.load(io.BytesIO((folder / INDEX).read_bytes()[start:])))
    if change == "missing":
        del columns["licences"]
    else:
        columns["weights"] = {
            "pickle": np.array([1, "x", None], object),
            "type": np.array(["1", "2", "3"]),
            "shape": np.ones((3, 1)),
        }[change]
    content = io.BytesIO()
    np.savez(content, **columns)
    body = content.getvalue()
    (folder / INDEX).write_bytes(file_module._HEAD + hashlib.sha256(body).digest() + body)
    read.clear()
    assert VolumeStore(folder).index.weights.tolist() == [1, 0.25, 1]
    assert read == ["a", "b", "c"]


def test_where_nothing_can_be_written_nothing_is(folder, monkeypatch):
    def refuse(*_: object) -> None:
        raise WriteError(".index: could not be written (Read-only file system); choose another", code="write.failed")

    monkeypatch.setattr(file_module, "replacing", refuse)
    assert VolumeStore(folder).ids == ["a", "b", "c"]
    assert not (folder / INDEX).exists()
    assert np.isfinite(VolumeStore(folder).volume("a")).all()


def test_a_torn_sidecar_stops_the_opening_and_no_index_hides_it(folder):
    VolumeStore(folder)
    path = folder / "b.json"
    path.write_bytes(path.read_bytes()[:-9])
    for _ in range(2):
        with pytest.raises(StoreError, match=r"^b: its sidecar is torn or was altered"):
            VolumeStore(folder)


def test_a_link_that_leads_nowhere_is_said(folder):
    (folder / "d.json").symlink_to("nowhere.json")
    with pytest.raises(StoreError, match=r"^d: the store has no such volume"):
        VolumeStore(folder)


def test_a_volume_prepared_anew_is_said_where_it_is_first_used(folder, add_volume):
    store = VolumeStore(folder)
    add_volume(folder, "b", 7)
    with pytest.raises(StoreError, match=r"^b: it was prepared anew since the store was opened; open the store again"):
        store.record("b")
    assert store.record("a").id == "a"


def test_few_sidecars_are_kept_in_mind(folder, monkeypatch):
    monkeypatch.setattr(store_module, "KEPT", 2)
    store = VolumeStore(folder)
    assert len(store._records) == 0
    for name in ("a", "b", "a", "c"):
        store.record(name)
    assert list(store._records) == ["a", "c"]  # the one that was used longest ago has gone


@forks
def test_openings_beside_writers_end_with_every_volume(tmp_path, add_volume):
    folder = tmp_path / "store"
    folder.mkdir()

    def write(first: int) -> None:
        for number in range(first, 30, 2):
            add_volume(folder, f"v{number:02}", number)

    def look() -> None:
        seen = 0
        while seen < 30:
            now = len(VolumeStore(folder))
            assert now >= seen
            seen = now

    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=target, args=arguments, daemon=True)
        for target, arguments in [(write, (0,)), (write, (1,)), (look, ()), (look, ())]
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert VolumeStore(folder).ids == [f"v{number:02}" for number in range(30)]
    assert not list(folder.glob(".writing-*"))
