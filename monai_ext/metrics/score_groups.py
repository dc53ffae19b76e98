"""Measures from counts: pixels grouped by score, where the order inside a group is a tie or is not known."""

from dataclasses import dataclass

import numpy as np
from scipy.special import digamma
from sklearn.metrics import average_precision_score, roc_auc_score

NAN = float("nan")


@dataclass(frozen=True)
class Bounded:
    """A value, and how far the exact one may lie from it; NaN where undefined.

    Attributes:
        value: 0 to 1.
        bound: 0 where the value is exact.
    """

    value: float
    bound: float


@dataclass(frozen=True)
class ScoreGroups:
    """Pixels in groups of falling score.

    Attributes:
        positives: abnormal pixels of each group.
        negatives: normal pixels of each group.
        overlap: of each group, the sum over its abnormal pixels of 1 / (pixels of the pixel's region).
        regions: regions in all.
        tied: the pixels of a group have one score; otherwise their order is unknown, and bounds say what it can do.
    """

    positives: np.ndarray
    negatives: np.ndarray
    overlap: np.ndarray
    regions: int
    tied: bool

    def auroc(self) -> Bounded:
        """Return the area under the ROC curve."""
        total, normal = self.positives.sum(), self.negatives.sum()
        if not total or not normal:
            return Bounded(NAN, NAN)
        mixed = float((self.positives / total * (self.negatives / normal)).sum())
        labels, scores, weights = self._weighted()
        return Bounded(float(roc_auc_score(labels, scores, sample_weight=weights)), self._bound(mixed / 2))

    def average_precision(self) -> Bounded:
        """Return the step-wise average precision."""
        p, n = self.positives.astype(float), self.negatives.astype(float)
        if not p.sum():
            return Bounded(NAN, NAN)
        labels, scores, weights = self._weighted()
        value = float(average_precision_score(labels, scores, sample_weight=weights))
        if self.tied:
            return Bounded(value, 0.0)
        before, false = np.cumsum(p) - p, np.cumsum(n) - n
        # Worst, all normal pixels of a group come first: the sum over j = 1..p of (T + j) / (T + j + F + n).
        worst = p - (false + n) * (digamma(before + p + false + n + 1) - digamma(before + false + n + 1))
        best = p * (before + p) / np.maximum(before + p + false, 1)
        low, high = worst.sum() / p.sum(), best.sum() / p.sum()
        return Bounded(value, self._bound(max(value - low, high - value)))

    def f1_max(self) -> Bounded:
        """Return the best F1 over all thresholds."""
        total = self.positives.sum()
        if not total:
            return Bounded(NAN, NAN)
        true, false = np.cumsum(self.positives), np.cumsum(self.negatives)
        value = float((2 * true / (true + false + total)).max())
        best = float((2 * true / (true + false - self.negatives + total)).max())
        return Bounded(value, self._bound(best - value))

    def aupro(self, limit: float) -> Bounded:
        """Return the area under the per-region overlap up to a false positive rate, as a share of that rate.

        Args:
            limit: false positive rate, above 0 and at most 1.
        """
        normal = self.negatives.sum()
        if not self.regions or not normal:
            return Bounded(NAN, NAN)
        rate = np.concatenate([[0.0], np.cumsum(self.negatives) / normal])
        share = np.concatenate([[0.0], np.cumsum(self.overlap) / self.regions])
        inside = int(np.searchsorted(rate, limit, side="right"))
        at_limit = np.interp(limit, rate, share)
        # Interpolation takes the last of several shares at one rate, which is the one at the limit.
        x = np.concatenate([rate[:inside], [limit]])
        y = np.concatenate([share[:inside], [max(at_limit, share[inside - 1])]])
        step = np.diff(x)
        area = float((step * (y[1:] + y[:-1]) / 2).sum()) / limit
        above = np.concatenate([share[1 : inside + 1], share[-1:]])[: len(step)]
        spread = max(float((step * above).sum()) / limit - area, area - float((step * y[:-1]).sum()) / limit)
        return Bounded(area, self._bound(spread))

    def _bound(self, bound: float) -> float:
        return 0.0 if self.tied else max(bound, 0.0)

    def _weighted(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        groups = len(self.positives)
        labels = np.repeat([True, False], groups)
        scores = np.tile(np.arange(groups, 0, -1), 2)
        weights = np.concatenate([self.positives, self.negatives]).astype(float)
        there = weights > 0
        return labels[there], scores[there], weights[there]
