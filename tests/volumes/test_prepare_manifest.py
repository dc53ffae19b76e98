"""Preparing from a manifest: labels by data set, checksums, origins, and entries that cannot be used."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from monai_ext.base import ManifestError, sha256_of
from monai_ext.volumes import Origin, PrepareSummary, VolumeStore, prepare
from monai_ext.volumes.source_places import told_place

SHAPE = (23, 19, 17)


def fact(value: Any) -> dict[str, Any]:
    return {"value": value, "confidence": "high", "source": []}


def write_nifti(path: Path, voxels: np.ndarray) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels, np.diag([-3.0, -3.0, 3.0, 1]))
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return sha256_of(path)


def write_scan(path: Path, seed: int) -> str:
    hu = np.full(SHAPE, -1000.0)
    hu[4:19, 3:16, 2:15] = 40
    return write_nifti(path, np.rint(hu + np.random.default_rng(seed).normal(0, 8, SHAPE)).astype(np.int16))


def write_label(path: Path, label_id: int) -> str:
    label = np.zeros(SHAPE, np.uint8)
    label[5:9, 4:12, 3:11] = label_id
    return write_nifti(path, label)


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    """A mix of two data sets whose labels mean different things; its scans lie in ``data``."""
    data = tmp_path / "data"
    for number in range(4):
        write_scan(data / "scans" / f"{number}.nii.gz", number)
    write_label(data / "labels" / "0.nii.gz", 2)
    write_label(data / "labels" / "2.nii.gz", 7)
    return {
        "schema_version": "1.0",
        "name": "mix",
        "title": "Mix",
        "status": "Made up for the tests.",
        "datasets": {
            name: {
                "title": fact(name),
                "licence": fact(licence),
                "commercial_use": fact("yes"),
                "label_names": fact({"0": "background", **names}),
            }
            for name, licence, names in (
                ("spleens", "CC-BY-4.0", {"2": "spleen"}),
                ("livers", "CC0-1.0", {"7": "liver"}),
            )
        },
        "sources": {},
        "training": [
            {"id": "s0", "image": "scans/0.nii.gz", "label": "labels/0.nii.gz", "dataset": "spleens", "weight": 2.5},
            {"id": "s1", "image": "scans/1.nii.gz", "dataset": "spleens", "group": "p1"},
            {"id": "l2", "image": "scans/2.nii.gz", "label": "labels/2.nii.gz", "dataset": "livers"},
        ],
        "test": [{"id": "l3", "image": "scans/3.nii.gz", "dataset": "livers", "group": "p3"}],
    }


@pytest.fixture
def run(tmp_path: Path, content: dict[str, Any]) -> Callable[..., PrepareSummary]:
    """Write the content beside the scans and prepare it."""

    def prepared(**options: Any) -> PrepareSummary:
        (tmp_path / "data" / "mix.json").write_text(json.dumps(content), encoding="utf-8")
        return prepare(tmp_path / "data" / "mix.json", tmp_path / "store", spacing_mm=(3, 3, 3), workers=0, **options)

    return prepared


def test_store_keeps_what_the_manifest_says(run, tmp_path):
    assert run().done == ["l2", "l3", "s0", "s1"]
    store = VolumeStore(tmp_path / "store")
    assert {volume_id: store.record(volume_id).origin for volume_id in store} == {
        "s0": Origin("spleens", "CC-BY-4.0", "s0", "training", 2.5),
        "s1": Origin("spleens", "CC-BY-4.0", "p1", "training"),
        "l2": Origin("livers", "CC0-1.0", "l2", "training"),
        "l3": Origin("livers", "CC0-1.0", "p3", "test"),
    }
    assert store.record("s1").source == told_place("scans/1.nii.gz")


def test_labels_mean_what_their_own_data_set_says(run, content, tmp_path):
    run()
    store = VolumeStore(tmp_path / "store")
    names = {volume_id: store.record(volume_id).label_source.names for volume_id in ("s0", "l2")}
    assert names == {"s0": {0: "background", 2: "spleen"}, "l2": {0: "background", 7: "liver"}}
    write_label(tmp_path / "data" / "labels" / "2.nii.gz", 2)  # which only the spleens have
    (failed,) = run().failed
    assert failed.reason.startswith("l2: label ids 2 are not among the classes 0, 7")
    del content["datasets"]["livers"]["label_names"]
    content["labels"] = {"0": "background", "2": "something"}
    assert run().done == ["l2"]  # the list's own names, where the data set has none


def test_sections_choose_splits(run):
    assert run(sections=["test"]).done == ["l3"]
    assert run(sections=["test", "training"]).skipped == ["l3"]
    with pytest.raises(ManifestError, match=r"^mix\.json: no scans in 'validation'; it has 'training', 'test'"):
        run(sections=["validation"])


def test_change_of_origin_reads_no_scan_and_touches_no_voxel(run, content, tmp_path, monkeypatch):
    run()
    store = tmp_path / "store"
    before = {path.name: path.stat().st_mtime_ns for path in store.glob("*.b2nd")}
    sidecar = json.loads((store / "s1.json").read_text())
    monkeypatch.setattr("monai_ext.volumes.prepare_volume.read_scan", None)
    content["training"][1]["weight"] = 0.25
    content["test"][0]["group"] = "p4"
    summary = run()
    assert (summary.done, summary.failed) == (["l3", "s1"], [])
    assert VolumeStore(store).record("s1").origin.weight == 0.25
    assert VolumeStore(store).record("l3").origin.group == "p4"
    assert {path.name: path.stat().st_mtime_ns for path in store.glob("*.b2nd")} == before
    after = json.loads((store / "s1.json").read_text())
    assert {key for key in sidecar if sidecar[key] != after[key]} == {"origin", "checksum"}
    assert run().skipped == ["l2", "l3", "s0", "s1"]


def test_list_without_origins_takes_none_away(run, tmp_path):
    run()
    assert (
        prepare(
            tmp_path / "data" / "scans", tmp_path / "store", workers=0, root=tmp_path / "data", spacing_mm=(3, 3, 3)
        ).failed
        == []
    )
    assert VolumeStore(tmp_path / "store").record("s1").origin.group == "p1"


def test_scan_that_is_redone_keeps_its_origin(run, tmp_path):
    """Else a lost file and a list without origins would make a licence, a patient and a test list unknown."""
    run()
    store = tmp_path / "store"

    def plain(spacing_mm: float) -> list[str]:
        edges = (spacing_mm, spacing_mm, spacing_mm)
        return prepare(tmp_path / "data" / "scans", store, workers=0, root=tmp_path / "data", spacing_mm=edges).done

    (store / "l3.b2nd").unlink()
    assert plain(3) == ["l2", "l3", "s0"]  # two without the labels that the manifest named
    assert VolumeStore(store).record("l3").origin == Origin("livers", "CC0-1.0", "p3", "test")
    assert VolumeStore(store).record("s0").origin.weight == 2.5
    assert plain(4) == ["l2", "l3", "s0", "s1"]
    assert VolumeStore(store).record("s1").origin.group == "p1"
    write_scan(tmp_path / "data" / "scans" / "1.nii.gz", 9)  # another scan, of whom nothing is known
    assert plain(4) == ["s1"]
    assert VolumeStore(store).record("s1").origin is None


def test_declared_checksums_are_compared(run, content, tmp_path):
    data = tmp_path / "data"
    content["training"][0]["sha256"] = sha256_of(data / "scans" / "0.nii.gz")
    content["training"][0]["label_sha256"] = "0f" * 32
    content["training"][1]["sha256"] = "f0" * 32
    summary = run()
    assert summary.done == ["l2", "l3"]
    assert {item.code for item in summary.failed} == {"manifest.checksum"}
    label, image = (item.reason for item in summary.failed)
    assert label.startswith("labels of s0: the SHA-256 is ")
    assert image.startswith(f"s1: the SHA-256 is {sha256_of(data / 'scans' / '1.nii.gz')[:12]}..., while the manifest")
    assert "f0f0f0f0f0f0..." in image
    assert summary.exit_code == 1


def test_entries_that_cannot_be_used_fail_alone(run, content, tmp_path):
    write_scan(tmp_path / "secret.nii.gz", 9)
    os.symlink(tmp_path / "secret.nii.gz", tmp_path / "data" / "link.nii.gz")
    (tmp_path / "data" / "broken.nii.gz").write_bytes(b"")
    content["training"] += [
        {"id": "up", "image": "../secret.nii.gz", "dataset": "livers"},
        {"id": "absolute", "image": str(tmp_path / "secret.nii.gz"), "dataset": "livers"},
        {"id": "link", "image": "link.nii.gz", "dataset": "livers"},
        {"id": "broken", "image": "broken.nii.gz", "dataset": "livers"},
        {"id": "gone", "image": "gone.nii.gz", "dataset": "livers"},
        {"id": "again", "image": "scans/0.nii.gz", "dataset": "livers"},
        {"id": "lone", "label": "labels/0.nii.gz", "dataset": "livers"},
        {"id": "S1", "image": "scans/s1.nii.gz", "dataset": "livers"},
        {"id": "mr", "image": "scans/mr.nii.gz", "dataset": "hearts"},
    ]
    content["validation"] = [{"id": "torn", "image": "scans/9.nii.gz", "dataset": "spleens", "group": "p1"}]
    summary = run()
    assert summary.done == ["l2", "l3", "s0", "s1"]
    failed = {item.code: item.reason for item in summary.failed}
    assert len(summary.failed) == 10
    assert set(failed) == {
        "manifest.outside_root",
        "scan.damaged",
        "scan.missing",
        "manifest.image_twice",
        "manifest.label_alone",
        "manifest.duplicate_id",
        "manifest.dataset",
        "manifest.patient_in_two_splits",
    }
    assert failed["manifest.patient_in_two_splits"].startswith("torn: validation (torn): patient 'p1' of spleens is in")
    assert "again: s0 has the same image" in failed["manifest.image_twice"]
    for item in summary.failed:
        assert str(tmp_path) not in item.reason
        assert ";" in item.reason
    assert summary.exit_code == 1


def test_manifest_of_another_version_is_refused(run, content, tmp_path):
    content["schema_version"] = "2.0"
    with pytest.raises(ManifestError, match=r"schema_version is '2\.0'"):
        run()
    assert not (tmp_path / "store").exists()
