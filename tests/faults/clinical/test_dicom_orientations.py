"""DICOM series of every lie through the segmentation: NIfTI and SEG, read by others, lie where the marks lie."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK

from monai_ext.base import GeometryError
from monai_ext.volumes import open_series, read_scan

FAMILY = "orientations, DICOM"
AXES = {
    "axial": (1, 0, 0, 0, 1, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "prone": (-1, 0, 0, 0, -1, 0),
    "feet_first": (-1, 0, 0, 0, 1, 0),
    "oblique": (0.8, 0.6, 0.0, -0.48, 0.64, 0.6),
}
SPACING_MM, SHAPE = (1.1, 1.7, 2.3), (47, 37, 31)


@pytest.fixture
def series(write_series: Callable[..., Path], patient: Any, tmp_path: Path) -> Callable[..., Path]:
    """Sample the patient where the attributes of a series place its voxels (PS3.3 C.7.6.2.1.1)."""

    def write(name: str, axes: tuple[float, ...], **changes: Any) -> Path:
        across, down = np.array(axes[:3]), np.array(axes[3:])
        lps = np.eye(4)
        lps[:3, :3] = np.stack([across, down, np.cross(across, down)], axis=1) * SPACING_MM
        ras = np.diag([-1.0, -1, 1, 1]) @ lps
        # The fixture's series begin at this point; the patient is brought there.
        ras[:3, 3] = patient.centre_mm - ras[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
        hu = patient.hu(ras, SHAPE)
        folder = write_series(tmp_path / "scans" / name, hu, axes, SPACING_MM, **changes)
        start = np.diag([-1.0, -1, 1]) @ ras[:3, 3]
        for path in folder.iterdir():
            data = pydicom.dcmread(path)
            place = np.array(data.ImagePositionPatient, float) - (-10, 20.5, 30) + start
            data.ImagePositionPatient = [round(float(value), 6) for value in place]
            data.SeriesInstanceUID = f"2.25.8{sum(map(ord, name))}"
            data.save_as(path)
        return folder

    return write


def by_gdcm(folder: Path) -> SimpleITK.Image:
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def misplaced_in_seg(path: Path, patient: Any) -> list[str]:
    """Find each segment's centroid frame by frame in LPS mm, by nothing but the file's own attributes."""
    data = pydicom.dcmread(path)
    shared = data.SharedFunctionalGroupsSequence[0]
    axes = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    spacing = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, float)
    points: dict[int, list[np.ndarray]] = {}
    frames = data.pixel_array.reshape(-1, data.Rows, data.Columns)
    for frame, group in zip(frames, data.PerFrameFunctionalGroupsSequence, strict=True):
        rows, columns = np.nonzero(frame)
        origin = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        place = origin + columns[:, None] * spacing[1] * axes[:3] + rows[:, None] * spacing[0] * axes[3:]
        points.setdefault(int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber), []).append(place)
    names = {int(item.SegmentNumber): str(item.SegmentLabel) for item in data.SegmentSequence}
    problems = [] if names == {n: patient.names[str(n)] for n in patient.balls} else [f"names are {names}"]
    for number, ball in patient.balls.items():
        centre = np.concatenate(points.get(number, [np.full((1, 3), np.inf)])).mean(axis=0) * (-1, -1, 1)
        if not np.linalg.norm(centre - ball) < 0.5 * min(SPACING_MM):
            problems.append(f"segment {number} lies {np.linalg.norm(centre - ball):.2f} mm away")
    return problems


@pytest.mark.parametrize(
    ("names", "backwards"),
    [
        (["sagittal", "oblique"], True),
        *(pytest.param(list(AXES), way, marks=pytest.mark.full) for way in (False, True)),
    ],
)
def test_marks_lie_where_they_do_in_the_patient(
    series: Callable[..., Path],
    segment: Callable[..., Path],
    patient: Any,
    tmp_path: Path,
    notes: Any,
    names: list[str],
    backwards: bool,
) -> None:
    highdicom = pytest.importorskip("highdicom", reason="pip install 'monai-ext[dicom]'")
    folders = {name: series(name, AXES[name], backwards=backwards) for name in names}
    segment(tmp_path / "scans", tmp_path / "out", dicom_seg=True, image_size=[48, 44, 48])
    for name, folder in folders.items():
        source = tmp_path / f"{name}.nrrd"
        SimpleITK.WriteImage(by_gdcm(folder), str(source))
        out = tmp_path / "out" / name
        written = out / f"{name}_seg.nii.gz"
        problems = patient.problems(source, written)
        seg_path = out / f"{name}_seg.dcm"
        problems += misplaced_in_seg(seg_path, patient)
        uids = [header.SOPInstanceUID for header in open_series(folder).headers()]
        seg = highdicom.seg.segread(seg_path)
        found = seg.get_pixels_by_source_instance(uids, combine_segments=True, assert_missing_frames_are_empty=True)
        labels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(written)))
        if not np.array_equal(found, labels):
            problems.append("highdicom finds other labels than the NIfTI holds")
        notes(FAMILY, f"{name}{' backwards' if backwards else ''}", problems)
    assert not notes.wrong


@pytest.mark.parametrize("how", ["by positions", "by the attribute alone", "by the attribute of one slice"])
def test_a_tilted_gantry_is_refused(series: Callable[..., Path], notes: Any, how: str) -> None:
    folder = series("tilted", AXES["axial"])
    for number, path in enumerate(sorted(folder.iterdir())):
        data = pydicom.dcmread(path)
        x, y, z = (float(value) for value in data.ImagePositionPatient)
        if how == "by positions":
            data.ImagePositionPatient = [x, round(y + np.tan(np.radians(7.3)) * z, 6), z]
        elif how == "by the attribute alone" or number == 9:
            data.GantryDetectorTilt = 7.3
        data.save_as(path)
    problems: list[str] = []
    try:
        read_scan(folder)
        problems.append("it was read")
    except GeometryError as error:
        problems += [] if error.code == "dicom.tilt" and "7.3 degrees" in str(error) else [str(error)]
    notes(FAMILY, f"gantry tilt {how}", problems, good="caught")
    assert not notes.wrong
