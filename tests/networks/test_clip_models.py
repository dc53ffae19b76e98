"""CLIPs from tags, files and tensors; the hub is never asked: what it would answer is put in its place."""

import hashlib
import json
import math
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.model import resize_pos_embed
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

from monai_ext.base import SettingError, WeightsError
from monai_ext.networks import ClipModel, clip_architectures, clip_weights, load_clip, load_clip_weights
from monai_ext.networks.clip_weights import resize_positions


@pytest.fixture
def square_config(clip_config):
    return {**clip_config, "vision_cfg": {**clip_config["vision_cfg"], "image_size": 20}}  # 4 x 4 patches


@pytest.fixture
def square_clip(square_config) -> ClipModel:
    torch.manual_seed(4)
    return load_clip(square_config, None)


@pytest.fixture
def config_file(square_config, tmp_path) -> Path:
    path = tmp_path / "tiny.json"
    preprocess = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.1]}
    path.write_text(json.dumps({"model_cfg": square_config, "preprocess_cfg": preprocess}))
    return path


def same(first: nn.Module, second: nn.Module) -> bool:
    own = first.state_dict()
    return all(torch.equal(own[name], value) for name, value in second.state_dict().items())


@pytest.fixture
def no_hub(monkeypatch):
    """A machine that reaches nothing."""

    def refuse(*_: object, **__: object) -> str:
        raise FileNotFoundError("no route to host")

    monkeypatch.setattr(clip_weights, "download_pretrained", refuse)
    monkeypatch.setattr(clip_weights, "download_pretrained_from_hf", refuse)
    monkeypatch.setattr(clip_architectures, "download_pretrained_from_hf", refuse)


# Sizes and settings


def test_a_clip_knows_its_sizes(random_clip):
    assert (random_clip.image_size, random_clip.grid) == ((35, 25), (7, 5))
    assert (random_clip.depth, random_clip.width, random_clip.embed_dim) == (6, 24, 14)
    assert (random_clip.text_depth, random_clip.text_width, random_clip.tag) == (4, 20, "own configuration/random")


def test_it_comes_frozen_and_in_eval_mode(random_clip):
    assert not any(part.training for part in random_clip.model.modules())
    assert not any(parameter.requires_grad for parameter in random_clip.model.parameters())


def test_a_file_of_a_configuration_gives_the_colours(config_file):
    clip = load_clip(config_file, None)
    assert (clip.mean, clip.std) == ((0.5, 0.4, 0.3), (0.2, 0.3, 0.1))


@pytest.mark.parametrize(("image_size", "grid"), [(35, (7, 7)), ((10, 40), (2, 8)), ([15, 20], (3, 4)), (None, (4, 4))])
def test_the_image_size_is_a_choice(square_config, image_size, grid):
    clip = load_clip(square_config, None, image_size=image_size)
    assert clip.grid == grid
    assert clip.visual.positional_embedding.shape[0] == 1 + grid[0] * grid[1]
    assert square_config["vision_cfg"]["image_size"] == 20


@pytest.mark.parametrize("image_size", [21, 4, (20, 22), (20, 20, 20)])
def test_a_size_of_broken_patches_is_refused(square_config, image_size):
    with pytest.raises(SettingError, match=r"image_size: .* is not a whole number of 5x5 patches; give multiples"):
        load_clip(square_config, None, image_size=image_size)


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_the_activation_is_a_choice(clip_config, activation):
    clip = load_clip(clip_config, None, activation=activation)
    assert clip.activation == activation
    expected = nn.functional.gelu(torch.ones(1)) if activation == "gelu" else torch.ones(1) / (1 + math.exp(-1.702))
    for tower in (clip.visual, clip.model):
        assert_close(tower.transformer.resblocks[0].mlp.gelu(torch.ones(1)), expected)


def test_a_configuration_decides_for_random_weights(clip_config):
    assert load_clip(clip_config, None).activation == "gelu"
    assert load_clip({**clip_config, "quick_gelu": True}, None).activation == "quick_gelu"
    with pytest.raises(SettingError, match=r"activation: 'relu' is none; choose 'weights', 'gelu' or 'quick_gelu'"):
        load_clip(clip_config, None, activation="relu")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("RN50", "its image tower is a ResNet"),
        ("ViT-B-16-SigLIP", "its image tower is the timm model vit_base_patch16_siglip_224"),
        ("coca_ViT-B-32", "it is a CoCa model"),
        ("roberta-ViT-B-32", "its text tower is the transformers model roberta-base"),
    ],
)
def test_towers_without_blocks_of_open_clip_are_refused(name, reason):
    with pytest.raises(SettingError, match=rf"{name}: {reason}.*; choose an open_clip ViT") as caught:
        load_clip(name)
    assert caught.value.code == "setting.clip"
    assert str(caught.value).count(";") == 1


