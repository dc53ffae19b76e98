"""The phantom's abdominal organs and vessels, in the reference torso's millimetres (see ``phantom_trunk``)."""

from itertools import pairwise

import numpy as np

from monai_ext.volumes.phantom_patient import Patient, near, sized, turned
from monai_ext.volumes.phantom_shapes import Array, Canvas, Region, blend, capsule, ellipsoid
from monai_ext.volumes.phantom_trunk import Trunk, spine_line

# From, to, radius in mm, what flows inside: renal vessels, mesenteric artery and vein, portal and splenic vein.
BRANCHES = (
    ((-8.0, -20.0, -18.0), (-46.0, -40.0, -22.0), 4.0, "blood"),
    ((18.0, -24.0, -26.0), (46.0, -40.0, -34.0), 5.0, "veins"),
    ((-8.0, -20.0, -2.0), (-4.0, 20.0, -60.0), 4.0, "blood"),
    ((6.0, 14.0, -60.0), (12.0, 2.0, 0.0), 6.0, "portal"),
    ((12.0, 2.0, 0.0), (26.0, 4.0, 22.0), 7.0, "portal"),
    ((10.0, 2.0, 2.0), (-70.0, -26.0, 24.0), 4.0, "portal"),
)
VENA_CAVA = ((20.0, -26.0, -200.0), (21.0, -28.0, -20.0), (25.0, -20.0, 40.0), (16.0, 2.0, 92.0))
# Courses of psoas (two pieces) and quadratus lumborum on the right: from, to, radius at either end in mm.
BACK_MUSCLES = (
    ((24.0, -58.0, -10.0), (40.0, -50.0, -80.0), 6.0, 17.0),
    ((40.0, -50.0, -80.0), (54.0, -34.0, -190.0), 17.0, 20.0),
    ((58.0, -78.0, -10.0), (68.0, -76.0, -110.0), 8.0, 14.0),
)


def paint_liver(canvas: Canvas, trunk: Trunk, patient: Patient, label: int) -> None:
    """A large right lobe and a left one that crosses the middle, under the dome; vessels; gall bladder."""
    rng, hu = patient.draw("liver"), patient.hu
    right = near(rng, (72, -6, 26), 4), sized(rng, (70, 88, 84))
    left = near(rng, (-6, 42, 48), 6), sized(rng, (72, 38, 32))
    tilt, slope, tip_z = turned(rng, (0, 0.2, 0.1)), rng.uniform(0.5, 0.8), rng.uniform(-75, -45)

    def liver(box: Region) -> Array:
        lobes = blend(ellipsoid(box, *right), ellipsoid(box, *left, tilt), 24)
        under = (tip_z + slope * (95 - box.x) + 0.3 * (box.y - 40) - box.z) / float(np.hypot(1, slope))
        roof = (box.z - trunk.dome_z[box.slices] + 5) * 0.75
        return np.maximum(np.maximum(lobes, under), np.maximum(roof, trunk.cavity[box.slices] + 3))

    whole = canvas.region((-100, -110, -120), (150, 110, 110))
    canvas.paint(whole, liver(whole), hu["liver"], label)
    root = near(rng, (24, 4, 22), 4)
    for _ in range(9):
        tip = (float(rng.uniform(-30, 120)), float(rng.uniform(-50, 60)), float(rng.uniform(-10, 75)))
        box = canvas.around([root, tip], 5)
        vessel = capsule(box, root, tip, 5.0, 1.5)
        canvas.paint(box, np.maximum(vessel, liver(box) + 5), hu["portal"], None)
    bottom, neck = near(rng, (54, 48, -34), 6), (34.0, 24.0, 0.0)
    box = canvas.around([bottom, neck], 18)
    canvas.paint(box, capsule(box, bottom, neck, rng.uniform(9, 15), 5.0), 8.0)


def paint_spleen(canvas: Canvas, trunk: Trunk, patient: Patient, label: int) -> None:
    """A crescent against the left wall at the back, under the dome, hollowed by the stomach."""
    rng = patient.draw("spleen")
    middle = near(rng, (-92, -34, 18), 5)
    box = canvas.around([middle], 75)
    outer = ellipsoid(box, middle, sized(rng, (39, 56, 58), 0.14), turned(rng, (0.35, -0.15, -0.35)))
    hollow = ellipsoid(box, (middle[0] + 48, middle[1] + 20, middle[2] - 2), (34, 42, 60))
    roof = (box.z - trunk.dome_z[box.slices] + 5) * 0.75
    spleen = np.maximum(np.maximum(outer, -hollow), np.maximum(roof, trunk.cavity[box.slices] + 3))
    canvas.paint(box, spleen, patient.hu["spleen"], label)


