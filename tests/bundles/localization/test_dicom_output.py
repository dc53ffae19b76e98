"""Localization in a DICOM series as DICOM: mask, map and candidates are those of the other files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from monai.bundle import ConfigWorkflow
from PIL import Image

from monai_ext.base import input_error_in
from monai_ext.outputs import read_dicom_seg
from monai_ext.volumes import open_series

highdicom = pytest.importorskip("highdicom", reason="pip install 'monai-ext[dicom]'")

BUNDLE = "aa_clip_lesion_localization"
Run = Callable[..., ConfigWorkflow]
Series = Callable[..., Path]


def with_balls() -> np.ndarray:
    """Return air, a body of 0 HU, and two balls of 200 HU."""
    x, y, z = np.ogrid[:61, :53, :23]
    voxels = np.full((61, 53, 23), -1000)
    voxels[8:-8, 7:-7] = 0
    for center, radius in (((20, 30, 8), 5), ((40, 18, 15), 4)):
        voxels[sum((axis - at) ** 2 for axis, at in zip((x, y, z), center, strict=True)) <= radius**2] = 200
    return voxels


@pytest.mark.parametrize("axes", [(1, 0, 0, 0, 1, 0), (0.8, 0.6, 0, -0.48, 0.64, 0.6)], ids=["axial", "oblique"])
def test_the_dicom_files_are_the_others(
    run_flow: Run,
    mirror: dict[str, Any],
    write_series: Series,
    tmp_path: Path,
    axes: tuple[float, ...],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = write_series(tmp_path / "PLANTED" / "ct", with_balls(), axes, (1.5, 1.5, 1.5))
    settings = {**mirror, "dataset_dir": str(folder), "output_dir": str(tmp_path / "out"), "dicom_seg": True}
    run_flow(BUNDLE, ["inference"], False, {**settings, "window_hu": [0, 200]})
    out = tmp_path / "out" / "ct"
    assert {"ct_seg.dcm", "ct_heatmap.dcm", "ct_report.dcm"} <= {path.name for path in out.iterdir()}
    series = open_series(folder)
    mask, names = read_dicom_seg(out / "ct_seg.dcm", series.headers())
    np.testing.assert_array_equal(mask, np.asarray(nib.load(out / "ct_mask.nii.gz").dataobj))
    assert names == {1: "candidate"}
    heat = pydicom.dcmread(out / "ct_heatmap.dcm")
    odds = np.asarray(nib.load(out / "ct_anomaly.nii.gz").dataobj)
    place = [float(frame.PlanePositionSequence[0].ImagePositionPatient[2]) for frame in heat[0x52009230].value]
    own = [float(header.ImagePositionPatient[2]) for header in series.headers()]
    for frame, z in zip(heat.pixel_array, place, strict=True):
        np.testing.assert_array_equal(frame.T, odds[:, :, int(np.abs(np.array(own) - z).argmin())])
    told = json.loads((out / "ct_candidates.json").read_text())
    report = highdicom.sr.ComprehensiveSR.from_dataset(pydicom.dcmread(out / "ct_report.dcm"))
    groups = report.content.get_planar_roi_measurement_groups()
    assert len(groups) == len(told["candidates"]) == 2
    for group, row in zip(groups, told["candidates"], strict=True):
        np.testing.assert_array_equal(group.roi.value[0] - 0.5, row["peak_voxel"][:2])
        assert odds[tuple(row["peak_voxel"])] == pytest.approx(row["peak_log_odds"], abs=1e-5)
    caught = capfd.readouterr()
    said = [path.read_bytes().decode("latin1") for path in out.iterdir() if path.suffix != ".dcm"]
    for text in (*said, *map(str, (tmp_path / "out").rglob("*")), caplog.text, caught.out, caught.err):
        assert "PLANTED" not in text.replace(str(tmp_path), "")
        assert "2.25." not in text


def test_files_of_an_earlier_run_go_when_its_results_are_written_anew(
    run_flow: Run, mirror: dict[str, Any], write_series: Series, tmp_path: Path
) -> None:
    folder = write_series(tmp_path / "ct", with_balls(), spacing_mm=(1.5, 1.5, 1.5))
    common = {**mirror, "dataset_dir": str(folder), "output_dir": str(tmp_path / "out"), "window_hu": [0, 200]}
    run_flow(BUNDLE, ["inference"], False, {**common, "dicom_seg": True})
    assert len(list((tmp_path / "out" / "ct").glob("*.dcm"))) == 3
    run_flow(BUNDLE, ["inference"], False, {**common, "dicom_seg": False})
    assert not list((tmp_path / "out" / "ct").glob("*.dcm"))
    assert (tmp_path / "out" / "ct" / "ct_mask.nii.gz").is_file()


def test_pictures_are_refused(run_flow: Run, mirror: dict[str, Any], write_series: Series, tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "ct", with_balls())
    Image.fromarray(np.zeros((31, 37), np.uint8)).save(tmp_path / "in" / "photo.png")
    settings = {**mirror, "dataset_dir": str(tmp_path / "in"), "output_dir": str(tmp_path / "out")}
    with pytest.raises(RuntimeError) as caught:
        run_flow(BUNDLE, ["inference"], False, {**settings, "dicom_seg": True})
    assert str(input_error_in(caught.value)).startswith("dicom_seg: photo: no DICOM series, which DICOM output")
    assert not (tmp_path / "out").exists()
