"""How well scores rank the abnormal above the normal: AUROC, average precision, best F1; NaN where undefined."""

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from monai_ext.base import LabelError, SettingError

NAN = float("nan")


def auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the area under the ROC curve; NaN unless both labels occur.

    Args:
        labels: 0 or 1, any shape.
        scores: higher is more abnormal, the same shape.

    Raises:
        LabelError: a label is neither 0 nor 1.
        SettingError: the shapes differ, or a score is not finite.
    """
    truth, found = checked_pairs(labels, scores)
    return float(roc_auc_score(truth, found)) if 0 < truth.sum() < truth.size else NAN


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the average precision, step-wise and not interpolated; NaN without an abnormal one. See :func:`auroc`."""
    truth, found = checked_pairs(labels, scores)
    return float(average_precision_score(truth, found)) if truth.any() else NAN


def f1_max(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the best F1 over all thresholds; NaN without an abnormal one. See :func:`auroc`.

    A threshold chosen on the data that it is judged by: an upper limit, not what to expect.
    """
    truth, found = checked_pairs(labels, scores)
    if not truth.any():
        return NAN
    precision, recall, _ = precision_recall_curve(truth, found)
    both = precision + recall
    return float((2 * precision * recall / np.where(both > 0, both, 1)).max())


def checked_pairs(labels: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return flat booleans and float scores.

    Raises:
        LabelError: a label is neither 0 nor 1.
        SettingError: the shapes differ, or a score is not finite.
    """
    truth, found = np.asarray(labels), np.asarray(scores)
    if truth.shape != found.shape:
        raise SettingError(
            f"scores: shape {found.shape} for labels of shape {truth.shape}; give one score per label",
            code="setting.score_shape",
        )
    if not bool(np.isin(truth, (0, 1)).all()):
        raise LabelError("labels: some are neither 0 nor 1; set every abnormal one to 1", code="label.not_binary")
    if not bool(np.isfinite(found).all()):
        raise SettingError(
            "scores: some are NaN or infinite, which have no rank; find the image that they come from",
            code="setting.score",
        )
    return truth.ravel().astype(bool), found.ravel()