def paint_kidneys(canvas: Canvas, patient: Patient, right: int, left: int) -> None:
    """Beans in beds of fat beside the spine, upper poles inward; the right one lies lower, under the liver."""
    hu = patient.hu
    for side, height, label in ((1.0, -34, right), (-1.0, -20, left)):
        rng = patient.draw(f"kidney {side:+.0f}")
        middle = near(rng, (side * 60, -46, height), 5)
        size = sized(rng, (29, 27, 54), 0.12)
        tilt = turned(rng, (0.2, side * 0.22, side * 0.5))
        box = canvas.around([middle], 75)
        bed = ellipsoid(box, middle, (size[0] + 11, size[1] + 8, size[2] + 12), tilt)
        canvas.paint(box, bed, hu["fat"] + 4)
        hilum = (middle[0] - side * 25, middle[1] + 11, middle[2])
        sinus = ellipsoid(box, hilum, (19, 12, 22), tilt)
        kidney = np.maximum(ellipsoid(box, middle, size, tilt), -sinus)
        canvas.paint(box, kidney, hu["cortex"], label)
        core = ellipsoid(box, middle, (size[0] - 8, size[1] - 8, size[2] - 9), tilt)
        canvas.paint(box, np.maximum(core, kidney + 4), hu["medulla"], label)
        pelvis = ellipsoid(box, (middle[0] - side * 12, middle[1] + 4, middle[2]), (9, 7, 24), tilt)
        canvas.paint(box, np.maximum(pelvis, kidney), hu["fat"] + 20, label)


def paint_retroperitoneum(canvas: Canvas, patient: Patient) -> None:
    """Fat before the spine, the psoas muscles, the pancreas and the adrenal region."""
    rng, hu = patient.draw("retroperitoneum"), patient.hu
    bed = canvas.region((-70, -100, -400), (70, -10, 45))
    y_middle, half_width, half_depth = spine_line(bed.z)
    ring = np.sqrt((bed.x / (half_width + 22)) ** 2 + ((bed.y - y_middle) / (half_depth + 22)) ** 2)
    canvas.paint(bed, np.maximum((ring - 1) * 36, bed.z - 35), hu["fat"] + 8)
    size = rng.uniform(0.8, 1.2)
    for side in (1.0, -1.0):
        for (x0, y0, z0), (x1, y1, z1), first_mm, last_mm in BACK_MUSCLES:
            start, end = (side * x0, y0, z0), (side * x1, y1, z1)
            box = canvas.around([start, end], 26)
            canvas.paint(box, capsule(box, start, end, first_mm * size, last_mm * size), hu["muscle"])
    path = [near(rng, point, 4) for point in ((34, 8, -22), (8, 4, -2), (-30, -8, 8), (-74, -26, 20))]
    for start, end, first_mm, last_mm in zip(path, path[1:], (14, 10, 10), (10, 10, 8), strict=False):
        box = canvas.around([start, end], 15)
        canvas.paint(box, capsule(box, start, end, first_mm, last_mm), hu["pancreas"])


def paint_vessels(canvas: Canvas, patient: Patient, label: int) -> None:
    """Descending aorta left of and before the spine, inferior vena cava right of it, renal and splanchnic branches."""
    rng, hu = patient.draw("vessels"), patient.hu
    width, wander = rng.uniform(9.5, 13), rng.uniform(-4, 4)
    box = canvas.region((-70, -100, -400), (30, 30, 215))
    y_middle, _, half_depth = spine_line(box.z)
    up = np.clip(box.z / 120, 0, 1)
    x = -9 - 15 * up + wander * np.sin(box.z / 50)
    y = y_middle + half_depth + width + 2 - 16 * up
    radius = width + 1.5 * up - 1.5 * np.clip(-box.z / 100, 0, 1)
    tube = np.maximum(np.hypot(box.x - x, box.y - y) - radius, box.z - 205)
    canvas.paint(box, tube, hu["blood"], label)
    size = rng.uniform(9, 13)
    for start, end in pairwise(VENA_CAVA):
        part = canvas.around([start, end], size)
        canvas.paint(part, capsule(part, start, end, size, size), hu["veins"])
    for start, end, radius_mm, tissue in BRANCHES:
        part = canvas.around([start, end], radius_mm)
        canvas.paint(part, capsule(part, start, end, radius_mm, radius_mm), hu[tissue])
