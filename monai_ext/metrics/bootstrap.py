"""Confidence intervals by bootstrap over images or patients, from a sketch of every image's scores.

Drawing pixels would be wrong, for those of one image are alike; drawing images and ranking all pixels anew would
take days. Each image is kept as quantiles of its normal and of its abnormal scores, and replicates are weighted
histograms of those. The sketch serves the spread alone: intervals are laid around the exact values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from monai_ext.base import SettingError, derive_seed

NAN = float("nan")
PIXEL_MEASURES = ("auroc", "average_precision", "f1_max", "aupro")
IMAGE_MEASURES = ("auroc", "average_precision", "f1_max")

_ATOMS = 256  # quantiles kept of an image's normal and of its abnormal scores
_BINS = 1024  # of a histogram, at quantiles of all atoms


@dataclass(frozen=True)
class Interval:
    """A confidence interval; NaN where the measure, or more than half of the replicates, are undefined."""

    low: float
    high: float


@dataclass(frozen=True)
class Counts:
    """Scores of units (images or patients) counted in bins of falling score.

    Attributes:
        positives: abnormal pixels or images, ``(units, bins)``.
        negatives: normal ones.
        overlap: sums of 1 / (pixels of the pixel's region).
        regions: of each unit, ``(units,)``.
    """

    positives: np.ndarray
    negatives: np.ndarray
    overlap: np.ndarray
    regions: np.ndarray

    def replicates(self, count: int, seed: int, fpr_limit: float = 0.3) -> dict[str, np.ndarray]:
        """Return each measure of all units, then of ``count`` draws of units with replacement: ``(1 + count,)``.

        Args:
            count: of draws.
            seed: of the draws.
            fpr_limit: of AUPRO.
        """
        units = len(self.regions)
        generator = np.random.default_rng(seed)
        weights = np.concatenate([np.ones((1, units)), generator.multinomial(units, [1 / units] * units, count)])
        return binned_measures(
            weights @ self.positives,
            weights @ self.negatives,
            weights @ self.overlap,
            weights @ self.regions,
            fpr_limit,
        )


class PixelSketch:
    """Collects images for a bootstrap of the pixel measures.

    Args:
        atoms: quantiles kept of an image's normal and of its abnormal scores; 16 bytes each.
    """

    def __init__(self, atoms: int = _ATOMS) -> None:
        self.atoms = atoms
        self._units: list[str] = []
        self._normal: list[tuple[np.ndarray, np.ndarray]] = []
        self._abnormal: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._regions: list[int] = []

    def update(self, scores: np.ndarray, mask: np.ndarray, unit: str) -> None:
        """Add an image ``(h, w)`` or a volume.

        Args:
            scores: higher is more abnormal.
            mask: 0 or 1, the same shape.
            unit: what is drawn as a whole: the image, or its patient.
        """
        mask = mask.astype(bool)
        labelled, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
        sizes = np.bincount(labelled.ravel())
        normal = np.sort(scores[~mask])
        values, counts, _ = _atoms(normal, np.zeros(len(normal)), self.atoms)
        order = np.argsort(scores[mask])
        self._normal.append((values, counts))
        self._abnormal.append(_atoms(scores[mask][order], 1 / sizes[labelled[mask]][order], self.atoms))
        self._regions.append(count)
        self._units.append(unit)

    def counts(self) -> Counts:
        """Return the counts of all units, in bins that fit all of them."""
        everything = [part[0] for part in (*self._normal, *self._abnormal)]
        edges = _quantiles(np.concatenate(everything)) if everything else np.empty(0)
        abnormal = [part[0] for part in self._abnormal if len(part[0])]
        if abnormal:
            edges = np.union1d(edges, _quantiles(np.concatenate(abnormal)))
        names = sorted(set(self._units))
        rows = _places(names, self._units)
        shape = (len(names), len(edges) + 1)
        positives, negatives, overlap = (np.zeros(shape, np.float32) for _ in range(3))
        regions = np.zeros(len(names))
        for row, normal, (values, counts, shares), found in zip(
            rows, self._normal, self._abnormal, self._regions, strict=True
        ):
            np.add.at(negatives[row], np.searchsorted(edges, normal[0], side="right"), normal[1])
            places = np.searchsorted(edges, values, side="right")
            np.add.at(positives[row], places, counts)
            np.add.at(overlap[row], places, shares)
            regions[row] += found
        falling = slice(None, None, -1)
        return Counts(positives[:, falling], negatives[:, falling], overlap[:, falling], regions)


def image_counts(labels: Sequence[int], scores: Sequence[float], units: Sequence[str]) -> Counts:
    """Return the counts of images by their scores, exactly.

    Args:
        labels: 0 or 1 of each image.
        scores: of each image.
        units: what is drawn as a whole: the image, or its patient.
    """
    distinct, bins = np.unique(np.asarray(scores), return_inverse=True)
    names = sorted(set(units))
    rows = _places(names, units)
    positives, negatives = (np.zeros((len(names), len(distinct))) for _ in range(2))
    truth = np.asarray(labels).astype(bool)
    np.add.at(positives, (rows[truth], bins[truth]), 1)
    np.add.at(negatives, (rows[~truth], bins[~truth]), 1)
    falling = slice(None, None, -1)
    return Counts(positives[:, falling], negatives[:, falling], np.zeros_like(positives), np.zeros(len(names)))


def binned_measures(
    positives: np.ndarray, negatives: np.ndarray, overlap: np.ndarray, regions: np.ndarray, fpr_limit: float
) -> dict[str, np.ndarray]:
    """Return the measures of each row of counts in bins of falling score; those of a bin are ties.

    Shape:
        three of ``(rows, bins)`` and ``(rows,)`` ``->`` ``(rows,)`` for each of ``PIXEL_MEASURES``
    """
    p, n = positives.astype(np.float64), negatives.astype(np.float64)
    total, normal = p.sum(axis=1), n.sum(axis=1)
    true, false = np.cumsum(p, axis=1), np.cumsum(n, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        ranked = (p * (normal[:, None] - false + n / 2)).sum(axis=1) / (total * normal)
        precision = np.where(true + false > 0, true / (true + false), 0)
        average = (p * precision).sum(axis=1) / total
        best = (2 * true / (true + false + total[:, None])).max(axis=1)
        rate = false / normal[:, None]
        share = np.cumsum(overlap.astype(np.float64), axis=1) / regions[:, None]
        before_rate, before_share = rate - n / normal[:, None], share - overlap / regions[:, None]
        width = np.clip(fpr_limit - before_rate, 0, None)
        part = np.where(n > 0, np.minimum(width * normal[:, None] / np.where(n > 0, n, 1), 1), 0)
        mean_share = before_share + (share - before_share) * part / 2
        area = (np.minimum(width, n / normal[:, None]) * mean_share).sum(axis=1) / fpr_limit
    nothing = (total == 0) | (normal == 0)
    return {
        "auroc": np.where(nothing, NAN, ranked),
        "average_precision": np.where(total == 0, NAN, average),
        "f1_max": np.where(total == 0, NAN, best),
        "aupro": np.where((regions == 0) | (normal == 0), NAN, area),
    }


def interval(replicates: np.ndarray, exact: float, confidence: float = 0.95) -> Interval:
    """Return the percentile interval of replicates, moved by what their sketch misses of the exact value.

    Args:
        replicates: the value of all units first, then those of the draws.
        exact: value of all units.
        confidence: of the interval.

    Raises:
        SettingError: a confidence out of range.
    """
    if not 0 < confidence < 1:
        raise SettingError(f"confidence: {confidence} is none; give a share such as 0.95", code="setting.confidence")
    draws = replicates[1:][np.isfinite(replicates[1:])]
    if not np.isfinite(exact) or len(draws) <= len(replicates[1:]) / 2 or not len(draws):
        return Interval(NAN, NAN)
    missed = exact - replicates[0] if np.isfinite(replicates[0]) else 0.0
    low, high = np.clip(np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2]) + missed, 0, 1)
    return Interval(float(low), float(high))


def mean_replicates(by_class: Sequence[Mapping[str, np.ndarray]], measure: str) -> np.ndarray:
    """Average a measure over the classes that have it, draw by draw."""
    rows = np.stack([one[measure] for one in by_class])
    known = rows[np.isfinite(rows[:, 0])]
    return known.mean(axis=0) if len(known) else np.full(rows.shape[1], NAN)


def bootstrap_seed(seed: int, name: str, level: str) -> int:
    """Return the seed of a class's draws."""
    return derive_seed(seed, "bootstrap", name, level)


def _atoms(ordered: np.ndarray, shares: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return up to ``count`` values that stand for runs of a rising list, their counts, and their summed shares."""
    if not len(ordered):
        return np.empty(0, np.float32), np.empty(0, np.float32), np.empty(0, np.float32)
    ends = np.unique(np.linspace(0, len(ordered), min(count, len(ordered)) + 1).astype(np.int64))
    starts, sizes = ends[:-1], np.diff(ends)
    middle = ordered[starts + sizes // 2]
    return middle.astype(np.float32), sizes.astype(np.float32), np.add.reduceat(shares, starts).astype(np.float32)


def _quantiles(values: np.ndarray) -> np.ndarray:
    return np.unique(np.quantile(values, np.linspace(0, 1, _BINS // 2), method="inverted_cdf"))


def _places(names: Sequence[str], units: Sequence[str]) -> np.ndarray:
    return np.searchsorted(np.array(names), np.array(units))
