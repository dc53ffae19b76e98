"""The phantom's walls: table, skin, fat, muscle, diaphragm, ribs, sternum, pelvis and spine.

Coordinates are those of the reference torso: millimetres from the middle of the trunk cavity at the level
between the twelfth thoracic and the first lumbar vertebra, rising to the right, to the front and to the head.
"""

import numpy as np

from monai_ext.volumes.phantom_patient import Patient
from monai_ext.volumes.phantom_shapes import Array, Canvas, Region

SKIN_MM = 3.0


class Trunk:
    """Distances that every organ of the trunk refers to, for all voxels.

    Attributes:
        cavity: distance to the wall of the trunk cavity, negative inside.
        muscle: distance to the outside of the muscles around it.
        radius: 0 in the middle of the cavity, 1 at its wall.
        angle: 0 at the spine to pi at the breastbone, the same on both sides.
        dome_z: height of the diaphragm above or below each voxel.
    """

    def __init__(self, canvas: Canvas, patient: Patient) -> None:
        at = canvas.whole
        chest = np.clip((at.z - 60) / 150, 0, 1)
        waist = np.exp(-(((at.z + 50) / 60) ** 2))
        width = 130 - 14 * chest**2 + (6 * patient.belly - 3) * waist
        front = 84 - 6 * chest + (26 * patient.belly - 8) * waist
        back = 88 - 4 * chest
        wall = patient.muscle_mm
        self.radius, self.cavity = _oval(at, width, front, back, 2.4)
        # The long muscles fill the back, so that its outline is flat and the spine stands in front of them.
        _, self.muscle = _oval(at, width + wall, front + 0.8 * wall, back + 2.5 * wall, 2.5)
        self.angle = np.arctan2(np.abs(at.x), -at.y)
        self.dome_z = self._dome(at, patient.draw("dome"))

    def _dome(self, at: Region, rng: np.random.Generator) -> Array:
        """The right dome stands higher; both fall steeply toward the wall, most at the back."""
        top, right, flat = rng.uniform(72, 92), rng.uniform(3, 9), rng.uniform(2.6, 3.4)
        fall = (62 - 14 * np.clip(at.y / 80, -1, 1)) * np.minimum(self.radius, 1) ** flat
        dip = 10 * np.exp(-((at.x / 34) ** 2))
        return (top + right * np.tanh(at.x / 40) - fall - dip).astype(np.float32)


def _oval(at: Region, width: Array, front: Array, back: Array, power: float) -> tuple[Array, Array]:
    depth = np.where(at.y > 0, front, back)
    radius = ((np.abs(at.x) / width) ** power + (np.abs(at.y) / depth) ** power) ** (1 / power)
    distance = np.hypot(at.x, at.y) * (1 - 1 / np.maximum(radius, 1e-3))
    return radius, distance


def paint_body(canvas: Canvas, trunk: Trunk, patient: Patient) -> None:
    """Table, skin, subcutaneous fat, muscle, the fat of the cavity, and the diaphragm."""
    at, hu = canvas.whole, patient.hu
    rng = patient.draw("body")
    flank = 1 + rng.uniform(0.2, 0.8) * np.exp(-(((trunk.angle - 0.9) / 0.6) ** 2))
    fat = patient.fat_mm * (flank - 0.35 * np.clip((at.z - 40) / 120, 0, 1))
    outside = trunk.muscle - fat - SKIN_MM + 5 * np.exp(-((at.x / 12) ** 2)) * (at.y < 0)
    _paint_table(canvas, at, outside, rng)
    canvas.paint(at, outside, 25.0)
    canvas.paint(at, outside + SKIN_MM, hu["fat"])
    canvas.paint(at, trunk.muscle, hu["muscle"])
    # Fat between the long muscles of the back and the wall, and between the layers of the wall.
    seam = np.abs(trunk.angle - 0.6) * np.hypot(at.x, at.y) - 1.5
    layers = np.abs(trunk.cavity - 0.5 * patient.muscle_mm) - 0.6
    layers = np.maximum(layers, np.abs(trunk.angle - 1.6) * 60 - 45 + 0.5 * np.maximum(at.z, 0))
    canvas.paint(at, np.minimum(np.maximum(seam, 3 - trunk.cavity), layers), hu["fat"])
    canvas.paint(at, trunk.cavity, hu["fat"] + 6)
    sheet = np.maximum(np.abs(at.z - trunk.dome_z + 2) * 0.6 - 2, trunk.cavity)
    canvas.paint(at, sheet, hu["muscle"])


def _paint_table(canvas: Canvas, at: Region, outside: Array, rng: np.random.Generator) -> None:
    height = float(at.y[np.abs(outside) < canvas.edge_mm].min(initial=0.0)) - float(rng.uniform(0, 4))
    bowl = at.y - height - 0.0004 * at.x**2
    plate = np.maximum(np.abs(bowl + 10) - 10, np.abs(at.x) - 190)
    canvas.paint(at, plate, 60.0)
    canvas.paint(at, plate + 4.0, -960.0)


