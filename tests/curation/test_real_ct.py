"""Real CT, NIfTI and DICOM with third-party labels, from a folder to a verified manifest."""

import json
from pathlib import Path
from typing import Any

from monai_ext.curation import build_manifest, verify_manifest

SCANS = {
    "abdomen_slab_3mm.nii.gz": "abdomen_slab_3mm_organs.nii.gz",
    "heart_1p5mm.nii.gz": "heart_1p5mm_pulmonary_artery.nii.gz",
    "torso_3mm.nii.gz": "torso_3mm_vertebrae.nii.gz",
    "dicom_jpeg2000/": "dicom_jpeg2000_organs.nii.gz",
}


def test_real_scans_are_listed_and_sound(shared_ct: Path, tmp_path: Path, card: dict[str, Any]) -> None:
    described = card["datasets"]["toys"]
    described["layout"] = [{"image": image, "label": label, "split": "training"} for image, label in SCANS.items()]
    described["label_names"]["value"] = {str(number): f"structure {number}" for number in range(118)}
    (tmp_path / "ours.json").write_text(json.dumps(card))
    path = tmp_path / "manifest.json"
    summary = build_manifest(shared_ct, path, dataset=str(tmp_path / "ours.json"), jobs=0)
    assert summary.problems == []
    assert [(entry.image, entry.label) for entry in summary.manifest.entries] == sorted(
        (image.rstrip("/"), label) for image, label in SCANS.items()
    )
    found = verify_manifest(path, shared_ct, jobs=0, deep=True)
    assert (found.problems, found.notes) == ([], [])
    assert len(found.manifest.entries) == 4


def test_labels_of_another_scan_do_not_fit(shared_ct: Path, tmp_path: Path, card: dict[str, Any]) -> None:
    described = card["datasets"]["toys"]
    wrong = {"dicom_jpeg2000/": SCANS["torso_3mm.nii.gz"], "torso_3mm.nii.gz": SCANS["dicom_jpeg2000/"]}
    described["layout"] = [{"image": image, "label": label, "split": "training"} for image, label in wrong.items()]
    del described["label_names"]
    (tmp_path / "ours.json").write_text(json.dumps(card))
    path = tmp_path / "manifest.json"
    build_manifest(shared_ct, path, dataset=str(tmp_path / "ours.json"), jobs=0, checksums=False)
    found = verify_manifest(path, shared_ct, jobs=0, checksums=False)
    assert [(problem.kind, problem.case) for problem in found.problems] == [
        ("label.shape", "dicom_jpeg2000"),
        ("label.shape", "torso_3mm"),
    ]
