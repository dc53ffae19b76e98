"""Candidates: which of thousands of scans might be the same, by a distance that slight changes hardly move.

Scans of one kind are alike, so a plain distance between signatures tells little. The distance here is learned
from the scans at hand (Fisher's linear discriminant): directions in which scans differ count, those in which
one scan moves when it is cropped, resampled or given another grey scale do not.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg, ndimage

from monai_ext.base import derive_seed
from monai_ext.curation.signatures import signature, turned_signatures
from monai_ext.curation.thumbnails import overlap_matrix

KEPT = 48  # directions; more would hold what cropping moves
SAMPLE = 256  # scans that the distance is learned from
CHANGES = 4  # changed copies of each
NEAREST = 5  # candidates of each scan
BLOCK = 2048  # scans a side of one block: 16 MB of distances


@dataclass(frozen=True)
class Space:
    """Where distances are taken.

    Attributes:
        mean: ``(waves,)``: the usual scan.
        directions: ``(waves, kept)``, scaled so that slight changes move a scan by about 1 along each.
        axes: 3 for volumes, 2 for pictures.
    """

    mean: np.ndarray
    directions: np.ndarray
    axes: int

    def place(self, signatures: np.ndarray) -> np.ndarray:
        """Return ``(..., kept)`` places of ``(..., waves)`` signatures."""
        placed: np.ndarray = (signatures - self.mean) @ self.directions
        return placed


@dataclass(frozen=True)
class LikelyPair:
    """Two scans that may be the same.

    Attributes:
        first, second: their numbers.
        distance: between their places, squared.
    """

    first: int
    second: int
    distance: float


def learn_space(thumbnails: Sequence[np.ndarray], signatures: np.ndarray) -> Space:
    """Learn the distance from scans and changed copies of some; the same scans always give the same one.

    Args:
        thumbnails: cells of a sample of the scans.
        signatures: ``(scans, waves)`` of all.
    """
    axes = thumbnails[0].ndim
    changes = []
    for number, cells in enumerate(thumbnails):
        rng = np.random.default_rng(derive_seed("changed scan", number))
        own = signature(cells)
        changes += [signature(_changed(cells, rng)) - own for _ in range(CHANGES)]
    moved = np.array(changes, dtype=np.float64)
    within = moved.T @ moved / len(moved)
    # A floor, for waves that hardly move would count without limit.
    within += np.eye(len(within)) * (0.01 * np.trace(within) / len(within) + 1e-6)
    mean = signatures.mean(axis=0, dtype=np.float64)
    apart = signatures - mean
    between = apart.T @ apart / len(apart)
    _, directions = linalg.eigh(between, within, subset_by_index=(max(0, len(within) - KEPT), len(within) - 1))
    return Space(mean.astype(np.float32), directions.astype(np.float32), axes)


def nearest(space: Space, first: np.ndarray, second: np.ndarray | None = None) -> list[LikelyPair]:
    """Return for each scan of either list the nearest ones of the other, over all turns; each pair once.

    Distances are taken a block at a time, so that memory rises with the scans and not with their square.

    Args:
        space: see `learn_space`.
        first: ``(scans, waves)`` signatures.
        second: those of the other list; the first ones themselves by default.
    """
    others = first if second is None else second
    places = space.place(others)
    by_first, by_second = _Nearest(len(first)), _Nearest(len(others))
    for start in range(0, len(first), BLOCK):
        turned = space.place(turned_signatures(first[start : start + BLOCK], space.axes))
        for begin in range(0, len(others), BLOCK):
            distances = _distances(turned, places[begin : begin + BLOCK])
            if second is None and begin == start:
                np.fill_diagonal(distances, np.inf)
            by_first.add(start, begin, distances)
            if second is not None:
                by_second.add(begin, start, distances.T)
    found = {(one, other): distance for one, other, distance in by_first.pairs()}
    found |= {(one, other): distance for other, one, distance in by_second.pairs()}
    if second is None:
        found = {(min(pair), max(pair)): distance for pair, distance in found.items()}
    return [LikelyPair(*pair, distance) for pair, distance in sorted(found.items())]


class _Nearest:
    """The nearest scans of each of a list, as far as distances have been seen."""

    def __init__(self, scans: int) -> None:
        self.distances = np.full((scans, NEAREST), np.inf, np.float32)
        self.numbers = np.zeros((scans, NEAREST), np.int64)

    def add(self, start: int, begin: int, distances: np.ndarray) -> None:
        """Take note of distances from scans numbered from start on to others numbered from begin on."""
        rows = slice(start, start + len(distances))
        count = min(NEAREST, distances.shape[1])
        columns = np.argpartition(distances, count - 1, axis=1)[:, :count]
        joined = np.hstack([self.distances[rows], np.take_along_axis(distances, columns, 1)])
        numbers = np.hstack([self.numbers[rows], begin + columns])
        keep = np.argsort(joined, axis=1, kind="stable")[:, :NEAREST]
        self.distances[rows] = np.take_along_axis(joined, keep, 1)
        self.numbers[rows] = np.take_along_axis(numbers, keep, 1)

    def pairs(self) -> Iterator[tuple[int, int, float]]:
        """Yield number, number of a near one, and their distance."""
        for row, column in np.argwhere(np.isfinite(self.distances)):
            yield int(row), int(self.numbers[row, column]), float(self.distances[row, column])


def _distances(turned: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return ``(scans, places)`` squared distances, each the least over the turns ``(turns, scans, kept)``."""
    norms = np.square(places).sum(axis=1)
    found = np.full((turned.shape[1], len(places)), np.inf, np.float32)
    for rows in turned:
        products = rows @ places.T
        products *= -2
        products += np.square(rows).sum(axis=1)[:, None]
        products += norms
        np.minimum(found, products, out=found)
    return np.maximum(found, 0, out=found)


def _changed(cells: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Do to a thumbnail what cropping by 5 %, resampling and another grey scale would."""
    changed = cells.astype(np.float32)
    for axis, size in enumerate(cells.shape):
        half, middle = size / 2 * rng.uniform(0.9, 1.1), size / 2 + size * rng.uniform(-0.05, 0.05)
        matrix = overlap_matrix(size, middle - half, middle + half, size)
        changed = np.moveaxis(np.tensordot(matrix, changed, (1, axis)), 0, axis)
    changed = ndimage.gaussian_filter(changed, rng.uniform(0, 0.7))
    clipped: np.ndarray = np.clip(255 * rng.uniform(-0.1, 0.1) + rng.uniform(0.85, 1.15) * changed, 0, 255)
    return clipped