def test_lent_towers_are_checked_too(clip_config):
    resnet = {**clip_config["vision_cfg"], "layers": [1, 1, 1, 1], "width": 8, "image_size": 32}
    with pytest.raises(SettingError, match=r"mine: its image tower is a ModifiedResNet"):
        ClipModel(open_clip.CLIP(**{**clip_config, "vision_cfg": resnet}), tag="mine")
    with pytest.raises(SettingError, match=r"unnamed CLIP: its image tower is a NoneType"):
        ClipModel(nn.Linear(2, 2))
    pooled = {**clip_config["vision_cfg"], "attentional_pool": True, "attn_pooler_heads": 2}
    with pytest.raises(SettingError, match=r"its image tower ends in attentional pooling"):
        ClipModel(open_clip.CLIP(**{**clip_config, "vision_cfg": pooled}))
    pruned = open_clip.CLIP(**clip_config)
    pruned.visual.prune_intermediate_layers([3])
    with pytest.raises(SettingError, match=r"its image projection has been removed"):
        ClipModel(pruned)


@pytest.mark.parametrize(
    "architecture", ["ViT-nonesuch", {"embed_dim": 4}, {"model_cfg": 3}, "absent.json", "local-dir:nowhere"]
)
def test_an_unknown_architecture_is_refused(architecture):
    with pytest.raises(SettingError, match=r"no open_clip configuration with|no JSON file of an open_clip config"):
        load_clip(architecture, None)


@pytest.mark.parametrize("wrong", [{"widht": 24}, {"head_width": 0}, {"head_width": 64}])
def test_a_configuration_that_open_clip_cannot_build_is_refused(clip_config, wrong):
    config = {**clip_config, "vision_cfg": {**clip_config["vision_cfg"], **wrong}}
    with pytest.raises(SettingError, match=r"own configuration: open_clip builds nothing of its configuration"):
        load_clip(config, None)


# Weights


@pytest.mark.parametrize("form", ["safetensors", "state_dict", "wrapped", "half"])
def test_files_fill_every_tensor(square_config, square_clip, tmp_path, form):
    state = {name: value.clone() for name, value in square_clip.model.state_dict().items()}
    path = tmp_path / "weights.bin"
    if form == "safetensors":
        save_file(state, path)
    elif form == "half":
        square_clip.model.load_state_dict({name: value.half().float() for name, value in state.items()})
        save_file({name: value.half() for name, value in state.items()}, path)
    else:
        wrapped = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}
        torch.save(state if form == "state_dict" else wrapped, path)
    clip = load_clip(square_config, path)
    assert same(clip.model, square_clip.model)
    assert {value.dtype for value in clip.model.parameters()} == {torch.float32}
    assert clip.tag == "own configuration/weights.bin"


def test_text_towers_of_both_kinds_take_the_same_weights(square_config, square_clip):
    custom = load_clip({**square_config, "custom_text": True}, None)
    load_clip_weights(custom, square_clip.model.state_dict())
    ids = custom.tokenizer(["a liver."])
    assert_close(custom.model.encode_text(ids), square_clip.model.encode_text(ids))


