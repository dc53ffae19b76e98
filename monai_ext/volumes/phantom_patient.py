"""What differs between two phantom patients: size, fat, contrast phase, scanner."""

from dataclasses import dataclass

import numpy as np

from monai_ext.base import derive_seed
from monai_ext.volumes.phantom_shapes import Point

# Typical attenuation in HU by contrast phase; every patient lies between two neighbouring phases.
PHASES: dict[str, tuple[float, float, float, float]] = {
    #            plain  arterial  portal  late
    "blood": (42, 290, 160, 105),
    "veins": (40, 95, 160, 110),
    "liver": (57, 70, 112, 88),
    "portal": (42, 110, 170, 110),
    "spleen": (48, 105, 122, 96),
    "cortex": (32, 165, 185, 150),
    "medulla": (30, 70, 170, 165),
    "pancreas": (42, 105, 95, 75),
    "muscle": (54, 58, 63, 60),
    "heart": (45, 110, 115, 90),
    "bowel": (36, 70, 85, 65),
}
SPREAD_HU = 7.0  # standard deviation between patients of the same phase


@dataclass(frozen=True)
class Patient:
    """One set of drawn properties.

    Attributes:
        seed: the phantom's seed; organs draw their own shape from it, see :meth:`draw`.
        scale: body size relative to the reference torso along x, y, z.
        shift_mm: place of the body in the scanner.
        fat_mm: thickness of the subcutaneous fat.
        muscle_mm: thickness of the lateral body wall.
        belly: how far visceral fat widens the abdomen, 0 to 1.
        hu: attenuation of each tissue.
        noise_hu: standard deviation of the noise in the middle of the body; low doses give more.
        offset_hu: calibration error of the scanner.
    """

    seed: int
    scale: Point
    shift_mm: Point
    fat_mm: float
    muscle_mm: float
    belly: float
    hu: dict[str, float]
    noise_hu: float
    offset_hu: float

    def draw(self, organ: str) -> np.random.Generator:
        """A generator of this organ's own, so that one organ's draws never move another organ."""
        return np.random.default_rng(derive_seed(self.seed, "phantom", organ))


def draw_patient(seed: int) -> Patient:
    """Draw a patient from a seed."""
    rng = np.random.default_rng(derive_seed(seed, "phantom"))
    size = rng.uniform(0.92, 1.06)
    return Patient(
        seed=seed,
        scale=(
            size * rng.uniform(0.96, 1.04),
            size * rng.uniform(0.95, 1.05),
            size * rng.uniform(0.95, 1.05),
        ),
        shift_mm=(rng.uniform(-6, 6), rng.uniform(4, 12), rng.uniform(-60, -30)),
        fat_mm=6 + 16 * rng.beta(1.6, 2.4),
        muscle_mm=rng.uniform(10, 15),
        belly=rng.uniform(0, 1),
        hu=_draw_tissues(rng),
        noise_hu=rng.uniform(6, 16),
        offset_hu=rng.uniform(-6, 6),
    )


def _draw_tissues(rng: np.random.Generator) -> dict[str, float]:
    position = rng.uniform(0, 3) if rng.random() < 0.75 else 0.0  # a quarter of the scans is plain
    hu = {
        tissue: float(np.interp(position, range(4), values)) + rng.normal(0, SPREAD_HU)
        for tissue, values in PHASES.items()
    }
    if rng.random() < 0.25:
        hu["liver"] -= rng.uniform(10, 35)  # fatty liver
    hu["fat"] = rng.normal(-103, 5)
    hu["lung"] = rng.normal(-850, 35)
    hu["spongy"] = rng.uniform(90, 240)  # bone density falls with age
    hu["bone"] = rng.uniform(330, 520)
    return hu


def near(rng: np.random.Generator, point: Point, spread_mm: float) -> Point:
    """A point beside ``point``, within twice the spread."""
    dx, dy, dz = (float(v) for v in rng.normal(0, spread_mm, 3).clip(-2 * spread_mm, 2 * spread_mm))
    return point[0] + dx, point[1] + dy, point[2] + dz


def sized(rng: np.random.Generator, radii: Point, spread: float = 0.09) -> Point:
    """Radii that vary together by ``spread`` and each by half of it."""
    common = rng.uniform(1 - spread, 1 + spread)
    a, b, c = (common * float(v) for v in rng.uniform(1 - spread / 2, 1 + spread / 2, 3))
    return radii[0] * a, radii[1] * b, radii[2] * c


def turned(rng: np.random.Generator, turn: Point, spread: float = 0.1) -> Point:
    """Angles beside ``turn``, in radians."""
    a, b, c = (float(v) for v in rng.uniform(-spread, spread, 3))
    return turn[0] + a, turn[1] + b, turn[2] + c
