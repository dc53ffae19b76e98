"""Scores of a class from its cases, and the mean over classes, without an engine around them."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from monai_ext.base import SettingError
from monai_ext.metrics import AnomalyClass, ScoredCase, ScoringRules, mean_result

RULES = ScoringRules(dataset="Liver", replicates=20)


def case(number: int, abnormal: int, score: float, odds: np.ndarray) -> ScoredCase:
    return ScoredCase(number, f"c{number}", f"u{number}", abnormal, score, odds.min(), odds.max(), math.nan)


def filled(name: str, labels: list[int], masked: bool = True, rules: ScoringRules = RULES) -> AnomalyClass:
    generator = np.random.default_rng(3)
    group = AnomalyClass(name, rules)
    for number, abnormal in enumerate(labels):
        odds, mask = generator.normal(size=(7, 5)), np.zeros((7, 5), np.uint8)
        if abnormal:
            mask[1:4, 2] = 1
            odds[1:4, 2] += number
        group.add(case(number, abnormal, float(odds.max()), odds), odds, mask if masked or not abnormal else None)
    return group


def test_the_published_score_depends_on_the_other_cases_and_ranks_alike() -> None:
    own, published = (filled("Liver", [0, 1, 1, 0], rules=ScoringRules(protocol=p)) for p in ("per_image", "published"))
    low, high = min(one.low for one in own.cases), max(one.high for one in own.cases)
    np.testing.assert_allclose(published.image_scores(), (own.image_scores() - low) / (high - low))
    assert own.result()[0].measures["image_auroc"].value == published.result()[0].measures["image_auroc"].value


def test_abnormal_cases_without_a_mask_count_for_images_alone() -> None:
    group = filled("Liver", [0, 1, 1], masked=False)
    result, _ = group.result()
    assert math.isnan(result.measures["pixel_auroc"].value)
    scores = group.image_scores()
    assert result.measures["image_auroc"].value == roc_auc_score([0, 1, 1], scores)
    assert "2 abnormal images without a mask count for the image measures only" in result.notes
    assert group.telling_cases() == {}


def test_telling_cases_are_the_best_the_middle_and_the_worst() -> None:
    group = filled("Liver", [0, 1, 1, 1])
    aps = [group.telling_cases()[which].pixel_ap for which in ("best", "median", "worst")]
    assert aps == sorted((one.pixel_ap for one in group.cases if one.abnormal), reverse=True)


def test_the_mean_is_over_classes_that_have_a_measure() -> None:
    groups = [filled("Liver", [0, 1, 1, 0]), filled("Spleen", [0, 0])]
    results, draws = zip(*(group.result() for group in groups), strict=True)
    mean = mean_result(results, draws, RULES)
    assert mean.measures["pixel_auroc"].value == results[0].measures["pixel_auroc"].value
    assert "pixel_auroc: mean of the 1 of 2 classes that have it" in mean.notes
    assert (mean.images, mean.abnormal) == (6, 2)
    assert mean.measures["pixel_auroc"].published == pytest.approx(0.9792)
    assert mean_result(results[1:], draws[1:], RULES).measures["pixel_auroc"].published is None


@pytest.mark.parametrize("change", [{"protocol": "x"}, {"replicates": -1}, {"confidence": 1}, {"confidence": math.nan}])
def test_rules_out_of_range_are_refused(change: dict) -> None:
    with pytest.raises(SettingError, match=r"^protocol is .*; give per_image or published"):
        ScoringRules(**change)