class Branch(nn.Module):
    """Holds parts of any name, and does nothing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def archive(model: nn.Module, path: Path) -> str:
    """Write a TorchScript archive with the numbers that OpenAI's have beside the weights; return its checksum."""
    root = Branch()
    for place, value in {**model.state_dict(), "input_resolution": torch.tensor(7)}.items():
        part, _, name = place.rpartition(".")
        branch = root
        for step in part.split(".") if part else ():
            if step not in dict(branch.named_children()):
                branch.add_module(step, Branch())
            branch = branch.get_submodule(step)
        branch.register_buffer(name, value.half() if value.is_floating_point() else value)
    torch.jit.save(torch.jit.script(root), path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_torchscript_archive_needs_a_known_checksum(square_config, square_clip, tmp_path, monkeypatch):
    path = tmp_path / "ViT-tiny.pt"
    checksum = archive(square_clip.model, path)
    with pytest.raises(WeightsError, match=r"ViT-tiny.pt: a TorchScript file holds code and loads only with a known"):
        load_clip(square_config, path)
    with pytest.raises(WeightsError, match=rf"ViT-tiny.pt: its sha256 is {checksum}, not 00"):
        load_clip(square_config, path, sha256="00")
    given = load_clip(square_config, path, sha256=checksum.upper())
    monkeypatch.setattr(clip_weights, "_openai_checksums", lambda: {checksum})
    known = load_clip(square_config, path)
    for clip in (given, known):
        assert clip.activation == "quick_gelu"  # archives of this kind are OpenAI's
        assert same(clip.model, known.model)
    assert torch.equal(known.visual.conv1.weight, square_clip.visual.conv1.weight.half().float())


def test_openai_s_checksums_are_known():
    # ViT-L/14 at 336 pixels, as in the address that OpenAI publishes
    assert "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02" in clip_weights._openai_checksums()


def test_positions_are_resized_as_open_clip_does(random_clip):
    table, other = torch.randn(1 + 16, 24), random_clip.model  # 4 x 4 patches to 7 x 5
    state = {"visual.positional_embedding": table.clone()}
    resize_pos_embed(state, other)
    resized = resize_positions(table, (4, 4), (7, 5))
    assert torch.equal(resized, state["visual.positional_embedding"])
    assert torch.equal(resized[0], table[0])


def test_another_grid_of_as_many_patches_is_resized_too(square_config, square_clip, tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(square_clip.model.state_dict(), path)
    wide = load_clip(square_config, path, image_size=(10, 40))
    table = square_clip.visual.positional_embedding
    assert torch.equal(wide.visual.positional_embedding, resize_positions(table, (4, 4), (2, 8)))
    # A state of such a model goes back into one as it is.
    again = load_clip(square_config, None, image_size=(10, 40))
    load_clip_weights(again, wide.model.state_dict())
    assert same(again.model, wide.model)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: s.pop("ln_final.bias"), r"w.bin: ln_final.bias is missing; give the architecture"),
        (lambda s: s.update(extra=torch.ones(1)), r"w.bin: extra is unknown to the model"),
        (lambda s: s.update({"visual.proj": torch.ones(24, 13)}), r"visual.proj has shape \[24, 13\], .* \[24, 14\]"),
        (lambda s: s["visual.proj"].fill_(math.nan), r"w.bin: visual.proj holds NaN or infinite numbers"),
        (lambda s: s.update(epoch=3), r"w.bin: 'epoch' is a int, not a tensor"),
        (
            lambda s: s.update({"visual.positional_embedding": torch.ones(12, 24)}),
            r"w.bin: its 11 positions make no square grid",
        ),
    ],
)
def test_weights_that_do_not_fit_change_nothing(square_clip, tmp_path, change, sentence):
    state = {name: value.clone() for name, value in square_clip.model.state_dict().items()}
    before = {name: value.clone() for name, value in state.items()}
    change(state)
    torch.save(state, tmp_path / "w.bin")
    with pytest.raises(WeightsError, match=sentence):
        load_clip_weights(square_clip, tmp_path / "w.bin")
    assert all(torch.equal(value, before[name]) for name, value in square_clip.model.state_dict().items())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, r"w.pt: no such file of weights"),
        (b"", r"w.pt: empty \(0 bytes\)"),
        (b"hello", r"w.pt: truncated, damaged or not a file of weights"),
    ],
)
def test_files_that_hold_no_weights_are_refused(square_config, tmp_path, content, sentence):
    path = tmp_path / "w.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=sentence):
        load_clip(square_config, path)


def test_a_list_is_no_weights(square_clip, tmp_path):
    torch.save([1, 2], tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"w.pt: holds a list instead of named tensors"):
        load_clip_weights(square_clip, tmp_path / "w.pt")


# Tags


@pytest.fixture
def tiny_tag(square_config, monkeypatch):
    """A name of open_clip with two pretrained tags of this size."""
    openai = {"url": "https://openaipublic.example/models/ab12/ViT-tiny.pt", "hf_hub": "timm/tiny.openai/"}
    tags = {
        "openai": {**openai, "mean": (0.1,) * 3, "std": (0.2,) * 3, "quick_gelu": True},
        "laion": {"url": "", "hf_hub": "timm/tiny.laion/", "mean": (0.3,) * 3, "std": (0.4,) * 3},
    }
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: square_config if name == "ViT-tiny" else None)
    for module in (clip_weights, clip_architectures):
        monkeypatch.setattr(module, "get_pretrained_cfg", lambda name, tag: tags.get(tag, {}))
    monkeypatch.setattr(clip_architectures, "list_pretrained_tags_by_model", lambda name: list(tags))


