"""The bootstrap's histograms against code that ranks every pixel, and its intervals against resampling by hand."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from monai_ext.base import SettingError
from monai_ext.metrics import PixelScores, PixelSketch, f1_max, image_counts
from monai_ext.metrics.bootstrap import interval, mean_replicates


def images(count: int, seed: int = 5, shape: tuple[int, int] = (13, 17)) -> list[tuple[np.ndarray, np.ndarray]]:
    generator = np.random.default_rng(seed)
    found = []
    for number in range(count):
        mask = np.zeros(shape, np.uint8)
        if number % 3:
            mask[2:5, 3 : 7 + number % 4] = 1
            mask[9, 1:3] = 1
        strength = generator.uniform(0.2, 2.0)  # images differ, or their draws would not matter
        found.append(((generator.normal(size=shape) + strength * mask).astype(np.float32), mask))
    return found


def test_the_sketch_of_few_scores_is_exact() -> None:
    data = images(7, shape=(11, 9))  # 99 pixels, fewer than atoms; 7 images, fewer values than bins
    sketch, exact = PixelSketch(), PixelScores()
    for number, (scores, mask) in enumerate(data):
        sketch.update(np.round(scores, 1), mask, str(number))
        exact.update(np.round(scores, 1)[None], mask[None])
    found, wanted = sketch.counts().replicates(3, 0), exact.compute()
    for name in ("auroc", "average_precision", "f1_max", "aupro"):
        assert found[name][0] == pytest.approx(getattr(wanted, name).value, abs=1e-6), name  # counts are float32


def test_a_coarse_sketch_is_near() -> None:
    data = images(9, shape=(61, 53))
    sketch, exact = PixelSketch(), PixelScores()
    for number, (scores, mask) in enumerate(data):
        sketch.update(scores, mask, str(number))
        exact.update(scores[None], mask[None])
    found, wanted = sketch.counts().replicates(1, 0), exact.compute()
    for name in ("auroc", "average_precision", "f1_max", "aupro"):
        # 256 quantiles an image: 3233 pixels become a twelfth.
        assert found[name][0] == pytest.approx(getattr(wanted, name).value, abs=0.02), name


def test_replicates_are_those_of_drawing_images_by_hand() -> None:
    data = images(8, shape=(11, 9))
    data = [(np.round(scores, 1), mask) for scores, mask in data]
    sketch = PixelSketch()
    for number, (scores, mask) in enumerate(data):
        sketch.update(scores, mask, f"{number}")
    found = sketch.counts().replicates(5, 3)
    weights = np.random.default_rng(3).multinomial(8, [1 / 8] * 8, 5)
    for draw, counts in enumerate(weights):
        chosen = [image for image, count in zip(data, counts, strict=True) for _ in range(count)]
        truth = np.concatenate([mask.ravel() for _, mask in chosen])
        scores = np.concatenate([scores.ravel() for scores, _ in chosen])
        assert found["auroc"][1 + draw] == pytest.approx(roc_auc_score(truth, scores), abs=1e-6)
        assert found["average_precision"][1 + draw] == pytest.approx(average_precision_score(truth, scores), abs=1e-6)
        assert found["f1_max"][1 + draw] == pytest.approx(f1_max(truth, scores), abs=1e-6)
        exact = PixelScores()
        for scores, mask in chosen:
            exact.update(scores[None], mask[None])
        assert found["aupro"][1 + draw] == pytest.approx(exact.compute().aupro.value, abs=1e-6)


def test_patients_are_drawn_whole() -> None:
    # Two patients, each with images of one kind: a draw of one alone has no AUROC.
    counts = image_counts([1, 1, 1, 0, 0], [0.9, 0.2, 0.8, 0.1, 0.5], ["a", "a", "a", "b", "b"])
    found = counts.replicates(400, 1)["auroc"]
    assert found[0] == pytest.approx(roc_auc_score([1, 1, 1, 0, 0], [0.9, 0.2, 0.8, 0.1, 0.5]))
    assert np.mean(np.isnan(found[1:])) == pytest.approx(0.5, abs=0.1)  # 4 sigma of 400 draws
    assert set(np.unique(found[~np.isnan(found)])) == {found[0]}


def test_image_counts_know_ties() -> None:
    labels, scores = [1, 0, 1, 0, 0], [0.5, 0.5, 0.7, 0.7, 0.1]
    found = image_counts(labels, scores, list("abcde")).replicates(0, 0)
    assert found["auroc"][0] == pytest.approx(roc_auc_score(labels, scores))
    assert found["average_precision"][0] == pytest.approx(average_precision_score(labels, scores))


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    generator = np.random.default_rng(17)
    truth = 0.7602  # P(N(1, 1) > N(0, 1)) = Phi(1 / sqrt 2)
    hits = 0
    for seed in range(100):
        labels = [0, 1] * 40
        scores = [float(value) for value in generator.normal(labels)]
        counts = image_counts(labels, scores, [str(n) for n in range(80)])
        found = counts.replicates(200, seed)["auroc"]
        limits = interval(found, roc_auc_score(labels, scores))
        hits += limits.low <= truth <= limits.high
    assert 88 <= hits <= 99  # binomial, 3 sigma round 95, and percentile intervals are a little short


def test_intervals_of_what_is_undefined() -> None:
    nothing = interval(np.full(11, np.nan), np.nan)
    assert np.isnan([nothing.low, nothing.high]).all()
    rare = interval(np.array([0.5, *[np.nan] * 6, *[0.4] * 4]), 0.5)
    assert np.isnan([rare.low, rare.high]).all()
    with pytest.raises(SettingError, match="confidence: 95 is none"):
        interval(np.full(3, 0.5), 0.5, 95)


def test_intervals_are_laid_round_the_exact_value() -> None:
    draws = np.array([0.5, *np.linspace(0.4, 0.6, 41)])  # the sketch says 0.5, all pixels 0.53
    found = interval(draws, 0.53, 0.9)
    assert (found.low, found.high) == (pytest.approx(0.44), pytest.approx(0.62))
    assert interval(draws, 0.95, 0.9).high == 1.0


def test_means_leave_out_classes_without_a_value() -> None:
    draws = [{"auroc": np.array([0.5, 0.4])}, {"auroc": np.array([np.nan, np.nan])}, {"auroc": np.array([0.7, 0.8])}]
    np.testing.assert_allclose(mean_replicates(draws, "auroc"), [0.6, 0.6])
