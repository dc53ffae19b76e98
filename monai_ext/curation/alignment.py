"""Alignment: how alike two thumbnails are once they lie on one another as well as they can.

The grids of two thumbnails of one scan differ by a scale and a shift along each axis, whatever was cropped,
resampled or written into the affine. Both are found by Gauss-Newton steps on the normalised difference, on half
the grid first. Resampling along axes is a product with one small matrix an axis.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from monai_ext.curation.thumbnails import Thumbnail
from monai_ext.curation.turns import Turn

SCALES = (0.75, 1.34)  # of one grid to the other: cropping by 5 % at each side makes it 0.9
LEAST_SHARED = 0.6  # of each axis; less of a scan is not the scan
COARSE_STEPS, FINE_STEPS = 10, 4
HOPELESS = 0.5  # likeness on the coarse grid below which the fine one is not tried
# Cells, of a picture and of a volume: finer is noise and sampling, coarser is what all patients share.
FINE_BAND = {2: (0.6, 2.5), 3: (0.6, 1.5)}


@dataclass(frozen=True)
class Prepared:
    """A thumbnail as alignment needs it.

    Attributes:
        coarse, fine: the cells at half and at full resolution, without the coarsest structure.
        reach: of the `Thumbnail`.
    """

    coarse: np.ndarray
    fine: np.ndarray
    reach: np.ndarray

    def turned(self, turn: Turn) -> "Prepared":
        """Return the thumbnail of the turned scan."""
        size = self.fine.shape[0]
        reach = np.stack(
            [
                (size - self.reach[axis])[::-1] if back else self.reach[axis]
                for axis, back in zip(turn.axes, turn.flipped, strict=True)
            ]
        )
        return Prepared(turn.apply(self.coarse), turn.apply(self.fine), reach)


def prepare_thumbnail(thumbnail: Thumbnail) -> Prepared:
    """Filter a thumbnail once for all its alignments."""
    cells = thumbnail.cells.astype(np.float32) / 255
    halved = cells
    for axis in range(cells.ndim):
        halved = halved.reshape(*halved.shape[:axis], -1, 2, *halved.shape[axis + 1 :]).mean(axis=axis + 1)
    low, high = FINE_BAND[cells.ndim]
    return Prepared(
        coarse=ndimage.gaussian_filter(halved, 0.7) - ndimage.gaussian_filter(halved, 4.0),
        fine=ndimage.gaussian_filter(cells, low) - ndimage.gaussian_filter(cells, high),
        reach=thumbnail.reach,
    )


def likeness(one: Prepared, other: Prepared) -> float:
    """Return how alike two thumbnails are: the correlation of what they share, at their best alignment.

    1 is the same; different patients reach about 0.5, phantoms of one generator 0.9. Where too little is shared, it
    is 0.
    """
    size = one.fine.shape[0]
    scale_shift = np.stack([np.ones(one.fine.ndim), np.zeros(one.fine.ndim)], axis=1)
    scale_shift, found = _align(one.coarse, other.coarse, one.reach / 2, other.reach / 2, scale_shift, COARSE_STEPS)
    if found < HOPELESS:
        return max(found, 0.0)
    scale_shift[:, 1] *= size / one.coarse.shape[0]
    return max(_align(one.fine, other.fine, one.reach, other.reach, scale_shift, FINE_STEPS)[1], 0.0)


def _align(
    fixed: np.ndarray,
    moving: np.ndarray,
    fixed_reach: np.ndarray,
    moving_reach: np.ndarray,
    start: np.ndarray,
    steps: int,
) -> tuple[np.ndarray, float]:
    """Return scales and shifts ``(axes, 2)`` in cells about the grid's middle, and the correlation there."""
    best, damping = start, 1e-3
    state = _compare(fixed, moving, fixed_reach, moving_reach, best)
    for _ in range(steps):
        if state is None:
            return best, 0.0
        correlation, hessian, slope = state
        step = np.linalg.solve(hessian + damping * np.diag(np.diag(hessian)) + 1e-9 * np.eye(len(slope)), slope)
        tried = best + step.reshape(best.shape)
        tried[:, 0] = tried[:, 0].clip(*SCALES)
        found = _compare(fixed, moving, fixed_reach, moving_reach, tried)
        if found is not None and found[0] > correlation:
            gain = found[0] - correlation
            best, state, damping = tried, found, damping / 4
            if gain < 1e-4:
                break
        else:
            damping *= 16
            if damping > 1e3:
                break
    return best, state[0] if state else 0.0


def _compare(
    fixed: np.ndarray, moving: np.ndarray, fixed_reach: np.ndarray, moving_reach: np.ndarray, scale_shift: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray] | None:
    """Return the correlation of what both show, and the normal equations of a step; None where that is too little."""
    size = fixed.shape[0]
    middle = (size - 1) / 2
    warped, shared, arms = moving, [], []
    for axis, (scale, shift) in enumerate(scale_shift):
        arm = np.arange(size) - middle
        places = scale * arm + shift + middle
        inside = (places >= 0) & (places <= size - 1)
        inside &= (places + 0.5 >= moving_reach[axis, 0]) & (places + 0.5 <= moving_reach[axis, 1])
        inside &= (arm + middle + 0.5 >= fixed_reach[axis, 0]) & (arm + middle + 0.5 <= fixed_reach[axis, 1])
        if inside.sum() < LEAST_SHARED * size:
            return None
        matrix = np.clip(1 - np.abs(places[inside, None] - np.arange(size)), 0, 1).astype(np.float32)
        warped = np.moveaxis(np.tensordot(matrix, warped, (1, axis)), 0, axis)
        shared.append(inside)
        arms.append(arm[inside].astype(np.float32))
    target = _unit(fixed[np.ix_(*shared)])
    spread = float(np.linalg.norm(warped - warped.mean())) + 1e-9
    source = (warped - warped.mean()) / spread
    correlation = float((target * source).sum())
    columns = []
    for axis, arm in enumerate(arms):
        gradient = np.gradient(warped, axis=axis) / (scale_shift[axis, 0] * spread)
        along = arm.reshape([-1 if other == axis else 1 for other in range(fixed.ndim)])
        columns += [(gradient * along).ravel(), gradient.ravel()]
    jacobian = np.stack(columns)
    jacobian -= jacobian.mean(axis=1, keepdims=True)
    jacobian -= (jacobian @ source.ravel())[:, None] * source.ravel()
    return correlation, jacobian @ jacobian.T, jacobian @ (target - source).ravel()


def _unit(values: np.ndarray) -> np.ndarray:
    centred = values - values.mean()
    unit: np.ndarray = centred / (float(np.linalg.norm(centred)) + 1e-9)
    return unit
