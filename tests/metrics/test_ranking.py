import math

import numpy as np
import pytest
import torch

from monai_ext.base import LabelError, SettingError
from monai_ext.metrics import auroc, average_precision, f1_max


def naive(labels: list[int], scores: list[float]) -> tuple[float, float, float]:
    """All pairs; precision at each recall step; F1 at each threshold."""
    pairs = [
        (p > n) + 0.5 * (p == n)
        for p, a in zip(scores, labels, strict=True)
        if a
        for n, b in zip(scores, labels, strict=True)
        if not b
    ]
    precision_steps, best, recall = 0.0, 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        found = [label for label, score in zip(labels, scores, strict=True) if score >= threshold]
        precision, now = sum(found) / len(found), sum(found) / sum(labels)
        precision_steps += precision * (now - recall)
        recall = now
        best = max(best, 2 * sum(found) / (len(found) + sum(labels)))
    return sum(pairs) / len(pairs), precision_steps, best


@pytest.mark.parametrize("levels", [1000, 4, 2])
def test_measures_are_their_definitions(levels):
    rng = np.random.default_rng(levels)
    labels = rng.integers(0, 2, 37)
    scores = np.round(rng.random(37) * levels) / levels + 0.2 * labels  # few levels: many ties
    expected = naive(labels.tolist(), scores.tolist())
    found = auroc(labels, scores), average_precision(labels, scores), f1_max(labels, scores)
    assert found == pytest.approx(expected, abs=1e-12)


def test_shapes_and_types_do_not_matter():
    labels, scores = torch.tensor([[0, 1], [1, 0]]), torch.tensor([[0.1, 0.9], [0.4, 0.3]])
    assert (auroc(labels, scores), average_precision(labels, scores), f1_max(labels.bool(), scores)) == (1, 1, 1)


def test_what_is_undefined_is_nan_and_never_0():
    scores = [0.1, 0.7, 0.2]
    assert math.isnan(auroc([0, 0, 0], scores))
    assert math.isnan(auroc([1, 1, 1], scores))
    assert math.isnan(average_precision([0, 0, 0], scores))
    assert math.isnan(f1_max([0, 0, 0], scores))
    assert all(math.isnan(measure([], [])) for measure in (auroc, average_precision, f1_max))


@pytest.mark.parametrize("measure", [auroc, average_precision, f1_max])
def test_what_has_no_rank_is_refused(measure):
    with pytest.raises(SettingError, match=r"scores: shape \(3,\) for labels of shape \(2,\)"):
        measure([0, 1], [1.0, 2.0, 3.0])
    with pytest.raises(SettingError, match=r"scores: some are NaN or infinite"):
        measure([0, 1], [1.0, math.nan])
    with pytest.raises(LabelError, match=r"labels: some are neither 0 nor 1"):
        measure([0, 2], [1.0, 2.0])
