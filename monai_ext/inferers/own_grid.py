"""The way back from a network's grid to a scan's own, for one part of the logits after the other.

A network's grid has the scan's axes turned to RAS and another spacing, so that linear interpolation can be done along
one axis after another; voxels beyond the network's grid take the value at its edge.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

from monai_ext.base import GeometryError
from monai_ext.volumes import largest_shift_mm, spacing_of

_STILL = 1e-6  # of a voxel: where headers of float32 round, no voxel is moved
_OFF = 0.01  # of a voxel: more is another grid, no rounding


@dataclass(frozen=True)
class OwnGrid:
    """A scan's own grid as seen from the grid of its network.

    Attributes:
        shape: voxels of the scan along the axes of its file.
        turn: nibabel's orientation of these axes, which makes RAS of them.
        places: for each axis of the network's grid where the scan's voxels lie on it, ascending.
    """

    shape: tuple[int, int, int]
    turn: np.ndarray
    places: tuple[np.ndarray, np.ndarray, np.ndarray]

    @classmethod
    def of(cls, image: MetaTensor) -> "OwnGrid":
        """Return the own grid of a ``(1, x, y, z)`` image that ``load_ct`` has made.

        Voxels that are mirrored, or whose axes of one size are exchanged, by what does not change ``meta`` (``flip``
        and ``permute`` of torch) leave no trace, and are taken for what ``load_ct`` made.

        Raises:
            GeometryError: the image does not say where it came from, or lies on a grid of other axes.
        """
        case = str(image.meta.get("case") or "scan")
        affine, shape = image.meta.get("original_affine"), image.meta.get("spatial_shape")
        if affine is None or shape is None:
            raise GeometryError(
                f"{case}: it does not say on which grid it was read; read it with load_ct", code="grid.unknown"
            )
        own, here = np.asarray(affine, dtype=np.float64), image.affine.cpu().numpy().astype(np.float64)
        x, y, z = (int(size) for size in shape)
        turn = nib.orientations.io_orientation(own)
        turned = own @ nib.orientations.inv_ornt_aff(turn, (x, y, z))
        sizes = [(x, y, z)[int(axis)] for axis in np.argsort(turn[:, 0])]
        step = np.linalg.solve(here, turned)
        zoom, offset = np.diag(step)[:3].copy(), step[:3, 3].copy()
        zoom[np.abs(zoom - 1) < _STILL] = 1
        offset[np.abs(offset) < _STILL * max(sizes)] = 0
        straight = np.diag([*zoom, 1])
        straight[:3, 3] = offset
        last = offset + zoom * (np.array(sizes) - 1)
        beyond = np.maximum(-offset, last - image.shape[1:])
        off = largest_shift_mm(sizes, here @ straight, turned) / min(spacing_of(here))
        # MONAI rounds sizes to whole voxels, and may lay the middles of both grids on each other; it measures between
        # all corners, which axes not quite at right angles lay further apart.
        steps = np.array(sizes) - 1
        least, most = np.abs(zoom) * steps - 0.5 - _OFF, np.abs(step[:3, :3]) @ steps + 0.5 + _OFF
        own_size = ((np.array(image.shape[1:]) - 1 >= least) & (np.array(image.shape[1:]) - 1 <= most)).all()
        if off > _OFF or not own_size or (beyond > 1 + zoom).any() or min(zoom) <= 0:
            raise GeometryError(
                f"{case}: it does not lie along the axes on which it was read; turn and resample it with load_ct alone",
                code="grid.axes",
                case=case,
            )
        px, py, pz = (
            np.clip(offset[axis] + zoom[axis] * np.arange(sizes[axis]), 0, image.shape[axis + 1] - 1)
            for axis in range(3)
        )
        return cls((x, y, z), turn, (px, py, pz))

    def in_ras(self, volume: np.ndarray) -> np.ndarray:
        """Return a view of a volume on the scan's own grid whose axes run as those of the network's grid."""
        return nib.orientations.apply_orientation(volume, self.turn)

    def between(self, axis: int, start: int, stop: int) -> slice:
        """Return the scan's voxels, in RAS, that need these voxels of the network's grid and none after them."""
        first, last = np.searchsorted(np.ceil(self.places[axis]), (start, stop))
        return slice(int(first), int(last))

    def weights(self, axis: int, start: int, stop: int, low: int) -> Tensor | None:
        """Return what interpolates voxels ``low`` to ``stop`` to the scan's voxels `between` ``start`` and ``stop``.

        Shape:
            ``(scan's voxels, network's voxels)``; ``None`` where they are the same ones.
        """
        places = self.places[axis][self.between(axis, start, stop)]
        below = np.floor(places)
        part = places - below
        matrix = np.zeros((len(places), stop - low), np.float32)
        rows = np.arange(len(places))
        matrix[rows, below.astype(int) - low] = 1 - part
        matrix[rows, np.ceil(places).astype(int) - low] += part
        if matrix.shape[0] == matrix.shape[1] and np.array_equal(matrix, np.eye(len(matrix))):
            return None
        return torch.from_numpy(matrix)


def interpolated(values: Tensor, weights: Sequence[Tensor | None]) -> Tensor:
    """Interpolate ``(classes, x, y, z)`` along each axis, by products that run at a matrix's speed."""
    x, y, z = weights
    with torch.autocast(values.device.type, enabled=False):
        if z is not None:
            values = torch.matmul(values, z.T)
        if y is not None:
            values = torch.matmul(y, values)
        if x is not None:
            classes, _, *rest = values.shape
            values = torch.matmul(x, values.flatten(2)).reshape(classes, len(x), *rest)
    return values
