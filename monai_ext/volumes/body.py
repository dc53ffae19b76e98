"""Where the patient is in a CT volume: a mask, its box, and voxels to centre crops on."""

from dataclasses import dataclass
from typing import cast

import numpy as np
from scipy import ndimage

from monai_ext.base import ScanError, derive_seed

BODY_HU = -400.0  # midway between air and fat; lung is below it and comes back with the holes
CELL_MM = 4.5  # fine enough for a crop's centre, coarse enough to cost 1 % of a full-size mask
SAMPLE_VOXELS = 4096

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Body:
    """The part of a volume that the patient fills.

    Attributes:
        box: first voxel and one past the last voxel, per axis.
        voxels: ``(k, 3)`` int64 indices of body voxels, spread evenly over the body.
    """

    box: tuple[Triple, Triple]
    voxels: np.ndarray


def find_body(hu: np.ndarray, spacing_mm: tuple[float, float, float], case: str) -> Body:
    """Find the body's bounding box and draw voxels from it; the same volume always gives the same draw.

    Args:
        hu: ``(x, y, z)`` HU in RAS+.
        spacing_mm: voxel edges.
        case: the id for messages.

    Raises:
        ScanError: nothing in the volume is denser than air.
    """
    mask = body_mask(hu, spacing_mm)
    if not mask.any():
        raise ScanError(
            f"{case}: no body found, nothing of {CELL_MM:g} mm is above {BODY_HU:g} HU; "
            "check that the scan is in HU and shows a patient, or leave it out",
            code="scan.no_body",
            case=case,
        )
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    return Body(
        box=(_triple([part.start for part in box]), _triple([part.stop for part in box])),
        voxels=_sample(mask, np.random.default_rng(derive_seed("body voxels", *hu.shape))),
    )


def body_mask(
    hu: np.ndarray, spacing_mm: tuple[float, float, float], above: float = BODY_HU, piece: float | None = None
) -> np.ndarray:
    """Return a boolean mask of the body, lungs and bowel gas included, table and tubes left out.

    It is found on cells of about 4.5 mm: mean above -400 HU, thin connections opened, the largest piece
    kept, holes of its axial slices filled. A thing thinner than two cells is no body, unless the volume
    holds nothing thicker.

    Args:
        hu: ``(x, y, z)`` HU in RAS+.
        spacing_mm: voxel edges.
        above: what the mean of a cell of body exceeds, where the values are no HU.
        piece: keep every piece of at least this share of the largest one, not the largest alone.
    """
    cell = [max(1, min(round(CELL_MM / mm), size)) for mm, size in zip(spacing_mm, hu.shape, strict=True)]
    dense = _cell_means(hu, cell) > above
    # A table touches the back over a thin line; opening with the border as body keeps cut-off patients whole.
    opened = ndimage.binary_erosion(dense, border_value=1)
    opened = ndimage.binary_dilation(opened) & dense
    body = _pieces(opened if opened.any() else dense, piece)
    for z in range(body.shape[2]):
        body[:, :, z] = ndimage.binary_fill_holes(body[:, :, z])
    for axis, edge in enumerate(cell):
        body = np.repeat(body, edge, axis=axis)
    return body[tuple(slice(size) for size in hu.shape)]


def _cell_means(hu: np.ndarray, cell: list[int]) -> np.ndarray:
    # One axis at a time; a last cell that is cut off is the mean of what it holds.
    means = hu
    for axis, edge in enumerate(cell):
        starts = np.arange(0, hu.shape[axis], edge)
        counts = np.diff(np.append(starts, hu.shape[axis]))
        means = np.add.reduceat(means, starts, axis=axis, dtype=np.float32)
        means /= counts.reshape([-1 if other == axis else 1 for other in range(3)]).astype(np.float32)
    return means


def _sample(mask: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    # Without replacement, so that a small body is listed voxel by voxel; plane by plane, for the indices of
    # all body voxels would take more memory than the volume.
    counts = np.count_nonzero(mask, axis=(1, 2))
    ends = np.cumsum(counts)
    total = int(ends[-1])
    ranks = np.sort(generator.choice(total, min(SAMPLE_VOXELS, total), replace=False))
    planes = np.searchsorted(ends, ranks, side="right")
    voxels = np.empty((ranks.size, 3), np.int64)
    for x in np.unique(planes):
        here = planes == x
        flat = np.flatnonzero(mask[x])[ranks[here] - (ends[x] - counts[x])]
        voxels[here] = np.stack([np.full_like(flat, x), *np.unravel_index(flat, mask.shape[1:])], axis=1)
    return voxels


def _pieces(mask: np.ndarray, share: float | None) -> np.ndarray:
    pieces, _ = ndimage.label(mask)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0  # the background is no piece
    kept = np.arange(len(sizes)) == sizes.argmax() if share is None else sizes >= share * sizes.max()
    return cast(np.ndarray, kept[pieces] & mask)


def _triple(values: list[int]) -> Triple:
    x, y, z = values
    return x, y, z
