"""The scans of a folder: their names, what is left out, and that it is said."""

import logging
import shutil
from pathlib import Path

import pytest

from monai_ext.base import ScanError
from monai_ext.volumes import find_inputs, find_scans


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_label_like_names_are_left_out_aloud(tmp_path, caplog):
    folder = tmp_path / "Doe^Jane"
    touch(folder / "ct.nii.gz", folder / "ct_seg.nii.gz", folder / "labels" / "b.nii.gz")
    with caplog.at_level(logging.WARNING, "monai_ext"):
        assert [scan.case for scan in find_scans(folder)] == ["ct"]
    (message,) = caplog.messages
    assert message.startswith("left out, for named like labels: ct_seg.nii.gz, b.nii.gz; give such a file by itself")
    assert "Doe" not in message
    assert [scan.case for scan in find_scans(folder / "ct_seg.nii.gz")] == ["ct_seg"]


def test_results_of_an_earlier_run_are_no_scans(tmp_path, monkeypatch):
    touch(tmp_path / "a.nii.gz", tmp_path / "out" / "a" / "a_reconstruction.nii.gz", tmp_path / "b" / "out" / "c.nii")
    monkeypatch.chdir(tmp_path)
    for source, avoid in ((tmp_path, tmp_path / "out"), (".", "out"), (tmp_path, "b/../out")):
        assert [scan.case for scan in find_scans(source, avoid)] == ["a", "c"]
    assert [scan.case for scan in find_scans(tmp_path)] == ["a", "c", "a_reconstruction"]


SIDECAR = '{"scan_sha256": "00", "labels": {}}'


def test_results_are_told_by_their_sidecar_wherever_they_lie(tmp_path, caplog):
    touch(tmp_path / "ct_1" / "a.dcm", tmp_path / "ct_2.nii.gz", tmp_path / "ct_3.nii.gz")
    before = [(scan.image, scan.case) for scan in find_scans(tmp_path)]
    labels, lesions, beside = tmp_path / "out" / "ct_1", tmp_path / "old" / "ct_2", tmp_path / "ct_1"
    names = ("seg.nii.gz", "seg.dcm", "seg.png", "second.nii.gz", "second.dcm")
    touch(*(folder / f"ct_1_{name}" for folder in (labels, beside) for name in names))
    for folder in (labels, beside):
        for name in ("seg", "second"):
            (folder / f"ct_1_{name}.json").write_text(SIDECAR)
    touch(*(lesions / f"ct_2_{name}" for name in ("anomaly.nii.gz", "mask.nii.gz", "heatmap.dcm", "candidates.json")))
    touch(lesions / "ct_2_overlay.png")
    with caplog.at_level(logging.WARNING, "monai_ext"):
        assert [(scan.image, scan.case) for scan in find_scans(tmp_path)] == before
    assert caplog.messages == [f"{tmp_path.name}: set aside 14 earlier results"]
    assert [(one.image, one.case) for one in find_inputs(tmp_path)] == before
    for folder in (tmp_path / "out", tmp_path / "old"):
        for find in (find_scans, find_inputs):
            with pytest.raises(ScanError, match=f"^{folder.name}: holds nothing but results of earlier runs"):
                find(folder)
    # What is named itself is taken, and so is what no run vouches for.
    assert [scan.case for scan in find_scans(lesions)] == ["ct_2_anomaly"]
    (lesions / "ct_2_candidates.json").unlink()
    (labels / "ct_1_second.json").write_text('{"labels": {}}')
    found = {scan.case.partition("-")[0] for scan in find_scans(tmp_path)}
    assert found == {"ct_1", "ct_2", "ct_3", "ct_2_anomaly", "ct_1_second"}


def test_a_folder_of_label_like_names_says_so(tmp_path):
    touch(tmp_path / "out" / "a_seg.nii.gz")
    with pytest.raises(ScanError, match=r"^out: the folder holds no scan \(a_seg\.nii\.gz: named like labels\); give"):
        find_scans(tmp_path / "out")


def test_names_stay_when_the_folder_moves_and_however_it_is_named(tmp_path, monkeypatch):
    touch(tmp_path / "here" / "x" / "a.nii", tmp_path / "here" / "y" / "a.nii", tmp_path / "here" / "Größe 1.nii")
    names = [scan.case for scan in find_scans(tmp_path / "here")]
    assert len(set(names)) == 3
    monkeypatch.chdir(tmp_path / "here")
    assert [scan.case for scan in find_scans(".")] == names
    monkeypatch.chdir(tmp_path)
    assert [scan.case for scan in find_scans("here")] == names
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert [scan.case for scan in find_scans("there")] == names
