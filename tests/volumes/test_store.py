"""Crops equal slices of the whole array, touch no other chunk, and never show altered voxels."""

import multiprocessing
import os
import pickle
from dataclasses import replace
from itertools import product
from pathlib import Path

import blosc2
import numpy as np
import pytest

from monai_ext.base import StoreError
from monai_ext.volumes import Body, VolumeStore
from monai_ext.volumes.store import KEPT
from monai_ext.volumes.store_chunks import CHUNK
from monai_ext.volumes.store_record import LabelSource
from monai_ext.volumes.store_sidecar import record_text
from monai_ext.volumes.store_write import NewVolume, write_volume

SHAPE = (67, 41, 97)  # prime, and over three, two and four chunks


def new_volume(name: str, hu: np.ndarray, label: np.ndarray | None = None) -> NewVolume:
    affine = np.array([[1.5, 0, 0, -7.25], [0, 2.0, 0, 3.5], [0, 0, 2.5, 11], [0, 0, 0, 1]])
    return NewVolume(
        id=name,
        hu=hu,
        affine=affine,
        spacing_mm=(1.5, 2.0, 2.5),
        source=f"folder/{name}.nii.gz",
        source_root="0123abcd",
        source_sha256="ab" * 32,
        source_shape=(71, 43, 101),
        source_affine=affine @ np.diag([-1, -1, 1, 1]),
        settings={"orientation": "RAS"},
        body=Body(((1, 2, 3), (61, 37, 89)), np.array([[1, 2, 3], [1, 2, 5], [40, 30, 80]])),
        label=label,
        label_source=None if label is None else LabelSource("l.nii.gz", "cd" * 32, (0, 7), {7: "liver"}),
    )


@pytest.fixture(scope="module")
def hu() -> np.ndarray:
    return np.random.default_rng(0).integers(-1024, 3072, SHAPE).astype(np.int16)


@pytest.fixture(scope="module")
def label() -> np.ndarray:
    label = np.zeros(SHAPE, np.uint8)
    label[:40, 7:33, 5:60] = 7  # whole chunks of one value are stored in a form of their own
    return label


@pytest.fixture
def folder(tmp_path: Path, hu: np.ndarray, label: np.ndarray) -> Path:
    write_volume(tmp_path, new_volume("a", hu, label))
    write_volume(tmp_path, new_volume("b", hu[:, :, ::-1]))
    return tmp_path


def box(start, size) -> tuple[slice, ...]:
    return tuple(slice(begin, begin + edge) for begin, edge in zip(start, size, strict=True))


def test_crops_equal_slices(folder, hu, label):
    store, rng = VolumeStore(folder), np.random.default_rng(1)
    for _ in range(50):
        size = rng.integers(1, np.array(SHAPE) + 1)
        start = rng.integers(0, np.array(SHAPE) - size + 1)
        image = store.crop("a", start, size)
        assert image.dtype == np.int16
        assert np.array_equal(image, hu[box(start, size)])
        assert np.array_equal(store.crop("a", start, size, "label"), label[box(start, size)])
    assert np.array_equal(store.volume("b"), hu[:, :, ::-1])
    assert store.volume("a", "label").dtype == np.uint8


def test_crops_on_chunk_borders(folder, hu):
    store = VolumeStore(folder)
    for start, size in product([(0, 0, 0), (31, 31, 31), (32, 32, 32)], [(1, 1, 1), (32, 9, 33), (35, 9, 65)]):
        assert np.array_equal(store.crop("a", start, size), hu[box(start, size)])


@pytest.mark.parametrize("kind", ["image", "label"])
def test_crops_go_where_they_are_sent(folder, hu, label, kind):
    store, whole = VolumeStore(folder), hu if kind == "image" else label
    out = np.full((31, 5, 61), 9, whole.dtype)
    assert store.crop("a", (30, 29, 3), out.shape, kind, out) is out
    assert np.array_equal(out, whole[30:61, 29:34, 3:64])
    read_only = out.copy()
    read_only.flags.writeable = False
    for wrong in [out.astype(np.int32), out[:, :, :60], np.asfortranarray(out), read_only, out.ravel()]:
        with pytest.raises(
            StoreError, match=rf"^a: out is \w+ of .*; give {whole.dtype} of \(31, 5, 61\), in one piece"
        ):
            store.crop("a", (30, 29, 3), out.shape, kind, wrong)


