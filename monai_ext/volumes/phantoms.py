"""Phantom torsos: CT-like volumes with known organs, for demos and tests where no patient data may go."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from monai_ext.base import SettingError, case_id, derive_seed, replacing
from monai_ext.volumes.nifti_image import nifti_image
from monai_ext.volumes.phantom_chest import paint_heart, paint_lungs
from monai_ext.volumes.phantom_gut import paint_gut
from monai_ext.volumes.phantom_organs import (
    paint_kidneys,
    paint_liver,
    paint_retroperitoneum,
    paint_spleen,
    paint_vessels,
)
from monai_ext.volumes.phantom_patient import Patient, draw_patient
from monai_ext.volumes.phantom_shapes import Canvas
from monai_ext.volumes.phantom_trunk import Trunk, paint_body, paint_cage, paint_spine
from monai_ext.volumes.read_back import check_read_back

PHANTOM_LABELS: dict[int, str] = {
    1: "liver",
    2: "spleen",
    3: "kidney_right",
    4: "kidney_left",
    5: "lungs",
    6: "spine",
    7: "aorta",
    8: "heart",
}


class Phantom(NamedTuple):
    """A made-up CT and its organs.

    Attributes:
        hu: ``(x, y, z)`` int16 HU in RAS+.
        labels: ``(x, y, z)`` uint8, ids of `PHANTOM_LABELS`, 0 elsewhere.
        affine: ``(4, 4)``, voxel index to mm in RAS+.
    """

    hu: npt.NDArray[np.int16]
    labels: npt.NDArray[np.uint8]
    affine: npt.NDArray[np.float64]


def phantom_torso(
    seed: int,
    shape: tuple[int, int, int] = (128, 96, 112),
    spacing_mm: tuple[float, float, float] = (3.0, 3.0, 3.0),
) -> Phantom:
    """Make one torso; the same seed always gives the same patient.

    Organs overlap in HU as they do in patients (liver, spleen, kidneys, heart, muscle and bowel), so that
    they cannot be told apart by density alone. Patients differ in size, posture, organ shapes, contrast
    phase and dose.

    Args:
        seed: chooses the patient.
        shape: voxels along x, y, z.
        spacing_mm: voxel edges.

    Raises:
        SettingError: the shape or the spacing is not three positive numbers.
    """
    return scan_torso(paint_torso(seed, shape, spacing_mm))


class Painted(NamedTuple):
    """A torso before the scanner: exact tissues, no noise.

    Attributes:
        canvas: HU and labels.
        trunk: distances that the noise depends on.
        patient: whose torso.
    """

    canvas: Canvas
    trunk: Trunk
    patient: Patient


def paint_torso(seed: int, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Painted:
    """Paint every organ of one patient; :func:`scan_torso` makes the CT of it.

    Raises:
        SettingError: the shape or the spacing is not three positive numbers.
    """
    _check_grid(shape, spacing_mm)
    patient = draw_patient(seed)
    canvas = Canvas(shape, spacing_mm, patient.scale, patient.shift_mm, 5.0, patient.draw("bend"))
    trunk = Trunk(canvas, patient)
    paint_body(canvas, trunk, patient)
    ids = {name: number for number, name in PHANTOM_LABELS.items()}
    paint_lungs(canvas, trunk, patient, ids["lungs"])
    paint_heart(canvas, trunk, patient, ids["heart"], ids["aorta"])
    paint_gut(canvas, trunk, patient)
    paint_liver(canvas, trunk, patient, ids["liver"])
    paint_spleen(canvas, trunk, patient, ids["spleen"])
    paint_kidneys(canvas, patient, ids["kidney_right"], ids["kidney_left"])
    paint_retroperitoneum(canvas, patient)
    paint_vessels(canvas, patient, ids["aorta"])
    paint_spine(canvas, patient, ids["spine"])
    paint_cage(canvas, trunk, patient)
    return Painted(canvas, trunk, patient)


def scan_torso(painted: Painted) -> Phantom:
    """Make the CT of a painted torso: noise, blur and the scanner's calibration error."""
    canvas = painted.canvas
    hu = _scan(canvas.hu, painted.trunk, painted.patient)
    affine = np.diag([*canvas.spacing_mm, 1.0])
    affine[:3, 3] = [-(n - 1) / 2 * s for n, s in zip(hu.shape, canvas.spacing_mm, strict=True)]
    return Phantom(hu, canvas.labels, affine)


