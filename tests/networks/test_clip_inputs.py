"""What a CLIP takes is told without building it, and is what the built one takes."""

import json

import open_clip
import pytest
import torch

from monai_ext.base import SettingError
from monai_ext.networks import ClipModel, clip_input, load_clip
from monai_ext.networks.clip_architectures import find_architecture

GREYS = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.1]}


def taken(clip: ClipModel) -> tuple[object, ...]:
    return clip.image_size, clip.mean, clip.std


def told(*arguments: object, image_size: object = None) -> tuple[object, ...]:
    one = clip_input(*arguments, image_size=image_size)
    return one.image_size, one.mean, one.std


@pytest.fixture
def nothing_is_built(monkeypatch):
    """A machine without the memory for any CLIP."""

    def refuse(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(open_clip.CLIP, "__init__", refuse)


@pytest.mark.parametrize(
    ("own", "image_size", "colours"),
    [
        (20, None, GREYS),
        (20, [15, 20], {}),
        ([25, 35], None, {}),
        ([25, 35], 35, GREYS),
        (None, (10, 40), GREYS),
        (None, None, {}),
    ],
)
def test_it_is_what_the_built_clip_takes(clip_config, tmp_path, image_size, own, colours):
    vision = {**clip_config["vision_cfg"], "image_size": own}
    if own is None:
        del vision["image_size"]  # open_clip's own 224
        vision["patch_size"] = 5 if image_size else 16
    path = tmp_path / "clip.json"
    path.write_text(json.dumps({"model_cfg": {**clip_config, "vision_cfg": vision}, "preprocess_cfg": colours}))
    expected = taken(load_clip(path, None, image_size=image_size))
    assert told(path, None, image_size=image_size) == expected
    assert told(path, "trained.pt", image_size=image_size) == expected  # a file says nothing of its pictures


@pytest.mark.parametrize(
    ("name", "image_size"),
    [("ViT-L-14-336", 518), ("ViT-L-14-336", None), ("ViT-B-16", (224, 336)), ("ViT-B-32", None)],
)
def test_names_of_open_clip_agree_too(name, image_size):
    with torch.device("meta"):  # whole, but for the weights themselves
        built = load_clip(name, None, image_size=image_size)
    assert told(name, None, image_size=image_size) == taken(built)


def test_weights_that_were_trained_on_other_colours(nothing_is_built):
    assert clip_input("ViT-L-14", "openai").mean == open_clip.OPENAI_DATASET_MEAN
    other = clip_input("ViT-L-14", "laion2b_s32b_b82k", image_size=518)
    assert (other.image_size, other.mean, other.std) == ((518, 518), (0.5,) * 3, (0.5,) * 3)


def test_what_cannot_be_built_is_refused(clip_config):
    with pytest.raises(SettingError, match=r"image_size: 520 is not a whole number of 14x14 patches"):
        clip_input(image_size=520)
    with pytest.raises(SettingError, match=r"ViT-L-14: no weights are called 'opanai'; choose one of openai"):
        clip_input("ViT-L-14", "opanai")
    with pytest.raises(SettingError, match=r"RN50: .*its image tower is a ResNet"):
        clip_input("RN50")


def test_patches_follow_the_size(clip_config):
    found = find_architecture({**clip_config, "vision_cfg": {**clip_config["vision_cfg"], "image_size": [35, 25]}})
    assert (found.image_size(), found.image_size(10), found.native_grid) == ((35, 25), (10, 10), (7, 5))