@pytest.mark.parametrize(
    ("start", "size", "chunks"),
    [((0, 0, 0), (1, 1, 1), 1), ((32, 0, 32), (32, 32, 32), 1), ((31, 31, 31), (2, 2, 2), 8), ((0, 5, 20), SHAPE, 24)],
)
def test_only_touched_chunks_are_read(folder, monkeypatch, start, size, chunks):
    read, store = [], VolumeStore(folder)
    ends = store.record("a").image.ends
    preadv = os.preadv

    def watch(file: int, into: list[memoryview], offset: int) -> int:
        count = len(into[0])
        first, after = np.searchsorted(ends, [offset, offset + count])
        assert ends[first] == offset
        assert ends[after] == offset + count  # whole chunks
        read.extend(map(tuple, np.stack(np.unravel_index(np.arange(first, after), (3, 2, 4)), 1).tolist()))
        return preadv(file, into, offset)

    monkeypatch.setattr(os, "preadv", watch)
    size = np.minimum(size, np.subtract(SHAPE, start))
    store.crop("a", start, size)
    naive = {
        tuple(int(number) for number in place)
        for place in product(*(np.unique(np.arange(a, a + n) // 32) for a, n in zip(start, size, strict=True)))
    }
    assert set(read) == naive
    assert len(read) == len(naive) == chunks


def test_altered_chunk_is_noticed_where_it_is_read_and_only_there(folder, hu):
    path, record = folder / "a.b2nd", VolumeStore(folder).record("a")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4  # random voxels do not compress: the middle of the file is in a middle chunk
    path.write_bytes(data)
    store, wrong = VolumeStore(folder), []
    for place in np.ndindex(3, 2, 4):
        start = np.multiply(place, CHUNK)
        size = np.minimum(CHUNK, np.subtract(SHAPE, start))
        try:
            assert np.array_equal(store.crop("a", start, size), hu[box(start, size)])
        except StoreError as error:
            wrong.append(str(error))
    assert len(wrong) == 1
    assert wrong[0].startswith("a: its voxels are missing, torn")
    with pytest.raises(StoreError, match=r"^a: a\.b2nd is missing, torn or altered; prepare"):
        store.verify("a")
    store.verify("b")
    assert record.image.size == len(data)


def test_every_flipped_byte_is_noticed(folder, label):
    """No crop shows it: chunks carry checksums, and so does what surrounds them, which says where they lie."""
    path, data = folder / "a.label.b2nd", VolumeStore(folder).record("a").label
    good = path.read_bytes()
    assert data is not None
    assert 0 < data.start < data.ends[-1] < len(good)
    for place in range(0, len(good), 11):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x15]) + good[place + 1 :])
        with pytest.raises(StoreError):
            VolumeStore(folder).verify("a")
        with pytest.raises(StoreError, match=r"^a: its voxels are missing, torn"):
            VolumeStore(folder).volume("a", "label")
    path.write_bytes(good)
    assert np.array_equal(VolumeStore(folder).volume("a", "label"), label)


def test_data_without_a_checksum_around_their_chunks_are_checked_whole(folder, label):
    record = VolumeStore(folder).record("a")
    assert record.label is not None
    old = replace(record, label=replace(record.label, frame_crc32=None))
    text = record_text(old)
    assert text.count("frame_crc32") == 1  # the image's
    (folder / "a.json").write_text(text, encoding="utf-8")
    assert np.array_equal(VolumeStore(folder).volume("a", "label"), label)
    path = folder / "a.label.b2nd"
    torn = bytearray(path.read_bytes())
    torn[-3] ^= 1
    path.write_bytes(torn)
    with pytest.raises(StoreError, match=r"^a: its voxels are missing, torn"):
        VolumeStore(folder).volume("a", "label")


def test_data_are_blosc2_arrays_that_others_can_read(folder, hu, label):
    for name, expected in [("a.b2nd", hu), ("a.label.b2nd", label)]:
        assert np.array_equal(blosc2.open(str(folder / name), mode="r")[:], expected)


@pytest.mark.parametrize("value", [0, -1024, 7])
def test_volume_of_one_value(tmp_path, value):
    write_volume(tmp_path, new_volume("flat", np.full(SHAPE, value, np.int16)))
    assert (VolumeStore(tmp_path).volume("flat") == value).all()


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_truncated_data_are_noticed(folder, keep):
    path = folder / "a.b2nd"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(StoreError, match="torn"):
        VolumeStore(folder).crop("a", (0, 0, 0), (3, 3, 3))


def test_data_of_another_volume_are_noticed(folder):
    os.replace(folder / "b.b2nd", folder / "a.b2nd")
    with pytest.raises(StoreError, match=r"^a: its voxels"):
        VolumeStore(folder).crop("a", (0, 0, 0), (3, 3, 3))


