"""Air, water and a marker keep their HU to the unit, however slices and headers scale what they store."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK

from monai_ext.base import ScanError
from monai_ext.volumes import VolumeStore, prepare, read_scan

FAMILY = "HU"
SHAPE = (13, 11, 7)
AIR, WATER, MARKER = -1024, 0, 1240


def true_hu() -> np.ndarray:
    hu = np.full(SHAPE, AIR)
    hu[2:-2, 2:-2] = WATER
    hu[5:8, 4:7] = MARKER
    return hu


def stored(folder: Path, encode: Callable[[int], dict[str, Any]]) -> Path:
    """Store each slice anew: its slope, intercept, sign and bits as ``encode`` says."""
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        index = int(str(data.SOPInstanceUID).rpartition(".")[2]) - 1
        for keyword, value in encode(index).items():
            setattr(data, keyword, value)
        data.HighBit = data.BitsStored - 1
        values = (true_hu()[:, :, index].T - float(data.RescaleIntercept)) / float(data.RescaleSlope)
        assert np.array_equal(values, np.rint(values)), "the case itself must be exact"
        low = -(1 << data.BitsStored - 1) if data.PixelRepresentation else 0
        assert low <= values.min() <= values.max() < low + (1 << data.BitsStored)
        if data.BitsStored == 12 and data.PixelRepresentation:  # negative numbers fill 12 bits, not 16
            values = values.astype(np.int64) & 0xFFF
        data.PixelData = values.astype("<i2" if data.PixelRepresentation else "<u2").tobytes()
        data["PixelData"].VR = "OW"
        data.save_as(path)
    return folder


ENCODINGS: dict[str, Callable[[int], dict[str, Any]]] = {
    "unsigned 16": lambda k: {"RescaleSlope": 1, "RescaleIntercept": -1024},
    "signed 16": lambda k: {"PixelRepresentation": 1, "RescaleSlope": 1, "RescaleIntercept": 0},
    "unsigned 12": lambda k: {"BitsStored": 12, "RescaleSlope": 1, "RescaleIntercept": -1024},
    "signed 12": lambda k: {"BitsStored": 12, "PixelRepresentation": 1, "RescaleSlope": 1, "RescaleIntercept": 0},
    "intercept of its own each slice": lambda k: {"RescaleSlope": 1, "RescaleIntercept": -1024 - 8 * k},
    "slope of its own each slice": lambda k: {"RescaleSlope": (0.5, 1, 2, 4)[k % 4], "RescaleIntercept": -1024},
    "both, signed": lambda k: {
        "PixelRepresentation": 1,
        "RescaleSlope": (0.25, 0.5, 1, 2)[k % 4],
        "RescaleIntercept": 8 * (k % 3),
    },
    "slope below 0": lambda k: {"PixelRepresentation": 1, "RescaleSlope": -1, "RescaleIntercept": 0},
    "MONOCHROME1": lambda k: {
        "PhotometricInterpretation": "MONOCHROME1",
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
    },
}


def differences(path: Path, store: Path) -> list[str]:
    """Return how the voxels read, and those prepared at the scan's own spacing, differ from the true HU."""
    scan = read_scan(path)
    problems = [] if np.array_equal(scan.voxels, true_hu()) else [f"read as {np.unique(scan.voxels).tolist()}"]
    summary = prepare(path, store, spacing_mm=scan.spacing_mm, workers=0)
    (volume,) = summary.done
    counts = [np.unique(values, return_counts=True) for values in (VolumeStore(store).volume(volume), true_hu())]
    # Turned to RAS on the way; how many voxels hold which HU does not change.
    if not all(np.array_equal(one, two) for one, two in zip(*counts, strict=True)):
        problems.append(f"stored as {counts[0][0].tolist()}")
    return problems


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_dicom(write_series: Callable[..., Path], tmp_path: Path, notes: Any, encoding: str) -> None:
    folder = stored(write_series(tmp_path / "ct", true_hu()), ENCODINGS[encoding])
    notes(FAMILY, f"DICOM {encoding}", differences(folder, tmp_path / "store"))
    assert not notes.wrong


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
@pytest.mark.parametrize(
    ("dtype", "slope", "intercept"),
    [
        (np.int16, 1, 0),
        (np.int16, np.nan, np.nan),
        (np.uint16, 1, -1024),
        (np.uint16, 0.5, -1024),
        (np.int16, 4, 8),
        (np.int16, -1, 0),
        (np.float32, 8, -1024),
        (np.uint8, 8, -1024),
    ],
)
def test_nifti(tmp_path: Path, notes: Any, ending: str, dtype: Any, slope: float, intercept: float) -> None:
    hu = true_hu() if dtype != np.uint8 else np.minimum(true_hu(), 1016)
    factor, offset = (1.0, 0.0) if np.isnan(slope) else (slope, intercept)
    values = (hu - offset) / factor
    image = nib.Nifti1Image(values.astype(dtype), np.diag([0.75, 1.25, 2.5, 1]))
    image.set_sform(image.affine, 1)
    image.set_qform(image.affine, 1)
    image.header.set_slope_inter(slope, intercept)
    path = tmp_path / f"ct.{ending}"
    # Saving by nibabel would choose a scale of its own: header and voxels are written as they are.
    image.header["magic"], image.header["vox_offset"] = b"n+1", 352
    content = image.header.binaryblock + b"\0\0\0\0" + values.astype(dtype).tobytes(order="F")
    with nib.openers.Opener(path, "wb") as file:
        file.write(content)
    other = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))).T
    problems = [] if np.array_equal(read_scan(path).voxels, hu) else ["read as other HU"]
    problems += [] if np.array_equal(other, hu) else ["SimpleITK reads other HU: the case is wrong"]
    name = f"NIfTI {np.dtype(dtype).name} slope {slope} intercept {intercept} {ending}"
    notes(FAMILY, name, problems)
    assert not notes.wrong


@pytest.mark.parametrize(
    ("case", "changes", "code"),
    [
        ("no rescale", {"RescaleSlope": None, "RescaleIntercept": None}, "dicom.rescale"),
        ("an intercept without a slope", {"RescaleSlope": None}, "dicom.rescale"),
        ("slope 0", {"RescaleSlope": 0}, "dicom.rescale"),
        ("optical density", {"RescaleType": "OD"}, "dicom.rescale_type"),
        ("colour", {"PhotometricInterpretation": "PALETTE COLOR"}, None),
    ],
)
def test_what_leaves_hu_open_is_refused(
    write_series: Callable[..., Path], tmp_path: Path, notes: Any, case: str, changes: dict[str, Any], code: str | None
) -> None:
    folder = write_series(tmp_path / "ct", true_hu(), **changes)
    problems = ["it was read"]
    try:
        read_scan(folder)
    except ScanError as error:
        problems = [] if code in (None, error.code) else [f"refused as {error.code}"]
    notes(FAMILY, f"DICOM {case}", problems, good="caught")
    assert not notes.wrong
