"""Crops show what they say: the organ, its lesions, and the patient's right on the left."""

import numpy as np
import pytest

from monai_ext.demo.lesion_crops import (
    CROP_PX,
    LABEL_OF,
    PART_PX,
    SEEN,
    SHAPE,
    SMALLEST_ORGAN_PX,
    SMALLEST_PX,
    SPACING_MM,
    UNSEEN,
    cut_crops,
    lesion_phantom,
    part_of,
)
from monai_ext.volumes.phantom_lesions import LesionPhantom


def test_no_organ_is_seen_and_unseen() -> None:
    assert not set(SEEN) & set(UNSEEN)


def test_lesions_lie_in_the_organs_asked_for_and_in_no_other() -> None:
    phantom = lesion_phantom(11, ("spleen", "heart"))
    assert {lesion.organ for lesion in phantom.planted} == {"spleen", "heart"}
    touched = set(np.unique(phantom.labels[phantom.lesions > 0]))
    assert touched == {LABEL_OF["spleen"], LABEL_OF["heart"]}


@pytest.mark.parametrize("organ", [*SEEN, *UNSEEN])
def test_crops_alternate_between_healthy_and_ill(patient: LesionPhantom, organ: str) -> None:
    crops = cut_crops(patient, organ, 8, seed=1)
    assert len(crops) == 8
    for number, crop in enumerate(crops):
        assert crop.hu.shape == crop.organs.shape == crop.lesion.shape == (CROP_PX, CROP_PX)
        own = crop.lesion & crop.of_organ()
        assert crop.of_organ().any()
        if number % 2 == 0:
            assert not own.any()
            assert crop.contrast_hu == 0
        elif own.sum() >= SMALLEST_PX:
            assert crop.contrast_hu in {lesion.contrast_hu for lesion in patient.planted if lesion.organ == organ}


def test_a_lesion_is_as_much_denser_as_its_contrast_says(patient: LesionPhantom) -> None:
    found, planned = [], []
    for crop in cut_crops(patient, "liver", 40, seed=2):
        own = crop.lesion & crop.of_organ()
        if crop.contrast_hu and own.sum() >= 25:  # enough of it to average the noise away
            found.append(np.median(crop.hu[own]) - np.median(crop.hu[crop.of_organ() & ~crop.lesion]))
            planned.append(crop.contrast_hu)
    share = np.divide(found, planned)
    assert len(share) > 5
    assert (share > 0).all()  # dark ones are dark, bright ones bright
    # Slices beside the middle of a lesion hold more of its soft edge than of the lesion.
    assert 0.7 < np.median(share) < 1.1
    assert share.max() < 1.3


def test_the_patients_right_is_on_the_left_and_the_front_at_the_top(patient: LesionPhantom) -> None:
    hu = np.broadcast_to(np.arange(SHAPE[0], dtype=np.int16)[:, None, None], SHAPE)  # rises to the patient's right
    crop = cut_crops(patient._replace(hu=np.ascontiguousarray(hu)), "spleen", 1, seed=3)[0]
    assert (np.diff(crop.hu.astype(int), axis=1) == -1).all()  # x falls from left to right
    hu = np.broadcast_to(np.arange(SHAPE[1], dtype=np.int16)[None, :, None], SHAPE)
    crop = cut_crops(patient._replace(hu=np.ascontiguousarray(hu)), "spleen", 1, seed=3)[0]
    assert (np.diff(crop.hu.astype(int), axis=0) == -1).all()


def test_parts_show_a_lesion_or_none_but_no_sliver(patient: LesionPhantom) -> None:
    rng = np.random.default_rng(0)
    wide = cut_crops(patient, "liver", 12, seed=4, size_px=56)
    parts = [part for crop in wide for _ in range(9) if (part := part_of(crop, rng)) is not None]
    shown = [int((part.lesion & part.of_organ()).sum()) for part in parts]
    assert any(shown)
    assert not all(shown)
    for part, pixels in zip(parts, shown, strict=True):
        assert part.hu.shape == (PART_PX, PART_PX)
        assert pixels == 0 or pixels >= SMALLEST_PX
        assert bool(part.contrast_hu) is bool(pixels)
        assert part.of_organ().sum() >= SMALLEST_ORGAN_PX


def test_same_seed_same_crops_another_seed_others(patient: LesionPhantom) -> None:
    one, two, other = (cut_crops(patient, "heart", 4, seed=seed) for seed in (5, 5, 6))
    assert all(np.array_equal(a.hu, b.hu) for a, b in zip(one, two, strict=True))
    assert not all(np.array_equal(a.hu, b.hu) for a, b in zip(one, other, strict=True))


def test_slices_keep_their_scale() -> None:
    assert SPACING_MM[0] == SPACING_MM[1]  # one scale for both axes of a picture
