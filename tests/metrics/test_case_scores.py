"""Dice, HD95 and surface Dice against closed forms, and the rules for absent classes."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from monai_ext.base import LabelError
from monai_ext.metrics import ClassScore, case_scores, mean_dice, mean_scores, write_scores

SPACING = (1.5, 0.7, 3.1)


def cube(start: tuple[int, int, int], size: int = 7, value: int = 1) -> np.ndarray:
    volume = np.zeros((23, 19, 17), np.int32)
    volume[tuple(slice(s, s + size) for s in start)] = value
    return volume


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shift", [1, 3])
def test_shifted_cubes_have_closed_forms(axis: int, shift: int) -> None:
    moved = [3, 4, 5]
    moved[axis] += shift
    (score,) = case_scores("a", cube((3, 4, 5)), cube((moved[0], moved[1], moved[2])), [1], SPACING)
    assert score.dice == pytest.approx((7 - shift) / 7, abs=1e-12)
    # The two faces moved apart hold more than 5 % of the surface, so the 95th percentile is the whole shift.
    assert score.hd95_mm == pytest.approx(shift * SPACING[axis], abs=1e-5)  # float32 distances


def test_distances_agree_with_a_naive_search() -> None:
    generator = np.random.default_rng(3)
    one, two = (ndimage.gaussian_filter(generator.standard_normal((13, 11, 7)), 1.7) > 0.03 for _ in range(2))
    (score,) = case_scores("a", one * 1, two * 1, [1], SPACING, tolerance_mm=2.0)
    edges = [mask & ~ndimage.binary_erosion(np.pad(mask, 1))[1:-1, 1:-1, 1:-1] for mask in (one, two)]
    points = [np.argwhere(edge) * SPACING for edge in edges]
    gaps = np.linalg.norm(points[0][:, None] - points[1][None], axis=2)
    there, back = gaps.min(1), gaps.min(0)
    expected = max(np.percentile(there, 95), np.percentile(back, 95))
    assert score.hd95_mm == pytest.approx(expected, abs=1e-4)  # float32 distances


def test_surface_dice_counts_what_lies_within_the_tolerance() -> None:
    near = case_scores("a", cube((3, 4, 5)), cube((4, 4, 5)), [1], SPACING, tolerance_mm=1.6)[0]
    far = case_scores("a", cube((3, 4, 5)), cube((6, 4, 5)), [1], SPACING, tolerance_mm=1.4)[0]
    assert near.surface_dice == 1.0
    assert 0 < far.surface_dice < 1


def test_a_mask_at_the_border_keeps_its_surface() -> None:
    full = np.ones((5, 7, 3), np.int32)
    (score,) = case_scores("a", full, full, [1], SPACING)
    assert (score.dice, score.hd95_mm, score.surface_dice) == (1.0, 0.0, 1.0)


def test_absent_in_both_is_nan_absent_in_one_is_zero() -> None:
    both, one = case_scores("a", cube((3, 4, 5)), cube((3, 4, 5), value=2), [3, 2], SPACING)
    assert math.isnan(both.dice)
    assert math.isnan(both.surface_dice)
    assert (one.dice, one.surface_dice) == (0.0, 0.0)
    assert math.isnan(one.hd95_mm)


def test_means_are_over_all_cases_not_the_last_and_skip_what_is_undefined() -> None:
    nan = float("nan")
    scores = [
        ClassScore("a", 1, 0.2),
        ClassScore("a", 2, nan),
        ClassScore("b", 1, 0.6),
        ClassScore("b", 2, 0.9),
    ]
    assert mean_scores(scores)[1].dice == pytest.approx(0.4)
    assert mean_scores(scores)[2].dice == pytest.approx(0.9)
    assert mean_dice(scores) == pytest.approx(0.65)
    assert math.isnan(mean_dice([ClassScore("a", 1, nan)]))


def test_csv_names_classes_and_units_and_ends_with_the_means(tmp_path: Path) -> None:
    scores = case_scores("ct_1", cube((3, 4, 5)), cube((3, 4, 6)), [1, 5], SPACING)
    write_scores(tmp_path / "scores.csv", scores, {1: "liver", 5: "spleen"})
    rows = list(csv.DictReader((tmp_path / "scores.csv").read_text().splitlines()))
    assert [(r["case"], r["class"]) for r in rows] == [
        ("ct_1", "liver"),
        ("ct_1", "spleen"),
        ("mean", "liver"),
        ("mean", "spleen"),
    ]
    assert float(rows[0]["dice"]) == pytest.approx(6 / 7, abs=1e-6)
    assert "hd95_mm" in rows[0]
    assert rows[1]["dice"] == "nan"


def test_other_shapes_are_refused_with_the_case() -> None:
    with pytest.raises(LabelError, match=r"^ct_9: the prediction has \(2, 3, 5\)"):
        case_scores("ct_9", np.zeros((2, 3, 5)), np.zeros((2, 3, 7)), [1], SPACING)
