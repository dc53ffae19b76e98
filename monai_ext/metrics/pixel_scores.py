"""Pixel measures of localization over a whole set, exact up to a size and then from a histogram with its error."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from monai_ext.base import LabelError, SettingError, is_number
from monai_ext.metrics.score_groups import Bounded, ScoreGroups

_QUANTILES = 2**17  # edges at quantiles of all pixels seen so far, and as many of the abnormal ones
_COARSE_BITS = 18  # of float32, sign and exponent first: steps of 0.2 % for scores unlike those seen so far
_AT_ONCE = 2**19  # pixels; fewer would cost more for the bins than for themselves


@dataclass(frozen=True)
class PixelResult:
    """Measures over all pixels, each with the error that a histogram may have made.

    Attributes:
        auroc: area under the ROC curve.
        average_precision: step-wise.
        f1_max: best F1 over all thresholds: an upper limit, not what to expect.
        aupro: area under the per-region overlap, see :class:`PixelScores`.
        pixels: pixels in all.
    """

    auroc: Bounded
    average_precision: Bounded
    f1_max: Bounded
    aupro: Bounded
    pixels: int


class PixelScores:
    """Collects maps and masks, and measures how well all pixels together are ranked.

    AUPRO (Bergmann et al. 2021, the MVTec anomaly detection dataset): for each threshold, the share of a region's
    pixels at or above it, averaged over the connected regions of all masks, against the false positive rate over
    all normal pixels; the area up to ``fpr_limit``, divided by it. Regions connect over corners too.

    Up to ``exact_limit`` pixels all is exact. Beyond, scores are counted in up to 530,000 bins whose edges are
    quantiles of the pixels seen until then; what is lost is known from the counts and stated as a bound.

    Args:
        exact_limit: pixels that are kept one by one, at 4 bytes a normal and 12 bytes an abnormal one.
        fpr_limit: false positive rate up to which AUPRO integrates.

    Raises:
        SettingError: a limit out of range.
    """

    def __init__(self, exact_limit: int = 10**8, fpr_limit: float = 0.3) -> None:
        if not is_number(exact_limit, 1) or not is_number(fpr_limit, 0, 1) or not fpr_limit:
            raise SettingError(
                f"exact_limit and fpr_limit: {exact_limit!r} and {fpr_limit!r}; give 1 pixel or more, and a rate "
                "above 0 up to 1",
                code="setting.score_limit",
            )
        self.exact_limit, self.fpr_limit = exact_limit, fpr_limit
        self.pixels = self.regions = 0
        self._normal: list[np.ndarray] = []
        self._abnormal: list[np.ndarray] = []
        self._overlap: list[np.ndarray] = []
        self._histogram: _Histogram | None = None

    def update(self, maps: np.ndarray, masks: np.ndarray) -> None:
        """Add images.

        Args:
            maps: scores, ``(b, ...)`` of any number of dimensions; higher is more abnormal.
            masks: 0 or 1, the same shape.

        Raises:
            SettingError: the shapes differ, or a score is not finite.
            LabelError: a mask holds something else than 0 and 1.
        """
        maps, masks = np.asarray(maps, dtype=np.float32), np.asarray(masks)
        _check(maps, masks)
        for scores, mask in zip(maps, masks.astype(bool), strict=True):
            labelled, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
            sizes = np.bincount(labelled.ravel())
            self._add(scores[~mask], scores[mask], 1 / sizes[labelled[mask]])
            self.regions += count
            self.pixels += mask.size

    def compute(self) -> PixelResult:
        """Return the measures of all that was added; NaN where they are undefined."""
        if self._histogram is None:
            groups = _tied(_joined(self._normal), _joined(self._abnormal), _joined(self._overlap), self.regions)
        else:
            groups = self._histogram.groups(self.regions)
        return PixelResult(
            groups.auroc(),
            groups.average_precision(),
            groups.f1_max(),
            groups.aupro(self.fpr_limit),
            self.pixels,
        )

    def _add(self, normal: np.ndarray, abnormal: np.ndarray, overlap: np.ndarray) -> None:
        if self._histogram is None:
            self._normal.append(normal)
            self._abnormal.append(abnormal)
            self._overlap.append(overlap)
            if self.pixels + normal.size + abnormal.size <= self.exact_limit:
                return
            normal, abnormal, overlap = (_joined(part) for part in (self._normal, self._abnormal, self._overlap))
            self._normal, self._abnormal, self._overlap = [], [], []
            self._histogram = _Histogram(_edges(normal, abnormal))
        self._histogram.add(normal, abnormal, overlap)


class _Histogram:
    def __init__(self, edges: np.ndarray) -> None:
        self.edges = edges
        self.negatives, self.positives = (np.zeros(len(edges) + 1, np.int64) for _ in range(2))
        self.overlap = np.zeros(len(edges) + 1)
        self._waiting: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, normal: np.ndarray, abnormal: np.ndarray, overlap: np.ndarray) -> None:
        self._waiting.append((normal, abnormal, overlap))
        if sum(some.size + other.size for some, other, _ in self._waiting) >= _AT_ONCE:
            self._count()

    def _count(self) -> None:
        normal, abnormal, overlap = (_joined(list(parts)) for parts in zip(*self._waiting, strict=True))
        self._waiting = []
        bins = len(self.edges) + 1
        self.negatives += np.bincount(np.searchsorted(self.edges, normal, side="right"), minlength=bins)
        places = np.searchsorted(self.edges, abnormal, side="right")
        self.positives += np.bincount(places, minlength=bins)
        self.overlap += np.bincount(places, overlap, bins)

    def groups(self, regions: int) -> ScoreGroups:
        if self._waiting:
            self._count()
        falling = slice(None, None, -1)
        return ScoreGroups(self.positives[falling], self.negatives[falling], self.overlap[falling], regions, tied=False)


def _tied(normal: np.ndarray, abnormal: np.ndarray, overlap: np.ndarray, regions: int) -> ScoreGroups:
    """Group pixels by the scores of abnormal ones: between those, normal pixels change no measure by their order."""
    normal = np.sort(normal)
    scores, place, counts = np.unique(abnormal, return_inverse=True, return_counts=True)
    below, upto = np.searchsorted(normal, scores, side="left"), np.searchsorted(normal, scores, side="right")
    # Rising: the normal pixels below each score, then the pixels that have it; last, the normal ones above all.
    negatives = np.empty(2 * len(scores) + 1, np.int64)
    negatives[0::2] = np.append(below, len(normal)) - np.concatenate([[0], upto])
    negatives[1::2] = upto - below
    positives, shares = np.zeros_like(negatives), np.zeros(len(negatives))
    positives[1::2], shares[1::2] = counts, np.bincount(place, overlap, len(scores))
    return ScoreGroups(positives[::-1], negatives[::-1], shares[::-1], regions, tied=True)


def _edges(normal: np.ndarray, abnormal: np.ndarray) -> np.ndarray:
    steps = [np.sort(part)[:: max(1, part.size // _QUANTILES)] for part in (np.append(normal, abnormal), abnormal)]
    # Every float32 whose last bits are 0, except infinities and NaN.
    coarse = (np.arange(2**_COARSE_BITS, dtype=np.uint32) << (32 - _COARSE_BITS)).view(np.float32)
    return np.unique(np.concatenate([*steps, coarse[np.isfinite(coarse)]]))


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def _check(maps: np.ndarray, masks: np.ndarray) -> None:
    if maps.shape != masks.shape or maps.ndim < 2:
        raise SettingError(
            f"maps {maps.shape} and masks {masks.shape}: not the same (images, ...); resize masks or maps first",
            code="setting.score_shape",
        )
    if not bool(np.isfinite(maps).all()):
        raise SettingError(
            "maps: some values are NaN or infinite, which have no rank; find the image that they come from",
            code="setting.score",
        )
    if masks.dtype != bool and not bool(((masks == 0) | (masks == 1)).all()):
        raise LabelError("masks: some values are neither 0 nor 1; set abnormal pixels to 1", code="label.not_binary")
