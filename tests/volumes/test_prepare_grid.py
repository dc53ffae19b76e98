"""Turning and resampling: exact where no number is computed, MONAI's grid and values where one is."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation, Spacing
from scipy import ndimage

from monai_ext.volumes.prepare_grid import to_ras, to_spacing

RAS = (("L", "R"), ("P", "A"), ("I", "S"))


def oblique() -> np.ndarray:
    """An LPS-like affine turned by 20 degrees, of 3.1 x 0.9 x 2.3 mm."""
    turn = np.radians(20)
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag([-3.1, -0.9, 2.3])
    affine[:3, 3] = 11, -7, 5
    return affine


AFFINES = {
    "ras": np.array([[3.0, 0, 0, 5], [0, 0.7, 0, -3], [0, 0, 2.5, 11], [0, 0, 0, 1]]),
    "lps": np.array([[-3.0, 0, 0, 5], [0, -0.7, 0, -3], [0, 0, 2.5, 11], [0, 0, 0, 1]]),
    "swapped": np.array([[0, 0, 1.5, 5], [-2.0, 0, 0, -3], [0, 2.5, 0, 11], [0, 0, 0, 1.0]]),
    "oblique": oblique(),
}


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 300, (17, 31, 13)).astype(np.float32)


@pytest.mark.parametrize("name", AFFINES)
def test_turning_moves_no_voxel(volume, name):
    turned, affine = to_ras(volume, AFFINES[name])
    assert (np.diag(affine)[:3] > 0).all()
    for voxel in ([0, 0, 0], [3, 5, 7], [16, 30, 12]):
        place = AFFINES[name] @ [*voxel, 1]
        there = np.linalg.solve(affine, place)[:3]
        assert np.allclose(there, np.rint(there), atol=1e-9)
        assert turned[tuple(np.rint(there).astype(int))] == volume[tuple(voxel)]


@pytest.mark.parametrize("name", AFFINES)
def test_grid_and_values_are_monais(volume, name):
    ours, affine = to_spacing(*to_ras(volume, AFFINES[name]), (1.5, 1.3, 2.0))
    theirs = Orientation("RAS", labels=RAS)(MetaTensor(volume[None], affine=torch.tensor(AFFINES[name])))
    theirs = Spacing((1.5, 1.3, 2.0), dtype=np.float64)(theirs)
    assert ours.shape == tuple(theirs.shape[1:])
    assert np.allclose(affine, theirs.affine, rtol=0, atol=1e-9)
    # float32 voxels of some hundred HU round by 3e-5; eight of them are added.
    assert np.abs(ours - theirs[0].numpy()).max() < 1e-3


def test_labels_keep_their_ids(volume):
    labels = (volume > 100).astype(np.uint8) * 7
    resampled, _ = to_spacing(labels, AFFINES["ras"], (1.5, 1.3, 2.0), nearest=True)
    assert resampled.dtype == np.uint8
    assert set(np.unique(resampled)) == {0, 7}


def test_nearest_is_the_nearest_voxel(volume):
    labels = np.arange(volume.size, dtype=np.uint16).reshape(volume.shape)
    resampled, affine = to_spacing(labels, AFFINES["ras"], (1.1, 1.1, 1.1), nearest=True)
    for voxel in np.ndindex(resampled.shape):
        there = np.linalg.solve(AFFINES["ras"], affine @ [*voxel, 1])[:3]
        nearest = np.clip(np.floor(there + 0.5), 0, np.array(labels.shape) - 1).astype(int)
        if np.abs(there % 1 - 0.5).min() > 1e-6:  # halfway either one is nearest
            assert resampled[voxel] == labels[tuple(nearest)]


def test_grid_that_is_right_already_is_left_alone(volume):
    affine = AFFINES["ras"] @ np.diag([1.0000001, 1, 1, 1])  # as float32 headers have it
    same, grid = to_spacing(volume, affine, (3.0, 0.7, 2.5))
    assert same is volume
    assert np.array_equal(grid, affine)


@pytest.mark.parametrize("order", ["C", "F"])
def test_planes_in_any_order_of_memory_are_scipys(order):
    """More planes than are written together, finer and coarser along each axis in turn."""
    volume = np.asarray(np.random.default_rng(3).normal(0, 300, (41, 29, 37)).astype(np.float32), order=order)
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    for spacing in ((0.41, 1.7, 1.0), (2.3, 0.37, 0.9), (1.0, 0.83, 0.31)):
        ours, _ = to_spacing(volume, affine, spacing)
        theirs = ndimage.affine_transform(volume, spacing, output_shape=ours.shape, order=1, mode="nearest")
        assert ours.flags.c_contiguous
        assert np.abs(ours - theirs).max() < 1e-3  # three float32 steps instead of one in float64
        whole, _ = to_spacing(volume, affine, spacing, dtype=np.int16)
        assert whole.dtype == np.int16
        assert np.array_equal(whole, np.rint(ours))


def test_whole_numbers_of_a_grid_that_is_right_already(volume):
    same, _ = to_spacing(volume, AFFINES["ras"], (3.0, 0.7, 2.5), dtype=np.int16)
    assert np.array_equal(same, np.rint(volume))


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("spacing_mm", [(2.0, 1.1, 1.5), None])
def test_int16_comes_to_what_float32_does(volume, name, spacing_mm):
    """Whole HU are read as int16 for their half of the memory; what is stored must not depend on it."""
    whole = np.rint(volume)
    affine = AFFINES[name]
    spacing_mm = np.abs(np.diag(to_ras(whole, affine)[1]))[:3] if spacing_mm is None else spacing_mm
    stored = [
        to_spacing(*to_ras(voxels, affine), spacing_mm, dtype=np.int16) for voxels in (whole, whole.astype(np.int16))
    ]
    assert stored[0][0].dtype == stored[1][0].dtype == np.int16
    assert np.array_equal(stored[0][0], stored[1][0])
    assert np.array_equal(stored[0][1], stored[1][1])
