"""Phantom torsos: CT-like volumes with known organs, for demos and tests where no patient data may go."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from monai_ext.volumes.phantom_gut import paint_gut
from monai_ext.volumes.phantom_organs import (
    paint_heart,
    paint_kidneys,
    paint_liver,
    paint_lungs,
    paint_retroperitoneum,
    paint_spleen,
    paint_vessels,
)
from monai_ext.volumes.phantom_patient import Patient, draw_patient
from monai_ext.volumes.phantom_shapes import Canvas
from monai_ext.volumes.phantom_trunk import Trunk, paint_body, paint_cage, paint_spine

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
    hu: npt.NDArray[np.int16]
    labels: npt.NDArray[np.uint8]
    affine: npt.NDArray[np.float64]


def phantom_torso(seed, shape=(128, 96, 112), spacing_mm=(3.0, 3.0, 3.0)) -> Phantom:
    patient = draw_patient(seed)
    canvas = Canvas(shape, spacing_mm, patient.scale, patient.shift_mm, 5.0, patient.draw("bend"))
    trunk = Trunk(canvas, patient)
    paint_body(canvas, trunk, patient)
    paint_lungs(canvas, trunk, patient, (5, 5))
    paint_heart(canvas, trunk, patient, (8, 7))
    paint_gut(canvas, trunk, patient)
    paint_liver(canvas, trunk, patient, 1)
    paint_spleen(canvas, trunk, patient, 2)
    paint_kidneys(canvas, patient, (3, 4))
    paint_retroperitoneum(canvas, patient)
    paint_vessels(canvas, patient, 7)
    paint_spine(canvas, patient, 6)
    paint_cage(canvas, trunk, patient)
    hu = _scan(canvas.hu, trunk, patient)
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = [-(n - 1) / 2 * s for n, s in zip(shape, spacing_mm, strict=True)]
    return Phantom(hu, canvas.labels, affine)


def _scan(hu, trunk, patient):
    rng = patient.draw("noise")
    fine = ndimage.gaussian_filter(rng.standard_normal(hu.shape, dtype=np.float32), 0.55, truncate=2.5)
    coarse = ndimage.zoom(rng.standard_normal([-(-n // 3) + 1 for n in hu.shape], dtype=np.float32), 3, order=1)
    coarse = coarse[tuple(slice(n) for n in hu.shape)]
    depth = np.clip(1.15 - 0.55 * trunk.radius, 0.4, 1.15)
    noise = patient.noise_hu * depth * fine / fine.std() + 5.0 * coarse
    tissue = ndimage.gaussian_filter(hu, 0.35, truncate=3)
    return np.clip(np.rint(tissue + noise + patient.offset_hu), -1024, 3071).astype(np.int16)
