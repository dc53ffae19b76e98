"""Planes of the patient's own axes through a volume of any orientation, for pictures."""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

_PIXELS = 600  # along the volume's longest side, about as many as the picture shows


class View(NamedTuple):
    """How one plane is shown: the RAS axis and sign of the picture's right and up, and the words there."""

    name: str
    right: tuple[int, int]
    up: tuple[int, int]
    marks: tuple[str, str, str, str]  # on the left, on the right, at the top, at the bottom


# Radiological convention: one looks from the patient's feet, from the front, and from the left with the nose
# to the left.
VIEWS = (
    View("axial", (0, -1), (1, 1), ("R", "L", "A", "P")),
    View("coronal", (0, -1), (2, 1), ("R", "L", "S", "I")),
    View("sagittal", (1, -1), (2, 1), ("A", "P", "S", "I")),
)


class Plane(NamedTuple):
    """Voxel coordinates of a plane's pixels, ``(3, rows, columns)``, and its width and height in mm."""

    ras_mm: np.ndarray
    size_mm: tuple[float, float]

    def sample(self, volume: np.ndarray, affine: np.ndarray, order: int, outside: float) -> np.ndarray:
        """Take the volume's values at the plane's pixels: ``order`` 1 linearly, 0 from the nearest voxel."""
        inverse = np.linalg.inv(affine)
        index = np.tensordot(inverse[:3, :3], self.ras_mm, axes=1) + inverse[:3, 3, None, None]
        # Half a voxel beyond the outer centres still belongs to the outer voxels.
        limit = np.array(volume.shape)[:, None, None]
        belongs = ((index > -0.5) & (index < limit - 0.5)).all(axis=0)
        values = ndimage.map_coordinates(volume, index, order=order, mode="nearest")
        return np.where(belongs, values, outside)


def planes_through(center_mm: np.ndarray, shape: tuple[int, ...], affine: np.ndarray) -> list[Plane]:
    """Lay the planes of ``VIEWS`` through a point, as wide as the volume, with square pixels of one size."""
    corners = np.array(np.meshgrid(*((-0.5, size - 0.5) for size in shape), indexing="ij")).reshape(3, -1)
    ras = affine[:3, :3] @ corners + affine[:3, 3:]
    low, high = ras.min(axis=1), ras.max(axis=1)
    pixel_mm = float((high - low).max()) / _PIXELS
    planes = []
    for view in VIEWS:
        (u, u_sign), (v, v_sign) = view.right, view.up
        across = np.arange(low[u] + pixel_mm / 2, high[u], pixel_mm)[::u_sign]
        down = np.arange(low[v] + pixel_mm / 2, high[v], pixel_mm)[::-v_sign]
        points = np.empty((3, len(down), len(across)))
        points[:] = center_mm[:, None, None]
        points[u], points[v] = across[None, :], down[:, None]
        planes.append(Plane(points, (len(across) * pixel_mm, len(down) * pixel_mm)))
    return planes


def labelled_center_mm(labels: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return the labelled voxel nearest to the middle of all, in mm; the volume's middle if none is."""
    found = np.argwhere(labels)
    if len(found):
        place = found[np.argmin(((found - found.mean(axis=0)) ** 2).sum(axis=1))]
    else:
        place = (np.array(labels.shape) - 1) / 2
    return affine[:3, :3] @ place + affine[:3, 3]
