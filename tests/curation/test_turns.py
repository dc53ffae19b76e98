"""The checksum of voxels: one for all 48 turns of a volume, another one for any other volume."""

import numpy as np
import pytest

from monai_ext.curation.signatures import signature, turning
from monai_ext.curation.turns import all_turns, voxel_digest

RNG = np.random.default_rng(3)
VOLUME = RNG.integers(-1000, 1000, (5, 7, 11))


def test_there_are_48_turns_of_a_volume_and_8_of_a_picture() -> None:
    assert len({turn.apply(VOLUME).tobytes() for turn in all_turns(3)}) == 48
    assert len({turn.apply(VOLUME[0]).tobytes() for turn in all_turns(2)}) == 8
    assert np.array_equal(all_turns(3)[0].apply(VOLUME), VOLUME)


@pytest.mark.parametrize(
    "voxels",
    [
        VOLUME,
        RNG.integers(-9, 9, (5, 5, 5)),  # no axis told apart by its length
        np.ones((3, 3, 3), int),  # every turn ties
        np.pad(RNG.integers(0, 9, (3, 1, 1)), ((0, 0), (1, 1), (2, 2))),  # two axes are palindromes
    ],
    ids=["prime", "cube", "constant", "palindromes"],
)
def test_no_turn_changes_the_checksum(voxels: np.ndarray) -> None:
    assert {voxel_digest(turn.apply(voxels)) for turn in all_turns(3)} == {voxel_digest(voxels)}


def test_sums_that_tie_do_not_join_different_volumes() -> None:
    # Both have the same sums along every axis, and those are palindromes; neither is a turn of the other.
    one, other = np.zeros((4, 4, 4), int), np.zeros((4, 4, 4), int)
    for shift in range(4):
        one[shift, shift, :] = other[shift, (shift + 1) % 4, :] = 1
    sums = [tuple(volume.sum(axis=axes).tolist()) for volume in (one, other) for axes in ((1, 2), (0, 2), (0, 1))]
    assert set(sums) == {(4, 4, 4, 4)}
    assert voxel_digest(one) != voxel_digest(other)
    for turn in all_turns(3):
        assert voxel_digest(turn.apply(other)) == voxel_digest(other)


def test_one_voxel_or_another_shape_changes_the_checksum() -> None:
    changed = VOLUME.copy()
    changed[2, 3, 4] += 1
    assert voxel_digest(changed) != voxel_digest(VOLUME) != voxel_digest(VOLUME.reshape(7, 5, 11))


def test_whole_numbers_count_whatever_type_holds_them() -> None:
    assert voxel_digest(VOLUME.astype(np.float32) + 0.25) == voxel_digest(VOLUME.astype(np.int16))


def test_colours_stay_in_order() -> None:
    picture = RNG.integers(0, 255, (5, 7, 3), dtype=np.uint8)
    assert {voxel_digest(turn.apply(picture), axes=2) for turn in all_turns(2)} == {voxel_digest(picture, axes=2)}
    assert voxel_digest(picture[:, :, ::-1], axes=2) != voxel_digest(picture, axes=2)


@pytest.mark.parametrize(("axes", "cells"), [(3, 32), (2, 48)])
def test_a_signature_turns_with_its_thumbnail(axes: int, cells: int) -> None:
    thumbnail = RNG.integers(0, 255, (cells,) * axes).astype(np.uint8)
    waves = signature(thumbnail)
    for turn in all_turns(axes):
        order, signs = turning(turn)
        np.testing.assert_allclose(signature(turn.apply(thumbnail)), waves[order] * signs, atol=1e-4)
