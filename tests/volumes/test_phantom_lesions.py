"""Planted lesions: as large, as dark and where the plan says; the patient around them stays the same."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from monai_ext.base import SettingError
from monai_ext.volumes import PHANTOM_LABELS, phantom_torso
from monai_ext.volumes.phantom_lesions import EDGE_MM, LesionPhantom, LesionPlan, draw_lesions, phantom_with_lesions

GRID = (127, 95, 61), (3.0, 3.0, 4.5)  # unequal edges: a diameter in voxels would show
IDS = {name: number for number, name in PHANTOM_LABELS.items()}
PLANS = [
    LesionPlan("liver", 30.0, -40.0),
    LesionPlan("liver", 21.0, 60.0),
    LesionPlan("heart", 26.0, -50.0),
    LesionPlan("spleen", 19.0, 45.0),
    LesionPlan("lungs", 24.0, 130.0),
    LesionPlan("kidney_left", 14.0, -60.0),
    LesionPlan("kidney_right", 14.0, -60.0),
]


@pytest.fixture(scope="module")
def planted() -> LesionPhantom:
    return phantom_with_lesions(3, PLANS, *GRID)


@pytest.fixture(scope="module")
def healthy() -> LesionPhantom:
    return phantom_with_lesions(3, [], *GRID)


def test_without_lesions_it_is_the_torso_to_the_bit(healthy: LesionPhantom) -> None:
    torso = phantom_torso(3, *GRID)
    assert_array_equal(healthy.hu, torso.hu)
    assert_array_equal(healthy.labels, torso.labels)
    assert_array_equal(healthy.affine, torso.affine)
    assert not healthy.lesions.any()
    assert healthy.planted == ()


def test_far_from_lesions_nothing_changes(planted: LesionPhantom, healthy: LesionPhantom) -> None:
    assert_array_equal(planted.labels, healthy.labels)
    changed = np.argwhere(planted.hu != healthy.hu) * np.array(GRID[1])
    lesions = np.argwhere(planted.lesions > 0) * np.array(GRID[1])
    far = max(np.sqrt(((lesions - point) ** 2).sum(1).min()) for point in changed[::97])
    # Half the soft edge, the scanner's blur of one voxel, and half a voxel's diagonal on either side.
    assert far < EDGE_MM / 2 + 4.5 + 6.2


def test_lesions_have_their_diameter(planted: LesionPhantom) -> None:
    voxel_mm3 = float(np.prod(GRID[1]))
    for lesion, plan in zip(planted.planted, PLANS, strict=True):
        volume = (planted.lesions == lesion.number).sum() * voxel_mm3
        assert lesion.diameter_mm == plan.diameter_mm
        # Voxels of 3 x 3 x 4.5 mm round the surface: of the smallest, 14 mm, a tenth of the diameter.
        assert (6 * volume / np.pi) ** (1 / 3) == pytest.approx(plan.diameter_mm, rel=0.1)


def test_lesions_lie_in_their_organ_around_their_centre(planted: LesionPhantom) -> None:
    for lesion, plan in zip(planted.planted, PLANS, strict=True):
        voxels = np.argwhere(planted.lesions == lesion.number)
        assert set(planted.labels[tuple(voxels.T)]) == {IDS[plan.organ]}
        middle = voxels.mean(0) @ planted.affine[:3, :3].T + planted.affine[:3, 3]
        assert np.abs(middle - lesion.centre_mm).max() < 1.5  # half the smallest voxel edge
    by_organ = {lesion.organ: lesion.centre_mm for lesion in planted.planted}
    assert by_organ["kidney_left"][0] < 0 < by_organ["kidney_right"][0]
    assert by_organ["spleen"][0] < 0


def test_lesions_differ_from_their_organ_by_their_contrast(planted: LesionPhantom, healthy: LesionPhantom) -> None:
    for lesion, plan in zip(planted.planted, PLANS, strict=True):
        distance = np.zeros(planted.hu.shape)
        for axis, (edge, middle) in enumerate(zip(GRID[1], lesion.centre_mm, strict=True)):
            place = (np.arange(planted.hu.shape[axis]) - (planted.hu.shape[axis] - 1) / 2) * edge
            distance = distance + ((place - middle) ** 2).reshape([-1 if k == axis else 1 for k in range(3)])
        core = distance < (0.3 * plan.diameter_mm) ** 2
        organ = np.median(healthy.hu[healthy.labels == IDS[plan.organ]])
        contrast = planted.hu[core].mean() - organ
        # Of few voxels: texture of 0.3 of the contrast, noise of up to 18 HU, blood that sank in the lungs' median.
        assert contrast == pytest.approx(plan.contrast_hu, abs=0.35 * abs(plan.contrast_hu) + 6)


def test_lesions_have_texture_and_soft_edges() -> None:
    """Two lesions of opposite contrast in the same place: half their difference is the lesion without the noise."""
    grid = (161, 121, 101), (2.0, 2.0, 2.0)
    dark, bright = (phantom_with_lesions(5, [LesionPlan("liver", 30.0, sign * 200.0)], *grid) for sign in (-1, 1))
    assert_array_equal(dark.lesions, bright.lesions)
    share = (bright.hu.astype(float) - dark.hu) / 400
    core = share[dark.lesions > 0]
    edge = ((share > 0.1) & (share < 0.5)).sum() / (dark.lesions > 0).sum()
    assert 0.05 < core[core > 0.6].std() < 0.4
    assert edge > 0.1


def test_a_seed_is_a_lesion() -> None:
    plan = [LesionPlan("liver", 23.0, -40.0)]
    coarse = (67, 53, 59), (6.0, 6.0, 6.0)
    first, again, other = (phantom_with_lesions(seed, plan, *coarse) for seed in (3, 3, 4))
    assert_array_equal(first.hu, again.hu)
    assert_array_equal(first.lesions, again.lesions)
    assert first.planted[0].centre_mm != other.planted[0].centre_mm


def test_lesions_never_overlap() -> None:
    plans = [LesionPlan("liver", 25.0, 40.0)] * 11
    phantom = phantom_with_lesions(1, plans, *GRID)
    for first in phantom.planted:
        for second in phantom.planted[first.number :]:
            # Longest half axes are up to 1.1 of the radius.
            assert np.linalg.norm(np.subtract(first.centre_mm, second.centre_mm)) > 0.9 * 25.0


def test_drawn_lesions_stay_in_their_ranges_and_have_both_signs() -> None:
    plans = draw_lesions(7, ["liver", "spleen"], 40, (9.0, 17.0), (20.0, 50.0))
    assert [plan.organ for plan in plans] == ["liver"] * 40 + ["spleen"] * 40
    assert all(9 <= plan.diameter_mm <= 17 and 20 <= abs(plan.contrast_hu) <= 50 for plan in plans)
    assert 20 < sum(plan.contrast_hu < 0 for plan in plans) < 60
    assert plans == draw_lesions(7, ["liver", "spleen"], 40, (9.0, 17.0), (20.0, 50.0))
    assert plans[40:] == draw_lesions(7, ["spleen"], 40, (9.0, 17.0), (20.0, 50.0))  # organs draw their own


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        (LesionPlan("spleen", 300.0, 40.0), r"^lesion 1: the spleen has no room for 300 mm, at most \d+ mm"),
        (LesionPlan("gizzard", 10.0, 40.0), r"^lesion 1: no organ .* 'gizzard'; choose one of liver, "),
        (LesionPlan("liver", float("nan"), 40.0), r"^lesion 1: a diameter of nan mm is none"),
    ],
)
def test_impossible_lesions_are_refused(plan: LesionPlan, sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        phantom_with_lesions(0, [plan], (67, 53, 59), (6.0, 6.0, 6.0))


def test_the_room_it_names_is_there() -> None:
    coarse = (67, 53, 59), (6.0, 6.0, 6.0)
    with pytest.raises(SettingError, match=r"at most (\d+) mm") as refusal:
        phantom_with_lesions(0, [LesionPlan("spleen", 300.0, 40.0)], *coarse)
    room = float(str(refusal.value).split("at most ")[1].split(" mm")[0])
    phantom_with_lesions(0, [LesionPlan("spleen", room - 1, 40.0)], *coarse)
    with pytest.raises(SettingError):
        phantom_with_lesions(0, [LesionPlan("spleen", room + 1, 40.0)], *coarse)
