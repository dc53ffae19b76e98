"""Candidates against planted lesions, by hand; and volumes that any reader opens."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from monai_ext.demo.lesion_crops import SHAPE, SPACING_MM
from monai_ext.demo.lesion_volumes import PLANTED_MM, operating_curve, operating_point, planted_phantom, write_planted


def made_case() -> tuple[np.ndarray, np.ndarray]:
    """Three lesions: one found by two candidates, one missed, one found; and two false candidates.

    One of the false ones touches a lesion with its edge: its peak is elsewhere.
    """
    lesions, odds = np.zeros((23, 19, 17), np.uint8), np.full((23, 19, 17), -5.0, np.float32)
    lesions[2:8, 2:5, 2:5], lesions[2:5, 12:15, 2:5], lesions[15:18, 12:15, 10:13] = 1, 2, 3
    odds[2:4, 2:4, 2:4], odds[6:8, 2:4, 2:4] = 3.0, 3.0
    odds[15:18, 12:15, 10:13] = 1.0
    odds[10:12, 10:12, 6:8], odds[20:22, 2:4, 14:16] = 4.0, 2.0
    odds[4:12, 12:14, 3:5] = 1.5
    odds[11, 12, 3] = 1.6
    odds[0, 18, 0] = 9.0  # a single voxel is too small
    return odds, lesions


def test_counts_are_those_by_hand() -> None:
    point = operating_point([made_case()], 0.0, min_voxels=8)
    assert (point.found, point.false_per_volume) == (pytest.approx(2 / 3), 3)
    strict = operating_point([made_case(), made_case()], 2.5, min_voxels=8)
    assert (strict.found, strict.false_per_volume) == (pytest.approx(1 / 3), 1)


def test_a_volume_without_lesions_has_no_share_of_them() -> None:
    odds, lesions = made_case()
    point = operating_point([(odds, np.zeros_like(lesions))], 0.0, min_voxels=8)
    assert np.isnan(point.found)
    assert point.false_per_volume == 6


def test_a_map_that_is_the_same_everywhere_finds_next_to_nothing() -> None:
    odds, lesions = made_case()
    point = operating_point([(np.ones_like(odds), lesions)], 0.0, min_voxels=8)
    assert (point.found, point.false_per_volume) == (0, 1)


@pytest.mark.parametrize(
    ("peak", "found"), [((8, 4, 4), 1), ((9, 4, 4), 1), ((10, 4, 4), 0), ((7, 4, 5), 1), ((7, 4, 6), 0)]
)
def test_a_peak_may_lie_beside_its_lesion(peak: tuple[int, int, int], found: int) -> None:
    lesions, odds = np.zeros((23, 19, 17), np.uint8), np.full((23, 19, 17), -1.0, np.float32)
    lesions[2:8, 2:5, 2:5] = 1
    odds[peak] = 2.0
    assert operating_point([(odds, lesions)], 0.0, min_voxels=1).found == found


def test_the_curve_goes_from_strict_to_even() -> None:
    curve = operating_curve([made_case()], min_voxels=8, points=7)
    assert [curve[0].threshold, curve[-1].threshold] == [9.0, 0.0]
    assert (curve[0].found, curve[0].false_per_volume) == (0, 0)
    assert curve[-1].found == pytest.approx(2 / 3)
    assert all(a.found <= b.found for a, b in pairwise(curve))


def test_planted_lesions_have_their_size_and_place(tmp_path: Path) -> None:
    path = write_planted((tmp_path / "one.nii.gz", tmp_path / "truth", 5))
    scan = sitk.ReadImage(str(path))
    lesions = sitk.ReadImage(str(tmp_path / "truth" / "one_lesions.nii.gz"))
    assert scan.GetSize() == lesions.GetSize() == SHAPE
    assert scan.GetSpacing() == lesions.GetSpacing() == SPACING_MM
    phantom = planted_phantom(5)
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(lesions)
    assert set(shape.GetLabels()) == {lesion.number for lesion in phantom.planted}
    for lesion in phantom.planted:
        x, y, z = shape.GetCentroid(lesion.number)
        # SimpleITK counts to the left and the back; a ball of 10 mm is two voxels of 5 mm high.
        assert np.abs(np.subtract((-x, -y, z), lesion.centre_mm)).max() < 2.5
        assert shape.GetPhysicalSize(lesion.number) == pytest.approx(np.pi / 6 * PLANTED_MM**3, rel=0.5)
