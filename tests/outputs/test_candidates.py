"""Candidates: places and sizes against shapes that were put there, levels against trying every threshold."""

import numpy as np
import pytest

from monai_ext.base import SettingError
from monai_ext.outputs import candidate_level, find_candidates
from monai_ext.outputs.candidates import candidate_rows, odds_score, slice_axis, table_text

SHAPE = (11, 13, 7)
AFFINE = np.array([[0, 0, 2.9, -40], [-1.1, 0, 0, 20], [0, -1.3, 0, 30], [0, 0, 0, 1.0]])


def boxes() -> np.ndarray:
    odds = np.full(SHAPE, -2.0, np.float32)
    odds[1:4, 2:5, 1:3] = 1.0  # 18 voxels
    odds[2, 3, 2] = 3.0
    odds[7:9, 8:12, 4:6] = 2.0  # 16 voxels
    odds[9, 12, 6] = 2.0  # touches the second at a corner: one place of 17
    odds[10, 0, 0] = 9.0  # alone
    return odds


def test_places_and_sizes() -> None:
    mask, found = find_candidates(boxes(), 0.5)
    assert [one.voxels for one in found] == [1, 18, 17]
    assert [one.peak for one in found] == [9.0, 3.0, 2.0]
    assert [one.number for one in found] == [1, 2, 3]
    assert mask.sum() == 36
    assert found[1].center == (2.0, 3.0, 1.5)
    assert found[1].peak_index == (2, 3, 2)
    assert (found[1].low, found[1].high) == ((1, 2, 1), (3, 4, 2))
    np.testing.assert_allclose(found[2].center, np.argwhere(boxes() == 2.0).mean(axis=0))


def test_small_ones_are_dropped_from_mask_and_list() -> None:
    mask, found = find_candidates(boxes(), 0.5, min_voxels=17)
    assert [one.voxels for one in found] == [18, 17]
    assert mask.sum() == 35
    assert not mask[10, 0, 0]
    mask, found = find_candidates(boxes(), 9.0)
    assert not mask.any()
    assert not found


def test_rows_are_in_mm_and_in_slices_of_the_patient() -> None:
    _, found = find_candidates(boxes(), 0.5, min_voxels=18)
    (row,) = candidate_rows(found, AFFINE, [0.25])
    np.testing.assert_allclose(row["center_mm"], AFFINE[:3, :3] @ [2, 3, 1.5] + AFFINE[:3, 3], atol=0.005)
    assert row["volume_mm3"] == pytest.approx(18 * 1.1 * 1.3 * 2.9, abs=0.005)
    assert slice_axis(AFFINE) == 1
    assert row["slices"] == [2, 4]
    assert row["false_positive_rate"] == 0.25
    text = table_text([row], ["number", "center_mm_x", "peak_voxel_z", "slices_first", "slices_last", "missing"])
    assert text.splitlines()[1] == f"1,{row['center_mm'][0]},2,2,4,"


def test_pictures_are_counted_across_then_down() -> None:
    odds = np.zeros((5, 9), np.float32)
    odds[1, 6:8] = 1, 2
    (row,) = candidate_rows(find_candidates(odds, 0.5)[1], None, [None])
    assert row["center_px"] == [6.5, 1.0]
    assert row["peak_px"] == [7, 1]
    assert row["area_px"] == 2


@pytest.mark.parametrize("smallest", [1, 2, 5, 17, 40, 143])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_level_is_where_candidates_end(smallest: int, seed: int) -> None:
    odds = np.random.default_rng(seed).normal(size=(11, 13)).astype(np.float32)
    odds = np.round(odds, 1)  # ties
    level = candidate_level(odds, smallest)
    for threshold in [*np.unique(odds), odds.min() - 1]:
        assert bool(find_candidates(odds, float(threshold), smallest)[1]) == (threshold < level)


def test_a_map_smaller_than_a_candidate() -> None:
    with pytest.raises(SettingError, match="a candidate of 7 voxels is larger than the map of 6"):
        candidate_level(np.zeros((2, 3), np.float32), 7)


def test_scores_of_any_log_odds() -> None:
    assert odds_score(0.0) == 0.5
    assert odds_score(np.log(3)) == pytest.approx(0.75)
    assert odds_score(-1e4) == 0.0
    assert odds_score(1e4) == 1.0
