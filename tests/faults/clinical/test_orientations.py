"""Every orientation and tilt through the segmentation bundle and back: what lies left in the patient stays left."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

FAMILY = "orientations, segmentation"


@pytest.mark.parametrize(
    "tilt", ["tilted", *(pytest.param(name, marks=pytest.mark.full) for name in ("straight", "oblique"))]
)
def test_marks_lie_where_they_do_in_the_patient(
    segment: Callable[..., Path], patient: Any, tmp_path: Path, notes: Any, tilt: str
) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    for codes in patient.orientations:
        patient.write(scans / f"{codes}.nii.gz", patient.grid(codes, tilt))
    assert len(list(scans.iterdir())) == 48
    segment(scans, tmp_path / "out")
    for codes in patient.orientations:
        written = tmp_path / "out" / codes / f"{codes}_seg.nii.gz"
        notes(FAMILY, f"{codes} {tilt}", patient.problems(scans / f"{codes}.nii.gz", written))
    assert not notes.wrong


@pytest.mark.full
@pytest.mark.parametrize("ending", ["nrrd", "mha", "nii"])
def test_formats_of_itk(segment: Callable[..., Path], patient: Any, tmp_path: Path, notes: Any, ending: str) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    for codes in patient.orientations:
        patient.write(scans / f"{codes}.{ending}", patient.grid(codes, "oblique"))
    # Mirroring of windows and another overlap are no other geometry.
    segment(scans, tmp_path / "out", mirror_axes=[0, 2], overlap=0.5, sw_batch_size=2)
    for codes in patient.orientations:
        written = tmp_path / "out" / codes / f"{codes}_seg.nii.gz"
        notes(FAMILY, f"{codes} {ending}", patient.problems(scans / f"{codes}.{ending}", written))
    assert not notes.wrong


def test_the_measure_notices_every_mirror_image_and_exchange(patient: Any, tmp_path: Path) -> None:
    affine = patient.grid("RAS", "oblique")
    shape = (31, 31, 31)  # of one size along every axis, that axes may be exchanged
    place = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    own, middle = affine.copy(), place[15, 15, 15]
    own[:3, 3] += patient.centre_mm - middle
    labels = np.zeros(shape, np.uint8)
    for number, ball in patient.balls.items():
        labels[np.linalg.norm(place - middle + patient.centre_mm - ball, axis=-1) <= patient.radius_mm] = number
    wrong = 0
    for codes in patient.orientations:
        turned = nib.orientations.apply_orientation(labels, nib.orientations.axcodes2ornt(tuple(codes)))
        wrong += bool(patient.misplaced(turned, own, "nibabel"))
    assert wrong == 47
    path = patient.write(tmp_path / "a.nii.gz", affine)
    shifted = SimpleITK.ReadImage(str(path))
    shifted.SetOrigin([value + 1.2 for value in shifted.GetOrigin()])
    SimpleITK.WriteImage(shifted, str(tmp_path / "b.nii.gz"))
    assert "the grid is another one than the scan's" in patient.problems(path, tmp_path / "b.nii.gz")
