"""The phantom's stomach and bowel: soft walls, and gas, fluid, stool or oral contrast inside."""

from collections.abc import Sequence

import numpy as np

from monai_ext.volumes.phantom_patient import Patient, near, sized, turned
from monai_ext.volumes.phantom_shapes import AIR_HU, Array, Canvas, Point, Region, capsule, ellipsoid
from monai_ext.volumes.phantom_trunk import Trunk

GAS_HU = AIR_HU + 40
WALL_MM = 3.0
COLON: tuple[Point, ...] = (
    (92, 14, -170),
    (98, 2, -110),
    (92, 8, -62),
    (74, 46, -52),
    (26, 66, -74),
    (-30, 66, -66),
    (-72, 48, -28),
    (-98, 6, 2),
    (-104, -22, -40),
    (-102, -18, -110),
    (-88, 8, -175),
)


def paint_gut(canvas: Canvas, trunk: Trunk, patient: Patient) -> None:
    """Small bowel, colon, then stomach; the solid organs are painted over them."""
    _paint_small_bowel(canvas, trunk, patient)
    _paint_colon(canvas, trunk, patient)
    _paint_stomach(canvas, trunk, patient)


def _paint_small_bowel(canvas: Canvas, trunk: Trunk, patient: Patient) -> None:
    """Loops: short tubes of a random walk that stays before the spine and below the stomach."""
    rng = patient.draw("small bowel")
    contrast = rng.choice([0.0, 0.0, 180.0])  # a third of the patients drank contrast
    for _ in range(int(rng.integers(16, 26))):
        point = (float(rng.uniform(-70, 70)), float(rng.uniform(5, 60)), float(rng.uniform(-190, -40)))
        radius = float(rng.uniform(10, 14))
        for _ in range(4):
            following = near(rng, point, 20)
            x, y, z = (float(v) for v in np.clip(following, (-85, -8, -230), (85, 70, -32)))
            tube = [point, (x, y, z)]
            box = canvas.around(tube, radius)
            shape = np.maximum(capsule(box, tube[0], tube[1], radius, radius), trunk.cavity[box.slices] + 3)
            canvas.paint(box, shape, patient.hu["bowel"])
            fluid = float(rng.uniform(0, 35)) + contrast
            _fill(canvas, box, shape + WALL_MM, tube, radius, fluid, rng.choice([1.2, 1.2, 1.2, 0.3, -0.3]))
            point = (x, y, z)


def _paint_colon(canvas: Canvas, trunk: Trunk, patient: Patient) -> None:
    """Up the right flank, across the front, down the left flank; pouched, with gas above stool."""
    rng = patient.draw("colon")
    path = [near(rng, point, 7) for point in COLON]
    size = float(rng.uniform(17, 25))
    radii = [size * float(rng.uniform(0.8, 1.15)) * (0.8 if index > 6 else 1) for index in range(len(path))]
    stool = rng.uniform(-40, 60)
    for start, end, first_mm, last_mm in zip(path, path[1:], radii, radii[1:], strict=False):
        box = canvas.around([start, end], max(first_mm, last_mm))
        pouches = 1.8 * np.sin((box.z + box.x) / 5.5)
        shape = capsule(box, start, end, first_mm, last_mm) + pouches
        shape = np.maximum(shape, trunk.cavity[box.slices] + 3)
        canvas.paint(box, shape, patient.hu["bowel"])
        crumbs = 70 * rng.standard_gamma(0.8, box.x.shape)
        level = float(rng.uniform(-0.6, 0.9))
        _fill(canvas, box, shape + WALL_MM, [start, end], first_mm, stool - crumbs, level)


def _paint_stomach(canvas: Canvas, trunk: Trunk, patient: Patient) -> None:
    """A bag from the left dome to the middle, with a gas bubble in front."""
    rng = patient.draw("stomach")
    fundus, body = near(rng, (-58, -6, 48), 5), near(rng, (-52, 36, 2), 7)
    outlet = near(rng, (18, 40, -22), 6)
    size, full = sized(rng, (34, 36, 36), 0.15), rng.uniform(0.75, 1.15)
    box = canvas.region((-110, -70, -90), (60, 100, 100))
    bag = ellipsoid(box, fundus, size, turned(rng, (0, 0, 0)))
    middle = capsule(box, fundus, body, size[0] * 0.9 * full, 27 * full)
    shape = np.minimum(np.minimum(bag, middle), capsule(box, body, outlet, 27 * full, 13.0))
    roof = (box.z - trunk.dome_z[box.slices] + 5) * 0.75
    shape = np.maximum(shape, np.maximum(roof, trunk.cavity[box.slices] + 4))
    canvas.paint(box, shape, patient.hu["bowel"])
    contents = float(rng.choice([15.0, 30.0, 150.0])) + 20 * np.sin(box.x / 6) * np.sin(box.z / 7)
    _fill(canvas, box, shape + WALL_MM + 1.5, [body, body], 30.0, contents, float(rng.uniform(-0.2, 1.0)))


def _fill(
    canvas: Canvas,
    box: Region,
    inside: Array,
    ends: Sequence[Point],
    radius_mm: float,
    hu: float | Array,
    level: float,
) -> None:
    """Fill a bowel with ``hu`` and, in front of ``level`` radii from its middle, with gas (supine)."""
    canvas.paint(box, inside, hu)
    surface = (ends[0][1] + ends[1][1]) / 2 + level * radius_mm
    canvas.paint(box, np.maximum(inside, surface - box.y), GAS_HU)
