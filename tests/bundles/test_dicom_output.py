"""Segmentation of a DICOM series as DICOM: the same labels as the NIfTI, and nothing about the patient elsewhere."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from monai.bundle import ConfigWorkflow

import monai_ext
from monai_ext.base import input_error_in
from monai_ext.outputs import read_dicom_seg
from monai_ext.volumes import open_series

pytest.importorskip("highdicom", reason="pip install 'monai-ext[dicom]'")

BUNDLE = "hi_end_mae_ct_segmentation"
Run = Callable[..., ConfigWorkflow]
Series = Callable[..., Path]
LABELS = {"0": "background", "1": "liver", "2": "kidney_right", "3": "thing"}


@pytest.fixture
def settings(segment_settings: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Settings with weights that were never trained."""
    folder = Path(monai_ext.bundle_path(BUNDLE)) / "configs"
    files = [str(folder / f"{name}.json") for name in ("inference", "tiny")]
    torch.manual_seed(4)
    flow = ConfigWorkflow(config_file=files, workflow_type="infer", **segment_settings, labels=LABELS)
    flow.initialize()
    torch.save(flow.network_def.state_dict(), tmp_path / "model.pt")
    weights = str(tmp_path / "model.pt")
    return {**segment_settings, "labels": LABELS, "weights": weights, "output_dir": str(tmp_path / "out")}


def body() -> np.ndarray:
    voxels = np.full((43, 37, 13), -1000)
    voxels[6:-6, 5:-5] = np.random.default_rng(2).integers(-90, 160, (31, 27, 13))
    return voxels