@pytest.mark.parametrize(
    ("start", "size", "axis"),
    [
        ((-1, 0, 0), (3, 3, 3), "x"),
        ((0, 39, 0), (3, 3, 3), "y"),
        ((0, 0, 0), (3, 3, 98), "z"),
        ((5, 5, 5), (3, 0, 3), "y"),
    ],
)
def test_crop_outside_names_the_axis(folder, start, size, axis):
    with pytest.raises(StoreError, match=rf"^a: the crop \[.*\) along {axis} leaves the volume's \d+ voxels; .*pad"):
        VolumeStore(folder).crop("a", start, size)


@pytest.mark.parametrize("start", [(0, 0), (0.5, 0, 0)])
def test_crop_wants_three_whole_numbers(folder, start):
    with pytest.raises(StoreError, match="is not three whole numbers"):
        VolumeStore(folder).crop("a", start, (3, 3, 3))


def test_missing_things_are_said(folder, tmp_path):
    store = VolumeStore(folder)
    with pytest.raises(StoreError, match=r"^b: the store has no labels of it; prepare it from a datalist"):
        store.crop("b", (0, 0, 0), (3, 3, 3), "label")
    with pytest.raises(StoreError, match=r"^c: the store has no such volume"):
        store.record("c")
    with pytest.raises(StoreError, match=r"^a: a volume's id is a plain name"):
        store.record("../a")
    with pytest.raises(StoreError, match=r"^a: kind 'mask' is not stored"):
        store.crop("a", (0, 0, 0), (3, 3, 3), "mask")  # type: ignore[arg-type]
    with pytest.raises(StoreError, match=r"^none: there is no such store; make it with: python -m monai_ext prepare"):
        VolumeStore(tmp_path / "none")


def test_records_and_ids(folder):
    store = VolumeStore(folder)
    record = store.record("a")
    assert store.ids == list(store) == ["a", "b"]
    assert len(store) == 2
    assert "a" in store
    assert "c" not in store
    assert (store.has_label("a"), store.has_label("b")) == (True, False)
    assert record.shape == SHAPE
    assert record.body_voxels.tolist() == [[1, 2, 3], [1, 2, 5], [40, 30, 80]]
    assert record.body_box == ((1, 2, 3), (61, 37, 89))
    assert record.label_source == LabelSource("l.nii.gz", "cd" * 32, (0, 7), {7: "liver"})


def test_volumes_added_later_are_seen_when_opened_again(folder, hu):
    store = VolumeStore(folder)
    write_volume(folder, new_volume("c", hu))
    assert store.ids == ["a", "b"]
    assert VolumeStore(folder).ids == ["a", "b", "c"]


def test_volume_prepared_anew_is_not_mixed_with_the_old(folder, hu):
    store, reading = VolumeStore(folder), VolumeStore(folder)
    reading.crop("a", (0, 0, 0), (3, 3, 3))
    write_volume(folder, new_volume("a", hu[::-1]))
    assert np.array_equal(reading.volume("a"), hu)  # the file that it has open is the old one
    with pytest.raises(StoreError, match="open the store again"):
        store.crop("a", (0, 0, 0), (3, 3, 3))


def test_pickle_carries_the_folder_only(folder, hu):
    store = VolumeStore(folder)
    store.crop("a", (0, 0, 0), (3, 3, 3))
    sent = pickle.dumps(store)
    assert len(sent) < 300
    copy = pickle.loads(sent)
    assert np.array_equal(copy.crop("a", (1, 2, 3), (5, 7, 11)), hu[box((1, 2, 3), (5, 7, 11))])
    assert copy.ids == store.ids


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # forking is the point
def test_open_store_survives_a_fork(folder, hu):
    store = VolumeStore(folder)
    store.crop("a", (0, 0, 0), (3, 3, 3))
    expected = hu[box((1, 2, 3), (5, 7, 11))]

    def child() -> None:
        crops = [store.crop("a", (1, 2, 3), (5, 7, 11)) for _ in range(200)]
        os._exit(0 if all(np.array_equal(crop, expected) for crop in crops) else 1)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    for _ in range(200):  # both read the one open file at once
        assert np.array_equal(store.crop("a", (1, 2, 3), (5, 7, 11)), expected)
    process.join(20)
    assert process.exitcode == 0


def test_few_files_are_kept_open(tmp_path, hu):
    for number in range(KEPT + 3):
        write_volume(tmp_path, new_volume(f"v{number:02d}", hu[:43, :37, :89] + np.int16(number)))
    store = VolumeStore(tmp_path)
    for _ in range(2):
        for number, name in enumerate(store):
            assert np.array_equal(store.volume(name), hu[:43, :37, :89] + np.int16(number))
    assert len(store._readers) == KEPT
