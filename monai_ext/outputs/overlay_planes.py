"""Planes of the patient's own axes through a volume of any orientation, for pictures."""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from monai_ext.volumes import spacing_of

_MAX_PIXELS = 700  # along an edge; more is finer than the picture shows


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


def plane_through(center_mm: np.ndarray, view: View, shape: tuple[int, ...], affine: np.ndarray) -> Plane:
    """Lay a plane through a point, as wide as the volume and with square pixels."""
    corners = np.array(np.meshgrid(*((-0.5, size - 0.5) for size in shape), indexing="ij")).reshape(3, -1)
    ras = affine[:3, :3] @ corners + affine[:3, 3:]
    low, high = ras.min(axis=1), ras.max(axis=1)
    (u, u_sign), (v, v_sign) = view.right, view.up
    pixel_mm = max(min(spacing_of(affine)), float(max(high[u] - low[u], high[v] - low[v])) / _MAX_PIXELS)
    across = np.arange(low[u] + pixel_mm / 2, high[u], pixel_mm)[::u_sign]
    down = np.arange(low[v] + pixel_mm / 2, high[v], pixel_mm)[::-v_sign]
    points = np.empty((3, len(down), len(across)))
    points[:] = center_mm[:, None, None]
    points[u], points[v] = across[None, :], down[:, None]
    return Plane(points, (len(across) * pixel_mm, len(down) * pixel_mm))


def labelled_center_mm(labels: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return the labelled voxel nearest to the middle of all labelled ones, in mm; the volume's middle if none."""
    found = np.argwhere(labels)
    if len(found):
        place = found[np.argmin(((found - found.mean(axis=0)) ** 2).sum(axis=1))]
    else:
        place = (np.array(labels.shape) - 1) / 2
    return affine[:3, :3] @ place + affine[:3, 3]
