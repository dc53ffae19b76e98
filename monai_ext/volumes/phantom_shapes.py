"""Implicit shapes and the canvas that the phantom torso is painted on.

A shape is the signed distance of every voxel to its surface, in mm and negative inside. Painting turns the
distance into a share of the voxel, so that edges carry the partial volume a scanner would see.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Point = tuple[float, float, float]

AIR_HU = -1000.0


@dataclass(frozen=True)
class Region:
    """A box of the canvas.

    Attributes:
        slices: where the box lies in the volume.
        x: reference coordinate of each voxel in mm, rising toward the patient's right.
        y: the same toward the front.
        z: the same toward the head.
    """

    slices: tuple[slice, slice, slice]
    x: Array
    y: Array
    z: Array


class Canvas:
    """A volume that shapes are painted on, later ones over earlier ones.

    Shapes are described in the reference torso's millimetres; the patient's size, place and bends turn them
    into this patient's.

    Args:
        shape: voxels along x, y, z.
        spacing_mm: voxel size along x, y, z.
        scale: size of this patient relative to the reference, along x, y, z.
        shift_mm: where the reference origin lies relative to the middle of the volume.
        bend_mm: largest displacement of the smooth deformation that makes each patient's shapes their own.
        rng: draws the deformation.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        spacing_mm: tuple[float, float, float],
        scale: Point,
        shift_mm: Point,
        bend_mm: float,
        rng: np.random.Generator,
    ) -> None:
        self.spacing_mm = spacing_mm
        self.edge_mm = float(np.mean(spacing_mm))
        self.bend_mm = bend_mm
        self.hu = np.full(shape, AIR_HU, np.float32)
        self.labels = np.zeros(shape, np.uint8)
        self.axes = [
            (((np.arange(n) - (n - 1) / 2) * step - shift) / size).astype(np.float32)
            for n, step, shift, size in zip(shape, spacing_mm, shift_mm, scale, strict=True)
        ]
        grid = np.meshgrid(*self.axes, indexing="ij")
        moved = [axis + bend_mm * smooth_field(shape, (4, 4, 5), rng) for axis in grid]
        self.whole = Region((slice(None),) * 3, *moved)

    def region(self, low: Point, high: Point) -> Region:
        """The box from ``low`` to ``high`` in reference mm, enlarged by what bends and edges may add."""
        margin = self.bend_mm + 2 * self.edge_mm
        slices = tuple(
            slice(
                int(np.searchsorted(axis, start - margin)),
                int(np.searchsorted(axis, stop + margin, side="right")),
            )
            for axis, start, stop in zip(self.axes, low, high, strict=True)
        )
        return Region(
            (slices[0], slices[1], slices[2]),
            self.whole.x[slices],
            self.whole.y[slices],
            self.whole.z[slices],
        )

    def around(self, points: Sequence[Point], reach_mm: float) -> Region:
        """The box that holds everything within ``reach_mm`` of the points."""
        low, high = np.min(points, axis=0) - reach_mm, np.max(points, axis=0) + reach_mm
        return self.region((low[0], low[1], low[2]), (high[0], high[1], high[2]))

    def paint(self, region: Region, distance: Array, hu: float | Array, label: int | None = 0) -> None:
        """Cover the inside of a shape with ``hu`` and, where it fills most of a voxel, with ``label``.

        ``None`` leaves the labels as they are, for vessels inside an organ.
        """
        share = np.clip(0.5 - distance / np.float32(self.edge_mm), 0, 1)
        view = self.hu[region.slices]
        view += share * (hu - view)
        if label is not None:
            self.labels[region.slices][share >= 0.5] = label


def ellipsoid(region: Region, centre: Point, radii: Point, turn: Point = (0.0, 0.0, 0.0)) -> Array:
    """Distance to an ellipsoid whose axes are turned by ``turn`` radians about x, y and z, one after the other."""
    offset = [region.x - centre[0], region.y - centre[1], region.z - centre[2]]
    for axis, angle in enumerate(turn):
        if angle:
            first, second = (axis + 1) % 3, (axis + 2) % 3
            a, b, c, s = offset[first], offset[second], float(np.cos(angle)), float(np.sin(angle))
            offset[first], offset[second] = c * a + s * b, c * b - s * a
    unit = sum((o / r) ** 2 for o, r in zip(offset, radii, strict=True))
    slope = sum((o / r**2) ** 2 for o, r in zip(offset, radii, strict=True))
    # First-order distance: the implicit value over the length of its gradient, which vanishes in the middle.
    root, middle = np.sqrt(unit), slope < 1e-12
    reach = np.where(middle, min(radii), root / np.sqrt(np.where(middle, 1, slope)))
    return ((root - 1) * reach).astype(np.float32)


def capsule(region: Region, start: Point, end: Point, start_mm: float, end_mm: float) -> Array:
    """Distance to a tube from ``start`` to ``end`` with round ends, whose radius changes linearly.

    Where both ends are one place it is a ball of ``start_mm``.
    """
    along = np.subtract(end, start)
    dx, dy, dz = region.x - start[0], region.y - start[1], region.z - start[2]
    length = float(along @ along) or 1.0
    t = np.clip((dx * float(along[0]) + dy * float(along[1]) + dz * float(along[2])) / length, 0, 1)
    gap = (dx - t * float(along[0])) ** 2 + (dy - t * float(along[1])) ** 2 + (dz - t * float(along[2])) ** 2
    return np.sqrt(gap) - (start_mm + t * (end_mm - start_mm))


def blend(first: Array, second: Array, width_mm: float) -> Array:
    """Union of two shapes with a fillet of ``width_mm`` between them."""
    gap = np.maximum(width_mm - np.abs(first - second), 0) / width_mm
    return np.minimum(first, second) - gap * gap * (width_mm / 4)


def smooth_field(shape: tuple[int, int, int], knots: Point, rng: np.random.Generator) -> Array:
    """A smooth random field within -1 and 1, from ``knots`` control values an axis; ``(x, y, z)``."""
    field = rng.uniform(-1, 1, [int(k) for k in knots]).astype(np.float32)
    for axis in range(3):
        weights = _hat_weights(shape[axis], field.shape[axis])
        field = np.moveaxis(np.tensordot(weights, field, (1, axis)), 0, axis)
    return np.ascontiguousarray(field, dtype=np.float32)


def _hat_weights(samples: int, knots: int) -> Array:
    # Raised cosines: they sum to one and have no kink, so bends show no crease.
    place = np.linspace(0, knots - 1, samples)[:, None] - np.arange(knots)
    return (0.5 + 0.5 * np.cos(np.pi * np.clip(place, -1, 1))).astype(np.float32)
