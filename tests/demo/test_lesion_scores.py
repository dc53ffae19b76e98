"""Scores of maps that are known: perfect, flat, upside down; and what no training is needed for."""

from collections.abc import Callable

import numpy as np
import pytest

from monai_ext.demo.lesion_crops import SEEN, UNSEEN, LesionCrop
from monai_ext.demo.lesion_scores import (
    ADAPTED,
    BASELINES,
    RATES,
    SCORERS,
    LesionScores,
    score_crops,
    stage_1_map,
    stage_2_map,
)
from monai_ext.demo.small_clip import PROMPTS, load_small_clip
from monai_ext.networks import AAClip, PromptTable

PROMPT_TABLE = PromptTable.read(PROMPTS)


@pytest.fixture(scope="module")
def model() -> AAClip:
    return AAClip(load_small_clip(16), text_adapt_until=1).eval()


def test_baselines_are_what_they_say(model: AAClip, made_crop: Callable[..., LesionCrop]) -> None:
    scores = score_crops(model, PROMPT_TABLE, [made_crop("liver", -30.0)])
    within = {name: scores.mean(name, "organ", ["liver"]) for name in SCORERS}
    assert within["dark (-HU)"] == 1
    assert within["bright (HU)"] == 0
    assert within["difference from the organ's mean"] == 1
    assert within["the same, smoothed by 4 mm"] > 0.9
    assert within["the organ's mask"] == 0.5
    # Of the body only the organ is left here: the first row is air.
    assert scores.mean("the organ's mask", "body", ["liver"]) == 0.5


def test_lesions_of_other_organs_are_no_healthy_pixels(model: AAClip, made_crop: Callable[..., LesionCrop]) -> None:
    crop = made_crop("liver", -30.0)
    organs, lesion, hu = crop.organs.copy(), crop.lesion.copy(), crop.hu.copy()
    organs[2:5, 8:14], lesion[2:5, 8:14], hu[2:5, 8:14] = 2, True, 20  # darker than the liver's own lesion
    scores = score_crops(model, PROMPT_TABLE, [crop._replace(organs=organs, lesion=lesion, hu=hu)])
    assert scores.mean("dark (-HU)", "body", ["liver"]) == 1


def test_crops_without_a_lesion_are_not_scored(model: AAClip, made_crop: Callable[..., LesionCrop]) -> None:
    assert not score_crops(model, PROMPT_TABLE, [made_crop("liver", 0.0)]).values


def test_organs_count_alike_however_many_crops_they_have() -> None:
    scores = LesionScores()
    for value in (0.9, 0.9, 0.9, 0.9):
        scores.add(ADAPTED, "organ", "liver", value)
    scores.add(ADAPTED, "organ", "heart", 0.5)
    assert scores.mean(ADAPTED, "organ", SEEN) == pytest.approx(0.7)


def test_the_margin_is_over_the_best_baseline() -> None:
    scores = LesionScores()
    scores.add(ADAPTED, "organ", "liver", 0.9)
    for number, name in enumerate(BASELINES):
        scores.add(name, "organ", "liver", 0.5 + 0.05 * number)
    assert scores.margin(ADAPTED, "organ", ("liver",)) == pytest.approx(0.9 - 0.5 - 0.05 * (len(BASELINES) - 1))
    assert scores.margin(ADAPTED, "organ", ("liver",), BASELINES[:1]) == pytest.approx(0.4)


def test_curves_rise_from_nothing_to_everything(model: AAClip, made_crop: Callable[..., LesionCrop]) -> None:
    crops = [made_crop(organ, -30.0) for organ in (*SEEN, *UNSEEN)]
    scores = score_crops(model, PROMPT_TABLE, crops)
    for organs in (SEEN, UNSEEN):
        curve = scores.mean_curve(ADAPTED, organs)
        assert (curve[-1], len(curve)) == (1, len(RATES))
        assert (np.diff(curve) >= 0).all()
        # The area under the mean curve is the mean of the areas, but for the grid of rates.
        assert np.trapezoid(curve, RATES) == pytest.approx(scores.mean(ADAPTED, "organ", organs), abs=0.02)
    assert set(scores.table()) == set(SCORERS)


def test_maps_are_log_odds_of_the_pictures_size(model: AAClip, made_crop: Callable[..., LesionCrop]) -> None:
    from monai_ext.transforms import ClipPicture

    picture = ClipPicture(16, model.clip.mean, model.clip.std)(made_crop().picture())[None]
    for way in (stage_1_map, stage_2_map):
        assert way(model, PROMPT_TABLE, "liver", picture).shape == (16, 16)
