"""The body is found on shapes whose extent is known."""

import numpy as np
import pytest

from monai_ext.base import ScanError
from monai_ext.volumes.body import SAMPLE_VOXELS, body_mask, find_body

SPACING = (1.5, 1.5, 1.5)
CELL = 3  # voxels of 1.5 mm in a cell of 4.5 mm: the mask is right to one cell


@pytest.fixture(scope="module")
def patient() -> np.ndarray:
    """A block of 40 HU with lungs, gas that touches the upper end, and a thin table below its back."""
    hu = np.full((83, 71, 67), -1000, np.int16)
    hu[10:70, 20:60, 5:67] = 40
    hu[20:35, 30:50, 12:67] = -850  # a lung, cut off by the end of the scan
    hu[45:60, 30:50, 12:50] = -850
    hu[2:80, 12:14, :] = 150  # the table is 3 mm thick
    hu[38:42, 12:20, 30:34] = 0  # and touches the back at one place
    return hu


def test_box_holds_the_body_and_no_table(patient):
    (x0, y0, z0), (x1, y1, z1) = find_body(patient, SPACING, "case").box
    assert np.abs([x0 - 10, x1 - 70, y1 - 60, z0 - 5]).max() <= CELL
    assert 20 - 2 * CELL <= y0 <= 20 + CELL  # the bridge may add a cell, the table at 12 may not
    assert z1 == 67


def test_lungs_belong_to_the_body(patient):
    mask = body_mask(patient, SPACING)
    assert mask[22:33, 32:48, 14:66].all()
    assert mask[47:58, 32:48, 14:48].all()
    assert not mask[:, :11].any()


def test_voxels_are_body_voxels_spread_over_it(patient):
    body = find_body(patient, SPACING, "case")
    assert body.voxels.shape == (SAMPLE_VOXELS, 3)
    assert body_mask(patient, SPACING)[tuple(body.voxels.T)].all()
    assert len(np.unique(body.voxels, axis=0)) == SAMPLE_VOXELS
    inside = np.argwhere(body_mask(patient, SPACING))
    # The mean of 4096 draws from a block 60 wide scatters by 60 / sqrt(12 * 4096) = 0.3 voxels; 5 sigma.
    assert np.abs(body.voxels.mean(axis=0) - inside.mean(axis=0)).max() < 1.5


def test_same_volume_same_voxels(patient):
    first, second = (find_body(patient.copy(), SPACING, name) for name in ("one", "two"))
    assert np.array_equal(first.voxels, second.voxels)


def test_small_body_is_listed_whole():
    hu = np.full((31, 29, 23), -1000, np.int16)
    hu[9:18, 9:18, 9:18] = 30
    body = find_body(hu, SPACING, "case")
    assert len(body.voxels) == body_mask(hu, SPACING).sum() < SAMPLE_VOXELS


def test_thick_slices_are_cells_of_their_own():
    hu = np.full((41, 43, 7), -1000, np.int16)
    hu[10:30, 12:31, 2:5] = 30
    assert find_body(hu, (1.5, 1.5, 5.0), "case").box[0][2] == 2
    assert find_body(hu, (1.5, 1.5, 5.0), "case").box[1][2] == 5


def test_thin_things_count_when_there_is_nothing_else():
    hu = np.full((31, 29, 23), -1000, np.int16)
    hu[9:12, 9:12, 9:12] = 30
    assert find_body(hu, SPACING, "case").box == ((9, 9, 9), (12, 12, 12))


def test_air_alone_is_no_body():
    with pytest.raises(ScanError, match=r"^case: no body found, .* above -400 HU; check") as caught:
        find_body(np.full((31, 29, 23), -1000, np.int16), SPACING, "case")
    assert caught.value.code == "scan.no_body"


def test_what_is_too_small_for_a_body_is_said_to_be_so():
    hu = np.full((11, 9, 7), -1000, np.int16)
    hu[5, 4:6] = hu[4:6, 5] = 200  # a fifth of some rows is dense, but nowhere a cell's mean
    with pytest.raises(ScanError, match=r"^case: no body found, nothing of 4\.5 mm is above -400 HU; check"):
        find_body(hu, SPACING, "case")
