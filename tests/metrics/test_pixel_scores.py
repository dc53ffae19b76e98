import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage

from monai_ext.base import LabelError, SettingError
from monai_ext.metrics import PixelScores, auroc, average_precision, f1_max

MEASURES = ("auroc", "average_precision", "f1_max", "aupro")


def draw(seed: int, images: int = 4, levels: int = 10_000) -> tuple[np.ndarray, np.ndarray]:
    """Maps and masks whose regions are of very different sizes, and touch at corners."""
    rng = np.random.default_rng(seed)
    masks = ndimage.gaussian_filter(rng.random((images, 17, 13)), (0, 1.3, 1.3)) > 0.56
    masks[0] = False
    maps = rng.normal(size=masks.shape) + masks
    return (np.round(maps * levels) / levels).astype(np.float32), masks


def naive_aupro(maps: np.ndarray, masks: np.ndarray, limit: float) -> float:
    """Bergmann et al. 2021: thresholds one by one, regions one by one, trapezia up to the limit."""
    regions = []
    for image, mask in enumerate(masks):
        labelled, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
        regions += [(image, labelled == number + 1) for number in range(count)]
    curve = [(0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        found = maps >= threshold
        rate = (found & ~masks).sum() / (~masks).sum()
        curve.append((rate, np.mean([found[image][region].mean() for image, region in regions])))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(curve):
        end = min(x1, limit)
        if end > x0:
            area += (end - x0) * (y0 + y0 + (y1 - y0) * (end - x0) / (x1 - x0)) / 2
    return area / limit


@pytest.mark.parametrize("limit", [0.3, 0.05, 1.0])
@pytest.mark.parametrize("levels", [10_000, 3, 1])
def test_aupro_is_its_definition(levels, limit):
    maps, masks = draw(levels, levels=levels)
    scores = PixelScores(fpr_limit=limit)
    scores.update(maps, masks)
    assert scores.compute().aupro.value == pytest.approx(naive_aupro(maps, masks, limit), abs=1e-12)
    assert scores.regions > 6


@pytest.mark.parametrize("levels", [10_000, 3, 1])
def test_up_to_the_limit_all_is_exact(levels):
    maps, masks = draw(5, levels=levels)
    scores = PixelScores()
    for image in range(4):  # in any pieces
        scores.update(maps[image : image + 1], masks[image : image + 1])
    found = scores.compute()
    assert found.auroc.value == pytest.approx(auroc(masks, maps), abs=1e-12)
    assert found.average_precision.value == pytest.approx(average_precision(masks, maps), abs=1e-12)
    assert found.f1_max.value == pytest.approx(f1_max(masks, maps), abs=1e-12)
    assert {getattr(found, name).bound for name in MEASURES} == {0.0}
    assert found.pixels == 4 * 17 * 13


@pytest.mark.parametrize("levels", [10_000, 7])
@pytest.mark.parametrize("drift", [0.0, 50.0])
def test_beyond_it_the_bound_holds(levels, drift):
    """Also where the later images have scores unlike any before."""
    maps, masks = draw(6, images=40, levels=levels)
    maps = maps + np.linspace(0, drift, 40, dtype=np.float32)[:, None, None]
    exact, binned = PixelScores(), PixelScores(exact_limit=1000)
    exact.update(maps, masks)
    for start in range(0, 40, 3):
        binned.update(maps[start : start + 3], masks[start : start + 3])
    for name in MEASURES:
        truth, found = getattr(exact.compute(), name), getattr(binned.compute(), name)
        assert abs(truth.value - found.value) <= found.bound + 1e-12, name
        if levels == 10_000:
            assert found.bound < 0.03  # small as the sample is


def test_the_bound_is_tight_for_many_scores():
    """A worst case by hand: two pixels of each kind that no bin tells apart."""
    rng = np.random.default_rng(0)
    masks = np.zeros((1, 2, 300), bool)
    masks[0, 1] = True
    maps = rng.random((1, 2, 300)).astype(np.float32)
    scores = PixelScores(exact_limit=10)
    scores.update(maps, masks)
    late = np.float32(0.5) + np.array([[[0, 1], [1, 0]]], dtype=np.float32) * np.float32(1e-7)
    scores.update(late, np.array([[[0, 0], [1, 1]]]))
    found, exact = scores.compute(), PixelScores()
    exact.update(maps, masks)
    exact.update(late, np.array([[[0, 0], [1, 1]]]))
    assert abs(found.auroc.value - exact.compute().auroc.value) <= found.auroc.bound
    assert found.auroc.bound < 1e-4


def test_volumes_have_volumes_as_regions():
    rng = np.random.default_rng(1)
    masks = np.zeros((2, 5, 6, 7), bool)
    masks[0, 1:3, 1:4, 2:5] = masks[0, 3, 4, 5] = masks[1, 0, 0, 0] = True  # the first two touch at a corner
    maps = rng.normal(size=masks.shape).astype(np.float32)
    scores = PixelScores()
    scores.update(maps, masks)
    assert scores.regions == 2
    assert scores.compute().aupro.value == pytest.approx(naive_aupro(maps, masks, 0.3), abs=1e-12)


@pytest.mark.parametrize("limit", [10**8, 10])
def test_what_is_undefined_is_nan(limit):
    maps = np.random.default_rng(0).random((2, 5, 7)).astype(np.float32)
    for mask in (np.zeros((2, 5, 7)), np.ones((2, 5, 7))):
        scores = PixelScores(exact_limit=limit)
        scores.update(maps, mask)
        found = scores.compute()
        undefined = {"auroc", "aupro"} if mask.any() else set(MEASURES)
        assert {name for name in MEASURES if math.isnan(getattr(found, name).value)} == undefined
    empty = PixelScores(exact_limit=limit).compute()
    assert all(math.isnan(getattr(empty, name).value) for name in MEASURES)


def test_memory_stays_bounded_beyond_the_limit():
    scores = PixelScores(exact_limit=2000)
    maps, masks = draw(7)
    for _ in range(20):
        scores.update(maps, masks)
    assert sum(part.size for part in scores._normal) == 0
    assert scores.compute().pixels == 20 * maps.size


@pytest.mark.parametrize(
    ("maps", "masks", "kind", "sentence"),
    [
        (np.zeros((2, 5)), np.zeros((2, 4)), SettingError, r"maps \(2, 5\) and masks \(2, 4\): not the same"),
        (np.zeros(3), np.zeros(3), SettingError, r"not the same \(images, ...\)"),
        (np.full((1, 3), np.nan), np.zeros((1, 3)), SettingError, r"maps: some values are NaN or infinite"),
        (np.zeros((1, 3)), np.full((1, 3), 255), LabelError, r"masks: some values are neither 0 nor 1"),
    ],
)
def test_what_does_not_fit_is_refused(maps, masks, kind, sentence):
    scores = PixelScores()
    with pytest.raises(kind, match=sentence):
        scores.update(maps, masks)
    assert scores.pixels == 0


@pytest.mark.parametrize(
    "settings",
    [{"exact_limit": 0}, {"exact_limit": float("nan")}, {"exact_limit": "9"}, {"fpr_limit": 0.0}, {"fpr_limit": 1.2}],
)
def test_limits_are_checked(settings):
    with pytest.raises(SettingError, match=r"exact_limit and fpr_limit"):
        PixelScores(**settings)
