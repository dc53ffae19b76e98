"""Sidecars return what was written, and are refused when torn, altered, foreign or newer."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from monai_ext.base import StoreError
from monai_ext.volumes import Origin, StoreRecord, VolumeStore
from monai_ext.volumes.store_record import ChunkedData, LabelSource, pack, pack_voxels, unpack_voxels
from monai_ext.volumes.store_sidecar import read_record, record_text, sidecar_path

SHAPE = (37, 29, 101)
SIZES = (500, 400, 0, 300, 700, 600, 900, 800)


@pytest.fixture
def record() -> StoreRecord:
    data = ChunkedData("int16", (32, 32, 32), 4711, "ef" * 32, 200, pack(SIZES), pack(range(8)))
    return StoreRecord(
        id="scan",
        shape=SHAPE,
        affine=np.diag([1.5, 1.5, 1.5, 1]) + np.eye(4, k=3) / 3,
        spacing_mm=(1.5, 1.5, 1.5),
        source="train/scan.nii.gz",
        source_root="0123abcd",
        source_sha256="ab" * 32,
        source_shape=(19, 17, 53),
        source_affine=np.diag([-3, -3, 3, 1.0]),
        settings={"orientation": "RAS", "spacing_mm": [1.5, 1.5, 1.5]},
        body_box=((0, 1, 2), (37, 28, 99)),
        packed_body=pack_voxels(np.array([[0, 1, 2], [36, 27, 98]]), SHAPE),
        image=data,
        label=None,
        label_source=LabelSource("l.nii.gz", "cd" * 32, (0, 1), {1: "liver"}),
        origin=Origin("msd_spleen", "CC-BY-SA-4.0", "patient_3", "training", 0.3),
    )


@pytest.fixture
def path(tmp_path: Path, record: StoreRecord) -> Path:
    path = sidecar_path(tmp_path, "scan")
    path.write_text(record_text(record))
    return path


def test_round_trip(path, record):
    read = read_record(path)
    assert record_text(read) == record_text(record)
    assert np.array_equal(read.affine, record.affine)  # every digit of a float64 is in the text
    assert read.image.sums.tolist() == list(range(8))
    assert read.image.ends.tolist() == [200, 700, 1100, 1100, 1400, 2100, 2700, 3600, 4400]
    assert read.label_source == record.label_source
    assert read.origin == record.origin == Origin("msd_spleen", "CC-BY-SA-4.0", "patient_3", "training", 0.3)


def sealed(content: dict[str, object]) -> str:
    """Return a sidecar's text with the checksum that its content asks for."""
    content.pop("checksum")
    checksum = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return json.dumps({**content, "checksum": checksum})


def test_sidecar_of_before_there_were_origins_opens(path, record):
    content = json.loads(path.read_text())
    del content["origin"]
    path.write_text(sealed(content))
    assert read_record(path).origin is None
    assert read_record(path).source == record.source


@pytest.mark.parametrize(("key", "value"), [("weight", -1), ("weight", float("nan")), ("group", 7), ("dataset", None)])
def test_origin_that_cannot_be_is_refused(path, key, value):
    content = json.loads(path.read_text())
    content["origin"][key] = value
    path.write_text(sealed(content))
    with pytest.raises(StoreError, match=r"^scan: its sidecar is torn or was altered"):
        read_record(path)


def test_voxels_pack_and_unpack():
    flat = np.sort(np.random.default_rng(0).choice(np.prod(SHAPE), 4096, replace=False))
    voxels = np.stack(np.unravel_index(flat, SHAPE), axis=1)
    packed = pack_voxels(voxels, SHAPE)
    assert np.array_equal(unpack_voxels(packed, SHAPE), voxels)
    assert len(packed) < 2 * len(voxels)  # ten thousand sidecars are read when a store opens


@pytest.mark.parametrize("keep", [0, 1, 500, -3])
def test_torn_sidecar(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(StoreError, match=r"^scan: its sidecar is torn or was altered; .* delete scan\.json") as caught:
        VolumeStore(path.parent)
    assert caught.value.code == "store.torn"


def test_any_altered_digit_is_noticed(path):
    good = path.read_bytes()
    for place in [index for index, letter in enumerate(good) if chr(letter).isdigit()][::5]:
        digit = b"5" if good[place : place + 1] != b"5" else b"6"
        path.write_bytes(good[:place] + digit + good[place + 1 :])
        with pytest.raises(StoreError):
            read_record(path)


def test_renamed_sidecar(path):
    path.rename(path.with_name("other.json"))
    with pytest.raises(StoreError, match=r"^other: its sidecar is torn or was altered"):
        read_record(path.with_name("other.json"))


@pytest.mark.parametrize("text", ["[]", "{}", '{"training": []}', "null"])
def test_foreign_file(path, text):
    path.write_text(text)
    with pytest.raises(StoreError, match=r"^scan\.json: not a sidecar of a volume store; move it out") as caught:
        VolumeStore(path.parent)
    assert caught.value.code == "store.foreign"


def test_newer_version(path):
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 2}))
    with pytest.raises(StoreError, match=r"^scan: store format 2, while this monai-ext reads 1; upgrade") as caught:
        read_record(path)
    assert caught.value.code == "store.version"


def test_deeply_nested_text_is_torn(path):
    path.write_text("[" * 200_000)
    with pytest.raises(StoreError, match="torn"):
        read_record(path)