def spine_line(z: Array) -> tuple[Array, Array, Array]:
    """Where the vertebral bodies lie: ``y`` of their middle, half width and half depth in mm at height ``z``."""
    lumbar = np.clip(0.5 - z / 160, 0, 1)
    return -66 + 8 * np.cos(np.pi * (z + 60) / 210), 16 + 7 * lumbar, 13 + 4 * lumbar


def paint_spine(canvas: Canvas, patient: Patient, label: int) -> None:
    """Vertebral bodies, discs, canal with cord, arches and processes; all of it bears the label."""
    at = canvas.region((-45, -130, -400), (45, -30, 400))
    rng = patient.draw("spine")
    x = at.x - rng.normal(0, 4) * np.sin(at.z / rng.uniform(60, 110))
    y_middle, half_width, half_depth = spine_line(at.z)
    y = at.y - y_middle
    pitch = np.where(at.z < 0, 34, 26).astype(np.float32)
    level = at.z / pitch + 0.5
    rise = (level - np.round(level)) * pitch  # height above the middle of the nearest vertebra
    round_body = np.sqrt((x / half_width) ** 2 + (y / half_depth) ** 2)
    column = (round_body - 1) * half_depth
    body = np.maximum(column, np.abs(rise) - pitch * 0.5 + np.where(at.z < 0, 4.5, 2.5))
    canal_y = y + half_depth + 8
    canal = np.hypot(x / 1.2, canal_y) - 8
    arch = np.maximum(canal - 4.5, np.abs(rise) - 0.36 * pitch)
    slant = np.where(at.z < 0, 0.15, 0.55)
    behind = -(canal_y + 8)
    spike = np.maximum(np.maximum(np.abs(x) - 3.5, np.abs(behind - 13) - 13), np.abs(rise + slant * behind) - 9)
    wings = np.maximum(np.maximum(np.abs(x) - half_width - 16, np.abs(canal_y - 2) - 4), np.abs(rise) - 6)
    bone, spongy = patient.hu["bone"], patient.hu["spongy"]
    canvas.paint(at, column + 1, 85.0, label)
    canvas.paint(at, np.minimum(np.minimum(spike, wings), arch), bone, label)
    canvas.paint(at, body, bone, label)
    canvas.paint(at, body + 3.0, spongy, label)
    canvas.paint(at, np.maximum(spike, wings) + 2.0, spongy, label)
    canvas.paint(at, canal, 25.0, label)
    canvas.paint(at, np.hypot(x, canal_y) - 5, 40.0, label)


def paint_cage(canvas: Canvas, trunk: Trunk, patient: Patient) -> None:
    """Ribs, costal cartilage, breastbone and the wings of the pelvis: bone that is not spine."""
    at, angle, bone = canvas.whole, trunk.angle, patient.hu["bone"]
    rng = patient.draw("cage")
    depth = trunk.cavity - 5
    drop = rng.uniform(65, 85) * (1 - np.cos(np.minimum(angle, 2.2))) / 1.59
    level = (at.z + drop) / 26 - 0.6
    number = np.round(level)
    slope = 0.75  # ribs run obliquely, so their distance is less than the vertical one
    shell = np.sqrt(((level - number) * 26 * slope / 5) ** 2 + (depth / 3.5) ** 2)
    rib = np.maximum((shell - 1) * 4, 20 - np.abs(at.x))
    reach = np.where(number < 0.5, 0.8, np.where(number < 1.5, 1.4, 2.3))
    rib = np.maximum(np.maximum(rib, (angle - reach) * 60), 2.0 - 8 * (number + 0.5))
    cartilage = np.maximum(np.maximum((shell - 1) * 4, (2.3 - angle) * 60), 8 * (2.5 - number))
    canvas.paint(at, cartilage, 105.0)
    canvas.paint(at, rib, bone)
    canvas.paint(at, rib + 2.5, patient.hu["spongy"])
    sternum = np.maximum(np.maximum(np.abs(at.x) - 17, np.abs(trunk.cavity - 6) - 6), 55 - at.z)
    sternum = np.maximum(sternum, -at.y)
    canvas.paint(at, sternum, bone)
    canvas.paint(at, sternum + 2.5, patient.hu["spongy"])
    edge = rng.uniform(-112, -98) - 40 * (angle - 1.15) ** 2
    wing = np.maximum(np.maximum(np.abs(trunk.cavity - 3) - 5, at.z - edge), np.abs(angle - 1.15) * 80 - 60)
    canvas.paint(at, wing, bone)
    canvas.paint(at, wing + 2.5, patient.hu["spongy"])