def everything_said(folder: Path) -> str:
    """Return names and content of all files but DICOM, and names of all."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    texts = [path.read_bytes().decode("latin1") for path in files if path.suffix != ".dcm"]
    return "\n".join([*(str(path.relative_to(folder)) for path in files), *texts])


@pytest.mark.parametrize("axes", [(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1)], ids=["axial", "sagittal"])
def test_seg_and_nifti_hold_the_same_labels(
    run_flow: Run,
    settings: dict[str, Any],
    write_series: Series,
    tmp_path: Path,
    axes: tuple[float, ...],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = write_series(tmp_path / "PLANTED" / "scan", body(), axes, (3.5, 4.5, 7.5), backwards=True)
    run_flow(BUNDLE, ["inference", "tiny"], False, {**settings, "dataset_dir": str(folder), "dicom_seg": True})
    out = tmp_path / "out" / "scan"
    assert {path.name for path in out.iterdir()} == {
        "scan_seg.nii.gz",
        "scan_seg.json",
        "scan_seg.dcm",
        "scan_provenance.json",
    }
    labels, names = read_dicom_seg(out / "scan_seg.dcm", open_series(folder).headers())
    written = np.asarray(nib.load(out / "scan_seg.nii.gz").dataobj)
    np.testing.assert_array_equal(labels, written)
    assert len(np.unique(labels)) > 1
    assert names == {1: "liver", 2: "kidney_right", 3: "thing"}
    seg = pydicom.dcmread(out / "scan_seg.dcm")
    assert (seg.PatientName, seg.SegmentSequence[0].SegmentAlgorithmName) == (
        "PLANTED^NAME",
        "Hi-End-MAE CT segmentation",
    )
    caught = capfd.readouterr()
    for said in (everything_said(tmp_path / "out"), caplog.text, caught.out, caught.err):
        assert "PLANTED" not in said
        assert "2.25." not in said


def test_without_the_switch_there_is_no_dicom(
    run_flow: Run, settings: dict[str, Any], write_series: Series, tmp_path: Path
) -> None:
    folder = write_series(tmp_path / "scan", body(), spacing_mm=(3.5, 4.5, 7.5))
    run_flow(BUNDLE, ["inference", "tiny"], False, {**settings, "dataset_dir": str(folder), "dicom_seg": "false"})
    assert {path.name for path in (tmp_path / "out" / "scan").iterdir()} == {
        "scan_seg.nii.gz",
        "scan_seg.json",
        "scan_provenance.json",
    }


def test_a_seg_of_an_earlier_run_goes_when_its_labels_are_written_anew(
    run_flow: Run, settings: dict[str, Any], write_series: Series, tmp_path: Path
) -> None:
    folder = write_series(tmp_path / "scan", body(), spacing_mm=(3.5, 4.5, 7.5))
    out, common = tmp_path / "out" / "scan", {**settings, "dataset_dir": str(folder)}
    run_flow(BUNDLE, ["inference", "tiny"], False, {**common, "dicom_seg": True})
    assert (out / "scan_seg.dcm").is_file()
    run_flow(BUNDLE, ["inference", "tiny"], False, {**common, "dicom_seg": False})
    assert {path.name for path in out.iterdir()} == {"scan_seg.nii.gz", "scan_seg.json", "scan_provenance.json"}
    # What somebody else put there is not ours to remove.
    for content in (next(folder.iterdir()).read_bytes(), b"no DICOM"):
        (out / "scan_seg.dcm").write_bytes(content)
        run_flow(BUNDLE, ["inference", "tiny"], False, {**common, "dicom_seg": False})
        assert (out / "scan_seg.dcm").read_bytes() == content


def test_nifti_input_is_refused_before_anything_is_done(
    run_flow: Run, settings: dict[str, Any], phantoms: Path, tmp_path: Path
) -> None:
    source = phantoms / "images" / "phantom_test_00.nii.gz"
    with pytest.raises(RuntimeError) as caught:
        run_flow(BUNDLE, ["inference", "tiny"], False, {**settings, "dataset_dir": str(source), "dicom_seg": True})
    assert str(input_error_in(caught.value)) == (
        "dicom_seg: phantom_test_00: no DICOM series, which DICOM output belongs to; give DICOM series alone, or set "
        "dicom_seg to false"
    )
    assert not (tmp_path / "out").exists()


def test_a_series_that_cannot_be_referred_to_is_named_and_the_others_go_on(
    run_flow: Run,
    settings: dict[str, Any],
    write_series: Series,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_series(tmp_path / "scans" / "good", body(), spacing_mm=(3.5, 4.5, 7.5))
    write_series(tmp_path / "scans" / "lost", body(), FrameOfReferenceUID="", SeriesInstanceUID="2.25.81")
    looked_at: list[int] = []
    network = monai_ext.networks.HiEndSegmenter.forward
    monkeypatch.setattr(
        monai_ext.networks.HiEndSegmenter,
        "forward",
        lambda self, volume: (looked_at.append(len(volume)), network(self, volume))[1],
    )
    with pytest.raises(RuntimeError) as caught:
        run_flow(
            BUNDLE,
            ["inference", "tiny"],
            False,
            {**settings, "dataset_dir": str(tmp_path / "scans"), "dicom_seg": True, "sw_batch_size": 99},
        )
    sentence = str(input_error_in(caught.value))
    assert sentence.startswith("1 of 2 scans failed: lost: the series has no FrameOfReferenceUID, by which")
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == ["good"]
    assert len(looked_at) == 1  # the other was refused without it


def test_nothing_is_left_when_one_of_the_files_cannot_be(
    run_flow: Run,
    settings: dict[str, Any],
    write_series: Series,
    tmp_path: Path,
) -> None:
    folder = write_series(tmp_path / "scan", body(), spacing_mm=(3.5, 4.5, 7.5))
    names = {**LABELS, "3": "x" * 65}
    with pytest.raises(RuntimeError) as caught:
        run_flow(
            BUNDLE,
            ["inference", "tiny"],
            False,
            {**settings, "labels": names, "dataset_dir": str(folder), "dicom_seg": True},
        )
    assert "the name of id 3 does not fit a DICOM SEG" in str(input_error_in(caught.value))
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["provenance.json"]


def test_the_real_series(
    run_flow: Run, settings: dict[str, Any], repaired_jpeg2000: Path, shared_ct: Path, tmp_path: Path
) -> None:
    run_flow(
        BUNDLE, ["inference", "tiny"], False, {**settings, "dataset_dir": str(repaired_jpeg2000), "dicom_seg": True}
    )
    out = tmp_path / "out" / "ct_jpeg2000"
    labels, _ = read_dicom_seg(out / "ct_jpeg2000_seg.dcm", open_series(repaired_jpeg2000).headers())
    np.testing.assert_array_equal(labels, np.asarray(nib.load(out / "ct_jpeg2000_seg.nii.gz").dataobj))
    assert "PLANTED" not in everything_said(tmp_path / "out")
    assert json.loads((out / "ct_jpeg2000_seg.json").read_text())["case"] == "ct_jpeg2000"
    # As it came, its UIDs are empty.
    source = {**settings, "dataset_dir": str(shared_ct / "dicom_jpeg2000"), "dicom_seg": True}
    with pytest.raises(RuntimeError) as caught:
        run_flow(BUNDLE, ["inference", "tiny"], False, source)
    assert "dicom_jpeg2000: the series has no SOPClassUID, SOPInstanceUID, StudyInstanceUID, SeriesInstanceUID" in str(
        input_error_in(caught.value)
    )
