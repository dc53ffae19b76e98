"""Lesions of known size planted in phantom organs: darker or brighter tissue with texture and a soft edge."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from monai_ext.base import SettingError, derive_seed
from monai_ext.volumes.phantom_shapes import Array, Canvas, Point, Region, ellipsoid
from monai_ext.volumes.phantoms import PHANTOM_LABELS, paint_torso, scan_torso

EDGE_MM = 3.0  # over which a lesion turns into its organ; a voxel where that is wider
TEXTURE = 0.3  # standard deviation of the texture, as a share of the contrast
TEXTURE_MM = 1.5
_LONGEST = 1.15  # longest half axis over that of a ball of the same volume


@dataclass(frozen=True)
class LesionPlan:
    """One lesion to plant.

    Attributes:
        organ: a name of `PHANTOM_LABELS`.
        diameter_mm: of the ball with the same volume.
        contrast_hu: mean HU in the middle, relative to the organ's median; negative is darker.
    """

    organ: str
    diameter_mm: float
    contrast_hu: float


class PlantedLesion(NamedTuple):
    """Where a planned lesion came to lie.

    Attributes:
        number: its id in :attr:`LesionPhantom.lesions`.
        organ: which holds it.
        centre_mm: in RAS+.
        diameter_mm: of the ball with the same volume.
        contrast_hu: as planned.
    """

    number: int
    organ: str
    centre_mm: Point
    diameter_mm: float
    contrast_hu: float


class LesionPhantom(NamedTuple):
    """A made-up CT with its organs and lesions.

    Attributes:
        hu: ``(x, y, z)`` int16 HU in RAS+.
        labels: ``(x, y, z)`` uint8, ids of `PHANTOM_LABELS`; lesions keep their organ's.
        affine: ``(4, 4)``, voxel index to mm in RAS+.
        lesions: ``(x, y, z)`` uint8, the number of each lesion, 0 elsewhere.
        planted: one entry a lesion.
    """

    hu: npt.NDArray[np.int16]
    labels: npt.NDArray[np.uint8]
    affine: npt.NDArray[np.float64]
    lesions: npt.NDArray[np.uint8]
    planted: tuple[PlantedLesion, ...]


def draw_lesions(
    seed: int,
    organs: Sequence[str],
    count: int,
    diameter_mm: tuple[float, float] = (8.0, 18.0),
    contrast_hu: tuple[float, float] = (20.0, 50.0),
) -> list[LesionPlan]:
    """Plan ``count`` lesions in each organ; darker and brighter ones are equally likely.

    Args:
        seed: chooses sizes and contrasts.
        organs: names of `PHANTOM_LABELS`.
        count: of each organ.
        diameter_mm: smallest and largest.
        contrast_hu: smallest and largest absolute contrast.
    """
    plans = []
    for organ in organs:
        rng = np.random.default_rng(derive_seed(seed, "lesions", organ))
        for _ in range(count):
            sign = -1.0 if rng.random() < 0.5 else 1.0
            plans.append(LesionPlan(organ, float(rng.uniform(*diameter_mm)), sign * float(rng.uniform(*contrast_hu))))
    return plans


def phantom_with_lesions(
    seed: int,
    plans: Sequence[LesionPlan],
    shape: tuple[int, int, int] = (128, 96, 112),
    spacing_mm: tuple[float, float, float] = (3.0, 3.0, 3.0),
    leave_out: bool = False,
) -> LesionPhantom:
    """Make the patient of :func:`phantom_torso` with lesions; all else stays as it is without them.

    Every lesion lies inside its organ and apart from the others.

    Args:
        seed: chooses the patient, and where the lesions lie.
        plans: what to plant, at most 255; the first ones find room first.
        shape: voxels along x, y, z.
        spacing_mm: voxel edges.
        leave_out: a lesion for which its organ has no room, rather than raise; ``planted`` lacks it then.

    Raises:
        SettingError: impossible grid, unknown organ, or a lesion for which its organ has no room.
    """
    if len(plans) > 255:
        raise SettingError(f"plans: {len(plans)} lesions are more than a phantom holds; give at most 255", code=_CODE)
    painted = paint_torso(seed, shape, spacing_mm)
    canvas = painted.canvas
    at = _millimetres(canvas)
    lesions = np.zeros(shape, np.uint8)
    medians: dict[int, float] = {}
    planted = []
    for number, plan in enumerate(plans, start=1):
        label = _checked_label(plan, number)
        medians.setdefault(label, float(np.median(canvas.hu[canvas.labels == label])) if label in canvas.labels else 0)
        rng = np.random.default_rng(derive_seed(seed, "lesion", number))
        try:
            centre = _find_room(canvas, at, lesions, label, plan, number, rng)
        except NoRoomError:
            if leave_out:
                continue
            raise
        _paint_lesion(canvas, at, lesions, label, centre, plan, number, medians[label], rng)
        planted.append(PlantedLesion(number, plan.organ, centre, plan.diameter_mm, plan.contrast_hu))
    scan = scan_torso(painted)
    return LesionPhantom(scan.hu, scan.labels, scan.affine, lesions, tuple(planted))


_CODE = "setting.lesion"


class NoRoomError(SettingError):
    """An organ has no room for a lesion."""


def _checked_label(plan: LesionPlan, number: int) -> int:
    ids = {name: label for label, name in PHANTOM_LABELS.items()}
    if plan.organ not in ids:
        raise SettingError(
            f"lesion {number}: no organ of the phantom is called {plan.organ!r}; choose one of {', '.join(ids)}",
            code=_CODE,
        )
    if not 0 < plan.diameter_mm < float("inf"):
        raise SettingError(
            f"lesion {number}: a diameter of {plan.diameter_mm:g} mm is none; give a positive one", code=_CODE
        )
    return ids[plan.organ]


def _millimetres(canvas: Canvas) -> Region:
    """The voxels' true place in RAS+: the canvas's own coordinates are those of the reference torso."""
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(canvas.hu.shape, canvas.spacing_mm, strict=True)]
    x, y, z = np.meshgrid(*(axis.astype(np.float32) for axis in axes), indexing="ij", sparse=True)
    return Region((slice(None),) * 3, x, y, z)


def _find_room(
    canvas: Canvas, at: Region, lesions: Array, label: int, plan: LesionPlan, number: int, rng: np.random.Generator
) -> Point:
    """Draw a voxel around which the organ has room for the lesion."""
    free = (canvas.labels == label) & (lesions == 0)
    found = ndimage.find_objects(free.astype(np.uint8))
    deepest = 0.0
    if found:
        box = found[0]
        # The frame makes the volume's border a border of the organ too.
        depth = ndimage.distance_transform_edt(np.pad(free[box], 1), sampling=canvas.spacing_mm)[1:-1, 1:-1, 1:-1]
        # Distances end at the middle of the next voxel; its edge is half a voxel nearer.
        depth = depth - canvas.edge_mm / 2
        deepest = float(depth.max())
        places = np.argwhere(depth >= _LONGEST * plan.diameter_mm / 2)
        if len(places):
            i, j, k = places[rng.integers(len(places))] + [part.start for part in box]
            return float(at.x[i, 0, 0]), float(at.y[0, j, 0]), float(at.z[0, 0, k])
    raise NoRoomError(
        f"lesion {number}: the {plan.organ} has no room for {plan.diameter_mm:g} mm, at most "
        f"{max(0.0, 2 * deepest / _LONGEST):.0f} mm; plan a smaller one, or fewer",
        code=_CODE,
    )


def _paint_lesion(
    canvas: Canvas,
    at: Region,
    lesions: Array,
    label: int,
    centre: Point,
    plan: LesionPlan,
    number: int,
    median_hu: float,
    rng: np.random.Generator,
) -> None:
    radius = plan.diameter_mm / 2
    axes = rng.uniform(1 / np.sqrt(_LONGEST), np.sqrt(_LONGEST), 3)
    a, b, c = (float(v) for v in radius * axes / axes.prod() ** (1 / 3))  # the volume stays that of the ball
    box = _around(at, centre, _LONGEST * radius + EDGE_MM + canvas.edge_mm)
    turn = (float(rng.uniform(0, np.pi)), float(rng.uniform(0, np.pi)), float(rng.uniform(0, np.pi)))
    distance = ellipsoid(box, centre, (a, b, c), turn)
    inside = canvas.labels[box.slices] == label
    share = np.clip(0.5 - distance / max(EDGE_MM, canvas.edge_mm), 0, 1) * inside
    grain = ndimage.gaussian_filter(rng.standard_normal(distance.shape), [TEXTURE_MM / s for s in canvas.spacing_mm])
    texture = TEXTURE * plan.contrast_hu * (grain - grain.mean()) / grain.std()
    view = canvas.hu[box.slices]
    view += (share * (median_hu + plan.contrast_hu + texture - view)).astype(np.float32)
    lesions[box.slices][(distance <= 0) & inside] = number


def _around(at: Region, centre: Point, reach_mm: float) -> Region:
    slices = []
    for axis, middle in zip((at.x, at.y, at.z), centre, strict=True):
        near = np.flatnonzero(np.abs(axis.ravel() - middle) <= reach_mm)
        slices.append(slice(int(near[0]), int(near[-1]) + 1))
    i, j, k = slices
    x, y, z = np.broadcast_arrays(at.x[i], at.y[:, j], at.z[:, :, k])
    return Region((i, j, k), x, y, z)
