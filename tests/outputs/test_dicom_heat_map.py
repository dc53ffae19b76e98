"""Parametric maps and reports: numbers and places come back, and nothing is claimed to be more than research."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from monai_ext.base import GeometryError, ScanError, SettingError, WriteError
from monai_ext.outputs import find_candidates, write_heat_map, write_lesion_report
from monai_ext.outputs.candidates import candidate_rows
from monai_ext.volumes import DicomSeries, open_series

highdicom = pytest.importorskip("highdicom", reason="pip install 'monai-ext[dicom]'")

Series = Callable[..., Path]
SHAPE = (13, 11, 7)
AXES = {"axial": (1, 0, 0, 0, 1, 0), "oblique": (0.8, 0.6, 0.0, -0.48, 0.64, 0.6), "sagittal": (0, 1, 0, 0, 0, -1)}
HEAT: dict[str, Any] = {"quantity": "anomaly log-odds", "algorithm": "AA-CLIP", "version": "1.2", "case": "case_7"}
REPORT: dict[str, Any] = {"algorithm": "AA-CLIP", "version": "1.2", "case": "case_7"}


def odds() -> np.ndarray:
    return np.random.default_rng(4).normal(-3, 2, SHAPE).astype(np.float32)


def rows(series: DicomSeries, rate: float | None = None) -> list[dict[str, Any]]:
    found = find_candidates(odds(), 1.5)[1]
    assert len(found) > 3
    told = candidate_rows(found, series.affine, [rate] * len(found))
    return [row | {"calibration": "uncalibrated"} for row in told] if rate is None else told


@pytest.fixture
def series(write_series: Series, tmp_path: Path) -> DicomSeries:
    return open_series(write_series(tmp_path / "ct", np.random.default_rng(5).integers(-200, 300, SHAPE)))


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("axes", list(AXES))
def test_every_number_lies_where_it_did(write_series: Series, tmp_path: Path, axes: str, backwards: bool) -> None:
    hu = np.random.default_rng(5).integers(-200, 300, SHAPE)
    series = open_series(write_series(tmp_path / "ct", hu, AXES[axes], backwards=backwards))
    path = write_heat_map(tmp_path / "a.dcm", odds(), series.affine, series.headers(), **HEAT)
    data = pydicom.dcmread(path)
    assert data.pixel_array.dtype == np.float32
    assert len(data.pixel_array) == SHAPE[2]
    for frame, group in zip(data.pixel_array, data.PerFrameFunctionalGroupsSequence, strict=True):
        lps = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        index = np.linalg.solve(series.affine, [-lps[0], -lps[1], lps[2], 1])
        np.testing.assert_allclose(index[:2], 0, atol=1e-4)
        np.testing.assert_array_equal(frame.T, odds()[:, :, round(index[2])])


def test_what_a_map_says_of_itself(series: DicomSeries, tmp_path: Path) -> None:
    data = pydicom.dcmread(write_heat_map(tmp_path / "a.dcm", odds(), series.affine, series.headers(), **HEAT))
    assert data.SeriesDescription == "anomaly log-odds (for research use only)"
    assert (data.ContentQualification, data.ContentDescription) == ("RESEARCH", "For research use only")
    assert data.DerivationDescription == "AA-CLIP 1.2"
    mapping = data.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert (mapping.LUTExplanation, mapping.RealWorldValueSlope) == ("anomaly log-odds", 1)
    assert mapping.DoubleFloatRealWorldValueFirstValueMapped == odds().min()
    assert data.FrameOfReferenceUID == "2.25.6"
    assert len(data.SourceImageSequence) == SHAPE[2]


def test_maps_that_cannot_be(series: DicomSeries, tmp_path: Path) -> None:
    bad = odds()
    bad[1, 2, 3] = np.nan
    with pytest.raises(WriteError, match=r"case_7: 1 of 1001 numbers are NaN or infinite"):
        write_heat_map(tmp_path / "a.dcm", bad, series.affine, series.headers(), **HEAT)
    with pytest.raises(GeometryError, match="not on the grid of the DICOM series"):
        write_heat_map(tmp_path / "a.dcm", odds()[::-1], -series.affine, series.headers(), **HEAT)
    headers = series.headers()
    del headers[0].FrameOfReferenceUID
    with pytest.raises(ScanError, match="has no FrameOfReferenceUID"):
        write_heat_map(tmp_path / "a.dcm", odds(), series.affine, headers, **HEAT)
    with pytest.raises(SettingError, match="quantity"):
        write_heat_map(tmp_path / "a.dcm", odds(), series.affine, series.headers(), **{**HEAT, "quantity": "x" * 50})
    flat = write_heat_map(tmp_path / "a.dcm", odds() * 0, series.affine, series.headers(), **HEAT)
    assert not pydicom.dcmread(flat).pixel_array.any()


def test_a_map_that_reads_back_otherwise_is_not_kept(
    series: DicomSeries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(self: pydicom.Dataset, path: Path) -> None:
        self.FloatPixelData = self.FloatPixelData[4:] + self.FloatPixelData[:4]
        pydicom.Dataset.save_as(self, path)

    monkeypatch.setattr(highdicom.pm.ParametricMap, "save_as", spoilt, raising=False)
    with pytest.raises(WriteError, match="case_7: the DICOM map reads back otherwise"):
        write_heat_map(tmp_path / "a.dcm", odds(), series.affine, series.headers(), **HEAT)
    assert [path.name for path in tmp_path.iterdir()] == ["ct"]


@pytest.mark.parametrize("rate", [None, 0.05])
def test_a_report_tells_each_candidate(series: DicomSeries, tmp_path: Path, rate: float | None) -> None:
    path = write_lesion_report(tmp_path / "a.dcm", rows(series, rate), series.headers(), **REPORT)
    report = highdicom.sr.ComprehensiveSR.from_dataset(pydicom.dcmread(path))
    groups = report.content.get_planar_roi_measurement_groups()
    headers = series.headers()
    for group, row in zip(groups, rows(series, rate), strict=True):
        assert group.tracking_identifier == f"candidate {row['number']}"
        assert group.finding_type.meaning == "Lesion"
        column, line = group.roi.value[0]
        x, y, z = row["peak_voxel"]
        assert (column, line) == (x + 0.5, y + 0.5)
        (image,) = group.roi.ContentSequence
        assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == headers[z].SOPInstanceUID
        told = {one.name.meaning: one.value for one in group.get_measurements()}
        assert told["Volume"] == pytest.approx(row["volume_mm3"])
        assert told["Peak log-odds"] == pytest.approx(row["peak_log_odds"])
        assert told.get("False positive rate") == rate
        said = {one.value.meaning for one in group.get_qualitative_evaluations()}
        assert ("uncalibrated" in said) == (rate is None)
    (count,) = report.content.get_image_measurement_groups()
    assert count.get_measurements()[0].value == len(groups)
    assert (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    assert report.SeriesDescription == "Lesion candidates (for research use only)"
    assert report.CompletionFlagDescription == "For research use only"


def test_a_report_of_nothing_found_says_so(series: DicomSeries, tmp_path: Path) -> None:
    path = write_lesion_report(tmp_path / "a.dcm", [], series.headers(), **REPORT)
    report = highdicom.sr.ComprehensiveSR.from_dataset(pydicom.dcmread(path))
    assert not report.content.get_planar_roi_measurement_groups()
    (count,) = report.content.get_image_measurement_groups()
    assert (count.get_measurements()[0].name.meaning, count.get_measurements()[0].value) == ("Number of candidates", 0)


def test_candidates_of_another_scan_are_refused(series: DicomSeries, tmp_path: Path) -> None:
    elsewhere = rows(series)
    elsewhere[2]["peak_voxel"] = [3, 2, 7]
    with pytest.raises(GeometryError, match="case_7: the peak of candidate 3 lies outside the DICOM series"):
        write_lesion_report(tmp_path / "a.dcm", elsewhere, series.headers(), **REPORT)


def test_dciodvfy_finds_no_error(repaired_series: Path, dciodvfy: str, tmp_path: Path) -> None:
    series = open_series(repaired_series)
    headers = series.headers()
    values = np.random.default_rng(4).normal(-3, 2, series.shape)
    row = rows(open_series(repaired_series))[0]
    write_heat_map(tmp_path / "heat.dcm", values, series.affine, headers, **HEAT)
    write_lesion_report(tmp_path / "some.dcm", [row], headers, **REPORT)
    write_lesion_report(tmp_path / "none.dcm", [], headers, **REPORT)
    source = errors(dciodvfy, series.files[0], "CTImage")
    assert errors(dciodvfy, tmp_path / "heat.dcm", "ParametricMap") <= source
    assert errors(dciodvfy, tmp_path / "some.dcm", "ComprehensiveSR") <= source
    assert errors(dciodvfy, tmp_path / "none.dcm", "ComprehensiveSR") <= source


def errors(dciodvfy: str, path: Path, kind: str) -> set[str]:
    found = subprocess.run([dciodvfy, str(path)], capture_output=True, encoding="utf-8")
    lines = (found.stdout + found.stderr).splitlines()
    assert kind in lines
    return {line for line in lines if line.startswith(("Error", "Abort"))}
