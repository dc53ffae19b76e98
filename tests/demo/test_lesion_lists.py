"""Lists of crops as the bundle reads them: masks, labels, classes and patients are true."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from monai_ext.demo.adaptation import TRAINING, training_settings
from monai_ext.demo.lesion_crops import GENERIC, LesionCrop, cut_anywhere
from monai_ext.demo.lesion_lists import write_crops
from monai_ext.demo.small_clip import PROMPTS
from monai_ext.manifests import read_picture_list
from monai_ext.networks import PromptTable
from monai_ext.volumes.phantom_lesions import LesionPhantom


def test_pictures_masks_and_classes(tmp_path: Path, made_crop: Callable[..., LesionCrop]) -> None:
    crops = [made_crop(organ, hu) for organ in ("liver", "heart") for hu in (0.0, -30.0, 40.0, 0.0)]
    entries = read_picture_list(write_crops(tmp_path, crops), tmp_path, dataset="Phantoms")
    assert [entry.label for entry in entries] == [0, 1, 1, 0] * 2
    assert [entry.class_name for entry in entries] == ["liver"] * 2 + [GENERIC] * 2 + ["heart"] * 2 + [GENERIC] * 2
    assert {entry.group for entry in entries} == {"made"}
    for entry, crop in zip(entries, crops, strict=True):
        assert np.array_equal(np.asarray(Image.open(entry.image)), crop.picture())
        if entry.mask is not None:
            assert np.array_equal(np.asarray(Image.open(entry.mask)) > 0, crop.lesion)
    assert all(entry.class_name in PromptTable.read(PROMPTS).classes("Phantoms") for entry in entries)


def test_crops_of_any_place_show_the_body(patient: LesionPhantom) -> None:
    crops = cut_anywhere(patient, 20, seed=1)
    assert {crop.organ for crop in crops} == {GENERIC}
    assert all((crop.hu > -400).mean() > 0.05 for crop in crops)
    assert len({crop.hu.tobytes() for crop in crops}) == 20


def test_the_rate_falls_after_shares_of_the_iterations(tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").write_text("".join(json.dumps({}) + "\n" for _ in range(100)), encoding="utf-8")
    settings = training_settings(tmp_path / "list.jsonl", tmp_path / "out", epochs=10, seed=0)
    assert (TRAINING["held_out"], TRAINING["batch_size"]) == (0.1, 8)
    assert settings["milestones"] == [72, 102]  # of 10 epochs of 12 iterations
