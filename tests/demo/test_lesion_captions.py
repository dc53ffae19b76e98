"""Captions tell the truth about a crop, and never speak of a lesion of a held-out organ."""

import re
from collections.abc import Callable

import numpy as np
import pytest

from monai_ext.demo.lesion_captions import caption_of, organ_name
from monai_ext.demo.lesion_crops import SEEN, UNSEEN, LesionCrop
from monai_ext.demo.small_clip import PROMPTS
from monai_ext.networks import PromptTable

Captions = Callable[[str, float], list[str]]
ILL = re.compile("lesion(?!s)|diseased|dark|bright")


@pytest.fixture
def captions(made_crop: Callable[..., LesionCrop]) -> Captions:
    def many(organ: str, contrast_hu: float) -> list[str]:
        rng = np.random.default_rng(0)
        return [caption_of(made_crop(organ, contrast_hu), rng) for _ in range(300)]

    return many


@pytest.mark.parametrize("organ", UNSEEN)
@pytest.mark.parametrize("contrast_hu", [0.0, 150.0])
def test_held_out_organs_are_never_ill(captions: Captions, organ: str, contrast_hu: float) -> None:
    assert not [text for text in captions(organ, contrast_hu) if ILL.search(text)]


@pytest.mark.parametrize("organ", SEEN)
def test_ill_organs_are_said_to_be_ill_and_healthy_ones_healthy(captions: Captions, organ: str) -> None:
    assert all(ILL.search(text) for text in captions(organ, -30.0))
    assert not [text for text in captions(organ, 0.0) if ILL.search(text.replace("without a lesion", ""))]


def test_density_and_place_are_true(captions: Captions) -> None:
    dark, bright = captions("liver", -30.0), captions("liver", 30.0)
    assert any("dark" in text for text in dark)
    assert not any("bright" in text for text in dark)
    assert any("bright" in text for text in bright)
    placed = [text for text in dark if "," in text]
    assert placed
    assert all("lower left" in text for text in placed)


def test_kidneys_are_told_apart_and_every_organ_is_called_an_organ_too(captions: Captions) -> None:
    assert organ_name("kidney_right") == "right kidney"
    texts = captions("kidney_right", 0.0)
    assert any("right kidney" in text for text in texts)
    assert any("organ" in text for text in texts)
    assert not any("left kidney" in text for text in texts)


def test_prompts_know_every_organ_by_its_name() -> None:
    table = PromptTable.read(PROMPTS)
    for organ in (*SEEN, *UNSEEN):
        assert table.real_name(organ, "Phantoms") == organ_name(organ)