def _check_grid(shape: Sequence[int], spacing_mm: Sequence[float]) -> None:
    if len(shape) != 3 or any(int(n) != n or n < 1 for n in shape):
        raise SettingError(
            f"shape: {tuple(shape)} is not three positive numbers of voxels; give for example (128, 96, 112)",
            code="setting.shape",
        )
    if len(spacing_mm) != 3 or not all(0 < edge < float("inf") for edge in spacing_mm):
        raise SettingError(
            f"spacing_mm: {tuple(spacing_mm)} is not three positive voxel edges in mm; give for example (3, 3, 3)",
            code="setting.spacing",
        )


def _scan(hu: npt.NDArray[Any], trunk: Trunk, patient: Patient) -> npt.NDArray[np.int16]:
    """Add what a scanner adds: noise, stronger in the middle, a little blur, and a calibration error."""
    rng = patient.draw("noise")
    fine = ndimage.gaussian_filter(rng.standard_normal(hu.shape, dtype=np.float32), 0.55, truncate=2.5)
    coarse = ndimage.zoom(rng.standard_normal([-(-n // 3) + 1 for n in hu.shape], dtype=np.float32), 3, order=1)
    coarse = coarse[tuple(slice(n) for n in hu.shape)]
    depth = np.clip(1.15 - 0.55 * trunk.radius, 0.4, 1.15)
    noise = patient.noise_hu * depth * fine / fine.std() + 5.0 * coarse
    tissue = ndimage.gaussian_filter(hu, 0.35, truncate=3)
    hu_out: npt.NDArray[np.int16] = np.clip(np.rint(tissue + noise + patient.offset_hu), -1024, 3071).astype(np.int16)
    return hu_out


def write_phantoms(
    folder: str | Path,
    counts: Mapping[str, int],
    seed: int = 0,
    shape: tuple[int, int, int] = (128, 96, 112),
    spacing_mm: tuple[float, float, float] = (3.0, 3.0, 3.0),
) -> Path:
    """Write phantoms as NIfTI pairs with a MONAI datalist, and return the datalist's path.

    Args:
        folder: receives ``images/``, ``labels/`` and ``dataset.json``.
        counts: patients per section, for example ``{"training": 12, "validation": 2, "test": 4}``.
        seed: chooses the patients; sections never share one.
        shape: voxels along x, y, z.
        spacing_mm: voxel edges.

    Raises:
        SettingError: the shape or the spacing is not three positive numbers.
        WriteError: a file could not be written.
    """
    folder = Path(folder)
    lists: dict[str, list[dict[str, str]]] = {}
    for section, count in counts.items():
        lists[section] = []
        for number in range(count):
            name = f"phantom_{section}_{number:02d}.nii.gz"
            phantom = phantom_torso(derive_seed(seed, section, number), shape, spacing_mm)
            for part, voxels in (("images", phantom.hu), ("labels", phantom.labels)):
                check = partial(check_read_back, voxels=voxels, affine=phantom.affine, case=case_id(name))
                with replacing(folder / part / name, check) as temporary:
                    nib.save(nifti_image(voxels, phantom.affine), temporary)
            lists[section].append({"image": f"images/{name}", "label": f"labels/{name}"})
    names = {"0": "background"} | {str(number): name for number, name in PHANTOM_LABELS.items()}
    with replacing(folder / "dataset.json") as temporary:
        temporary.write_text(json.dumps({"labels": names, **lists}, indent=1), encoding="utf-8")
    return folder / "dataset.json"
