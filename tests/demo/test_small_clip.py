"""The small CLIP that ships: whole, known by its checksum, small, and better than chance at what it was taught."""

import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from monai_ext.base import WeightsError
from monai_ext.demo import small_clip
from monai_ext.demo.lesion_crops import SEEN, UNSEEN, LesionCrop, cut_crops
from monai_ext.demo.small_clip import SHA256, WEIGHTS, load_small_clip
from monai_ext.demo.small_clip_training import CaptionTraining, train_small_clip
from monai_ext.networks import load_clip
from monai_ext.volumes.phantom_lesions import LesionPhantom


@pytest.fixture(scope="module")
def crops(patient: LesionPhantom) -> list[LesionCrop]:
    return [crop for organ in (*SEEN, *UNSEEN) for crop in cut_crops(patient, organ, 12, seed=8, size_px=56)]


def test_the_file_is_the_one_that_was_made() -> None:
    assert hashlib.sha256(WEIGHTS.read_bytes()).hexdigest() == SHA256
    assert WEIGHTS.stat().st_size < 8e6
    with safe_open(WEIGHTS, "pt") as stored:
        recipe = json.loads(stored.metadata()["recipe"])
        assert {stored.get_tensor(name).dtype for name in stored.keys()} == {torch.float16}  # noqa: SIM118
    assert recipe["organs_right"] > 0.8


def test_another_file_is_refused(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = bytearray(WEIGHTS.read_bytes())
    changed[-1] ^= 1
    (tmp_path / "small_clip.safetensors").write_bytes(changed)
    monkeypatch.setattr(small_clip, "WEIGHTS", tmp_path / "small_clip.safetensors")
    with pytest.raises(WeightsError, match=r"^small_clip\.safetensors"):
        load_small_clip()


def test_it_names_organs_of_a_patient_it_never_saw(crops: list[LesionCrop]) -> None:
    figures = CaptionTraining(load_small_clip(), crops, seed=0).figures(crops)
    assert figures["organs_right"] > 0.7  # chance is 1 in 7
    lesions = [value for name, value in figures.items() if name.startswith("lesion")]
    assert np.mean(lesions) > 0.6


def test_it_takes_other_sizes() -> None:
    assert load_small_clip((40, 56)).grid == (10, 14)


@pytest.mark.full
def test_training_starts_from_chance_and_learns(crops: list[LesionCrop], monkeypatch: pytest.MonkeyPatch) -> None:
    before = CaptionTraining(load_clip(small_clip.CONFIG, None, activation="gelu"), crops, seed=0)
    with torch.no_grad():
        first = float(before.loss())
    clip, recipe = train_small_clip(crops, crops, steps=12, seed=0)
    assert json.loads(recipe)["steps"] == 12
    with torch.no_grad():
        last = np.mean([float(CaptionTraining(clip, crops, seed).loss()) for seed in range(3)])
    assert last < first - 0.1
    assert not any(parameter.requires_grad for parameter in clip.model.parameters())