def test_a_tag_brings_weights_activation_and_colours(tiny_tag, square_clip, tmp_path, monkeypatch):
    path = tmp_path / "fetched.safetensors"
    save_file(square_clip.model.state_dict(), path)
    monkeypatch.setattr(clip_weights, "download_pretrained", lambda config, cache_dir: str(path))
    clip = load_clip("ViT-tiny", cache_dir=tmp_path)
    assert same(clip.model, square_clip.model)
    assert (clip.activation, clip.mean, clip.std) == ("quick_gelu", (0.1,) * 3, (0.2,) * 3)
    assert clip.tag == "ViT-tiny/openai"
    assert load_clip("ViT-tiny", activation="gelu", cache_dir=tmp_path).activation == "gelu"
    assert load_clip("ViT-tiny", "laion", cache_dir=tmp_path).activation == "gelu"


@pytest.mark.parametrize(
    ("tag", "file", "place"),
    [
        ("openai", r"https://openaipublic.example/models/ab12/ViT-tiny.pt", "ViT-tiny.pt"),
        (
            "laion",
            r"https://huggingface.co/timm/tiny.laion/resolve/main/open_clip_model.safetensors",
            "ViT-tiny.laion.safetensors",
        ),
    ],
)
def test_without_the_hub_the_error_says_what_to_fetch_and_where_to_put_it(
    tiny_tag, no_hub, square_clip, tmp_path, tag, file, place
):
    with pytest.raises(WeightsError, match="the hub cannot be reached") as caught:
        load_clip("ViT-tiny", tag, cache_dir=tmp_path)
    assert str(caught.value) == (
        f"ViT-tiny with weights '{tag}': the hub cannot be reached (FileNotFoundError); fetch {file} elsewhere and "
        f"put it at {tmp_path / place}, or give its path as weights"
    )
    save_file(square_clip.model.state_dict(), tmp_path / place)
    clip = load_clip("ViT-tiny", tag, cache_dir=tmp_path)
    assert same(clip.model, square_clip.model)
    assert clip.activation == ("quick_gelu" if tag == "openai" else "gelu")


def test_the_house_s_place_is_in_the_home_folder(tiny_tag, no_hub, monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    with pytest.raises(WeightsError, match=r"put it at ~/.cache/clip/ViT-tiny.laion.safetensors, or give"):
        load_clip("ViT-tiny", "laion")


def test_a_file_of_unknown_training_wants_the_activation(tiny_tag, square_clip, tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(square_clip.model.state_dict(), path)
    with pytest.raises(SettingError, match=r"ViT-tiny: a file does not say which activation .*'quick_gelu' for OpenAI"):
        load_clip("ViT-tiny", path)
    assert load_clip("ViT-tiny", path, activation="gelu").activation == "gelu"


def test_an_unknown_tag_lists_the_known_ones(tiny_tag, clip_config):
    with pytest.raises(SettingError, match=r"ViT-tiny: no weights are called 'opanai'; choose one of openai, laion"):
        load_clip("ViT-tiny", "opanai")
    with pytest.raises(SettingError, match=r"own configuration: no weights are called 'openai'; give a file"):
        load_clip(clip_config)


def test_a_folder_brings_its_configuration_and_weights(square_clip, config_file, no_hub):
    folder = config_file.parent
    config_file.rename(folder / "open_clip_config.json")
    with pytest.raises(WeightsError, match=r"no folder with one file of weights \(open_clip_model.safetensors\)"):
        load_clip(f"local-dir:{folder}")
    torch.save(square_clip.model.state_dict(), folder / "open_clip_pytorch_model.bin")
    clip = load_clip(f"local-dir:{folder}")
    assert same(clip.model, square_clip.model)
    assert clip.mean == (0.5, 0.4, 0.3)


def test_a_repository_of_the_hub_works_like_a_folder(square_clip, config_file, no_hub, monkeypatch, tmp_path):
    with pytest.raises(SettingError, match=r"hf-hub:org/tiny: the hub cannot be reached; fetch open_clip_config.json"):
        load_clip("hf-hub:org/tiny")
    monkeypatch.setattr(clip_architectures, "download_pretrained_from_hf", lambda name, filename: str(config_file))
    with pytest.raises(
        WeightsError, match=r"fetch https://huggingface.co/org/tiny/resolve/.*org--tiny.openai.safetensors"
    ):
        load_clip("hf-hub:org/tiny", cache_dir=tmp_path)
    path = tmp_path / "w.safetensors"
    save_file(square_clip.model.state_dict(), path)
    monkeypatch.setattr(clip_weights, "download_pretrained_from_hf", lambda name, cache_dir: str(path))
    assert same(load_clip("hf-hub:org/tiny").model, square_clip.model)
