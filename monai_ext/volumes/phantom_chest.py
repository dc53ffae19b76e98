"""The phantom's chest: lungs, heart, large vessels and airways, in the reference torso's millimetres."""

import numpy as np

from monai_ext.volumes.phantom_patient import Patient, near, sized, turned
from monai_ext.volumes.phantom_shapes import AIR_HU, Canvas, Point, capsule, ellipsoid
from monai_ext.volumes.phantom_trunk import Trunk

# From, to, radius at either end in mm, what flows inside.
AORTA_ROOT = (
    ((6.0, 14.0, 140.0), (12.0, 24.0, 200.0), 16.0, 14.0, "blood"),
    ((12.0, 24.0, 200.0), (-22.0, -46.0, 205.0), 13.0, 12.0, "blood"),
)
GREAT_VESSELS = (
    ((-8.0, 30.0, 140.0), (-18.0, 8.0, 176.0), 14.0, 12.0, "blood"),  # pulmonary trunk and its branches
    ((-18.0, 8.0, 172.0), (-44.0, -8.0, 162.0), 10.0, 7.0, "blood"),
    ((-10.0, 8.0, 172.0), (42.0, 0.0, 164.0), 10.0, 7.0, "blood"),
    ((30.0, 10.0, 130.0), (30.0, 12.0, 240.0), 10.0, 9.0, "veins"),  # superior vena cava
)
# Middle relative to the heart's, radii, what flows inside: left and right ventricle, right and left atrium.
CHAMBERS = (
    ((-22.0, 2.0, -10.0), (27.0, 19.0, 19.0), "blood"),
    ((14.0, 20.0, -8.0), (24.0, 16.0, 22.0), "veins"),
    ((32.0, -4.0, 10.0), (17.0, 19.0, 24.0), "veins"),
    ((-2.0, -24.0, 14.0), (26.0, 15.0, 19.0), "blood"),
)
# From, to, inner radius in mm, HU inside: windpipe, two bronchi, gullet.
AIRWAYS = (
    ((2.0, -16.0, 178.0), (2.0, -8.0, 270.0), 9.0, AIR_HU),
    ((2.0, -16.0, 180.0), (34.0, -14.0, 148.0), 6.5, AIR_HU),
    ((2.0, -16.0, 180.0), (-36.0, -14.0, 146.0), 6.5, AIR_HU),
    ((-6.0, -34.0, 75.0), (-2.0, -28.0, 270.0), 6.0, 35.0),
)


def paint_lungs(canvas: Canvas, trunk: Trunk, patient: Patient, label: int) -> None:
    """Both lungs between wall, diaphragm and mediastinum, with vessels that branch from the hilum."""
    at, rng = canvas.whole, patient.draw("lungs")
    chest = np.maximum(trunk.cavity + 2, (trunk.dome_z - at.z) * 0.6)
    middle = ellipsoid(at, (-3, 6, 150), (rng.uniform(25, 32), 88, 170))
    heavy = rng.uniform(10, 60) * np.clip(-at.y / 80, -1, 1)  # blood sinks to the back of a lying patient
    canvas.paint(at, np.maximum(chest, middle), -55.0)
    lungs = np.maximum(chest, -middle)
    canvas.paint(at, lungs, patient.hu["lung"] + heavy, label)
    for side in (1.0, -1.0):
        for start, end, first_mm, last_mm in _branches(rng, (side * 30.0, 0.0, 140.0)):
            box = canvas.around([start, end], first_mm)
            tube = capsule(box, start, end, first_mm, last_mm)
            canvas.paint(box, np.maximum(tube, lungs[box.slices] + 4), patient.hu["blood"] - 15, None)


def _branches(rng: np.random.Generator, hilum: Point) -> list[tuple[Point, Point, float, float]]:
    side = float(np.sign(hilum[0]))
    tubes = []
    for _ in range(22):
        tip = (
            side * float(rng.uniform(50, 105)),
            float(rng.uniform(-75, 60)),
            float(rng.uniform(20, 235)),
        )
        x, y, z = (a + 0.45 * (b - a) for a, b in zip(hilum, tip, strict=True))
        fork = near(rng, (x, y, z), 6)
        tubes.append((hilum, fork, 5.0, 2.8))
        tubes += [(fork, near(rng, tip, 16), 2.8, 1.0) for _ in range(3)]
    return tubes


def paint_heart(canvas: Canvas, trunk: Trunk, patient: Patient, label: int, aorta: int) -> None:
    """Heart with four chambers in a bed of fat, the large vessels above it, windpipe and gullet.

    Args:
        canvas: painted on.
        trunk: the heart stays above its diaphragm.
        patient: whose heart.
        label: of the heart.
        aorta: label of the ascending aorta and the arch.
    """
    rng, hu = patient.draw("heart"), patient.hu
    place = near(rng, (-20, 18, 112), 5)
    tilt = turned(rng, (0.25, 0.6, 0.35))
    size = sized(rng, (56, 44, 50))
    box = canvas.around([place], 85)
    floor = (trunk.dome_z[box.slices] + 4 - box.z) * 0.9
    bed = ellipsoid(box, place, (size[0] + 7, size[1] + 7, size[2] + 7), tilt)
    canvas.paint(box, np.maximum(bed, floor - 2), hu["fat"] + 15)
    for vessels, vessel_label in ((AORTA_ROOT, aorta), (GREAT_VESSELS, 0)):
        for start, end, first_mm, last_mm, tissue in vessels:
            tube = canvas.around([start, end], first_mm)
            canvas.paint(tube, capsule(tube, start, end, first_mm, last_mm), hu[tissue], vessel_label)
    muscle = np.maximum(ellipsoid(box, place, size, tilt), floor)
    canvas.paint(box, muscle, hu["heart"], label)
    for offset, radii, tissue in CHAMBERS:
        middle = (place[0] + offset[0], place[1] + offset[1], place[2] + offset[2])
        chamber = ellipsoid(box, middle, sized(rng, radii), tilt)
        canvas.paint(box, np.maximum(chamber, muscle + 2), hu[tissue], label)
    for start, end, radius_mm, inside_hu in AIRWAYS:
        tube = canvas.around([start, end], radius_mm + 2)
        canvas.paint(tube, capsule(tube, start, end, radius_mm + 2, radius_mm + 2), 30.0)
        canvas.paint(tube, capsule(tube, start, end, radius_mm, radius_mm), inside_hu)
