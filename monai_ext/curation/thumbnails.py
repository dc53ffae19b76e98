"""Thumbnails: what is left of a scan when grid, spacing, grey scale and the air around the patient are taken away."""

from dataclasses import dataclass

import numpy as np

CELLS = {2: 48, 3: 32}  # along each axis, of a picture and of a volume
INNER = (0.02, 0.98)  # shares of the body's mass between which the frame of a volume lies, along each axis
GREY = (0.02, 0.98)  # shares of the body's values that become black and white
SAMPLE = 64  # voxels along an axis that suffice to find the grey scale


@dataclass(frozen=True)
class Thumbnail:
    """A scan on a coarse grid of its own.

    Attributes:
        cells: ``(32, 32, 32)`` of a volume, ``(48, 48)`` of a picture; uint8.
        reach: ``(axes, 2)``: where the scan itself begins and ends along each axis, in cells; what the grid
            shows beyond repeats the scan's edge.
    """

    cells: np.ndarray
    reach: np.ndarray


def volume_thumbnail(voxels: np.ndarray) -> Thumbnail:
    """Shrink a volume to the box that holds the middle 96 % of its body along each axis.

    Neither the box nor the grey scale needs the spacing or HU, so that a wrong affine or a missing rescale
    changes nothing: the body is what lies above the best threshold between two kinds of voxels (Otsu 1979,
    doi:10.1109/TSMC.1979.4310076), and the grey scale runs between quantiles of its values.

    Args:
        voxels: ``(x, y, z)``, finite and not all the same.
    """
    sample = voxels[tuple(slice(None, None, max(1, size // SAMPLE)) for size in voxels.shape)]
    sample = sample if sample.min() < sample.max() else voxels
    threshold = _otsu(sample)
    low, high = np.quantile(sample[sample > threshold], GREY)
    body = voxels > threshold
    frame = []
    for axis in range(3):
        mass = body.sum(axis=tuple(other for other in range(3) if other != axis), dtype=np.int64)
        share = np.append(0, np.cumsum(mass)) / mass.sum()
        frame.append(np.interp(INNER, share, np.arange(share.size)))
    # Of a body with one value throughout, the threshold is what sets it off.
    return _shrink(voxels, np.array(frame), float(low) if low < high else threshold, float(high))


def picture_thumbnail(pixels: np.ndarray) -> Thumbnail:
    """Shrink a picture as it is, for pictures have no air around them.

    Args:
        pixels: uint8 ``(y, x, 3)``.
    """
    grey = pixels.mean(axis=2, dtype=np.float32)
    low, high = np.quantile(grey, GREY)
    frame = np.array([(0, size) for size in grey.shape], dtype=float)
    return _shrink(grey, frame, float(low), float(max(high, low + 1)))


def overlap_matrix(size: int, start: float, stop: float, cells: int) -> np.ndarray:
    """Return ``(cells, size)`` weights that average a row of voxels over equal cells from start to stop.

    Voxel ``i`` fills the range from ``i`` to ``i + 1``; beyond the row, its first and last voxel repeat.
    """
    edges = np.linspace(start, stop, cells + 1)
    filled = np.clip(edges[:, None] - np.arange(size), 0, 1)
    filled[:, 0] += np.minimum(edges, 0)
    filled[:, -1] += np.maximum(edges - size, 0)
    weights: np.ndarray = np.diff(filled, axis=0) * (cells / (stop - start))
    return weights.astype(np.float32)


def _shrink(voxels: np.ndarray, frame: np.ndarray, low: float, high: float) -> Thumbnail:
    count = CELLS[voxels.ndim]
    weights = [
        overlap_matrix(size, start, stop, count) for size, (start, stop) in zip(voxels.shape, frame, strict=True)
    ]
    planes = []
    for plane in voxels:  # plane by plane, for a clipped copy would be as large as the volume
        small = np.clip((plane.astype(np.float32) - low) / (high - low), 0, 1)
        for axis, matrix in enumerate(weights[1:]):
            small = np.moveaxis(np.tensordot(matrix, small, (1, axis)), 0, axis)
        planes.append(small)
    small = np.tensordot(weights[0], np.stack(planes), 1)
    whole = np.array([(0, size) for size in voxels.shape])
    reach = (whole - frame[:, :1]) / np.diff(frame) * count
    return Thumbnail(np.rint(255 * np.clip(small, 0, 1)).astype(np.uint8), reach.astype(np.float32))


def _otsu(values: np.ndarray) -> float:
    counts, edges = np.histogram(values, 256)
    middles = (edges[1:] + edges[:-1]) / 2
    below, mass = np.cumsum(counts)[:-1], np.cumsum(counts * middles)[:-1]
    total, mean = counts.sum(), float((counts * middles).sum() / counts.sum())
    between = (mean * below - mass) ** 2 / (below * (total - below))  # both kinds hold a value: the ends do
    return float(edges[1 + int(np.argmax(between))])
