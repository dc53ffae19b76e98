import json
import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import monai_ext
from monai_ext.base import WeightsError, WriteError, write_digest
from monai_ext.networks import (
    AAClip,
    PromptTable,
    adapted_clip,
    import_adapters,
    load_adapters,
    load_clip,
    load_clip_weights,
    read_adapters,
    save_adapters,
)
from monai_ext.networks.clip_fingerprint import clip_fingerprint


@pytest.fixture
def path(random_aa_clip, tmp_path):
    path = tmp_path / "adapters.safetensors"
    save_adapters(random_aa_clip, path, PromptTable.published())
    return path


def shaken(model: AAClip) -> AAClip:
    """The same network with other adapters."""
    twin = AAClip(model.clip, **model.settings())
    return twin


def equal(first: AAClip, second: AAClip) -> bool:
    other = second.adapters.state_dict()
    return all(torch.equal(value, other[name]) for name, value in first.adapters.state_dict().items())


def test_adapters_come_back_with_their_record(random_aa_clip, path):
    twin = shaken(random_aa_clip)
    assert not equal(twin, random_aa_clip)
    record = load_adapters(twin, path)
    assert equal(twin, random_aa_clip)
    assert (record.clip, record.activation) == ("own configuration/random", "gelu")
    assert record.settings == random_aa_clip.settings()
    assert record.prompts == PromptTable.published()
    assert record.package_version == monai_ext.__version__


def test_the_file_is_small_and_says_all_in_its_metadata(random_aa_clip, path):
    with safe_open(path, "pt") as file:
        texts, names = file.metadata(), list(file.keys())
    assert set(names) == set(random_aa_clip.adapters.state_dict())
    assert json.loads(texts["settings"])["levels"] == [2, 5]
    assert json.loads(texts["prompts"])["templates"] == ["{}.", "a photo of {}."]
    assert len(texts["sha256"]) == len(texts["clip_sha256"]) == 64
    numbers = sum(value.numel() for value in random_aa_clip.adapters.parameters())
    assert path.stat().st_size < 4 * numbers + 20_000  # the prompts take 10,000


def test_a_network_is_built_from_the_file(random_aa_clip, path):
    model, record = adapted_clip(random_aa_clip.clip, path)
    assert equal(model, random_aa_clip)
    assert model.settings() == random_aa_clip.settings() == record.settings


def test_prompts_may_be_left_out(random_aa_clip, tmp_path):
    save_adapters(random_aa_clip, tmp_path / "a.safetensors")
    assert read_adapters(tmp_path / "a.safetensors")[1].prompts is None


def test_another_image_size_is_the_same_clip(random_aa_clip, clip_config, path):
    clip = load_clip(clip_config, None, image_size=(50, 30))
    load_clip_weights(clip, random_aa_clip.open_clip.state_dict(), native_grid=(7, 5))
    assert clip_fingerprint(clip.model) == clip_fingerprint(random_aa_clip.open_clip)
    assert adapted_clip(clip, path)[0].clip.grid == (10, 6)


@pytest.mark.parametrize("tensor", ["visual.conv1.weight", "ln_final.bias", "logit_scale", "token_embedding.weight"])
def test_another_clip_is_refused(random_aa_clip, path, tensor):
    with torch.no_grad():
        random_aa_clip.open_clip.state_dict()[tensor].add_(1e-3)
    for load in (load_adapters, lambda model, place: adapted_clip(model.clip, place)):
        with pytest.raises(
            WeightsError,
            match=r"adapters.safetensors: trained beside the CLIP own .*, this one is own .* other weights",
        ):
            load(random_aa_clip, path)


def test_another_activation_is_refused(random_aa_clip, clip_config, path):
    clip = load_clip(clip_config, None, activation="quick_gelu")
    load_clip_weights(clip, random_aa_clip.open_clip.state_dict())
    with pytest.raises(WeightsError, match=r"trained with gelu, the CLIP runs quick_gelu; load .* activation='gelu'"):
        adapted_clip(clip, path)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("levels", (2, 6)), ("image_adapt_weight", 0.4), ("text_adapt_until", 1), ("relu", True), ("temperature", 50.0)],
)
def test_other_settings_are_refused(random_aa_clip, path, setting, value):
    twin = AAClip(random_aa_clip.clip, **{**random_aa_clip.settings(), setting: value})
    with pytest.raises(WeightsError, match=rf"trained with {setting} .*; build it with adapted_clip"):
        load_adapters(twin, path)


def test_how_stage_1_ran_does_not_matter_afterwards(random_aa_clip, path):
    twin = AAClip(random_aa_clip.clip, **{**random_aa_clip.settings(), "vv_axis": "batch", "vv_blocks": 0})
    load_adapters(twin, path)
    assert equal(twin, random_aa_clip)


def rewritten(path, tensors=None, **texts):
    with safe_open(path, "pt") as file:
        metadata = {**file.metadata(), **texts}
    save_file({**load_file(path), **(tensors or {})}, path, {key: text for key, text in metadata.items() if text})
    write_digest(path)  # whoever changes it on purpose makes the checksum anew


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"tensors": {"text_adapter.0.fc.0.weight": torch.ones(20, 20)}},
            r"do not have the sha256 that the file gives",
        ),
        ({"format": "other"}, r"no file of AA-CLIP adapters, or a damaged one; give one that save_adapters wrote"),
        ({"clip_sha256": ""}, r"no file of AA-CLIP adapters"),
        ({"settings": "{"}, r"no file of AA-CLIP adapters"),
        ({"prompts": "{}"}, r"no file of AA-CLIP adapters"),
    ],
)
def test_a_changed_file_is_refused(random_aa_clip, path, change, sentence):
    rewritten(path, **change)
    before = {name: value.clone() for name, value in random_aa_clip.adapters.state_dict().items()}
    with pytest.raises(WeightsError, match=rf"adapters.safetensors: .*{sentence}|{sentence}"):
        load_adapters(random_aa_clip, path)
    assert all(torch.equal(v, before[n]) for n, v in random_aa_clip.adapters.state_dict().items())


def test_settings_of_another_version_are_refused(random_aa_clip, path):
    rewritten(path, settings=json.dumps({**random_aa_clip.settings(), "levels": [2, 99]}))
    with pytest.raises(WeightsError, match=r"its settings do not fit this version \(levels: .*use version"):
        adapted_clip(random_aa_clip.clip, path)


@pytest.mark.parametrize(
    ("content", "sentence"), [(None, "no such file"), (b"", "empty"), (b"hello", "no file of AA-CLIP adapters")]
)
def test_no_file_of_adapters(random_aa_clip, tmp_path, content, sentence):
    path = tmp_path / "a.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=sentence):
        read_adapters(path)


def test_nothing_half_written_remains(random_aa_clip, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save", full)
    with pytest.raises(WriteError, match=r"a.safetensors: could not be written"):
        save_adapters(random_aa_clip, tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


# The authors' files


@pytest.fixture
def authors(random_aa_clip, tmp_path):
    """Files as the published training writes them."""
    state = {
        kind: {
            name.removeprefix(f"{kind}."): torch.randn_like(value)
            for name, value in random_aa_clip.adapters.state_dict().items()
            if name.startswith(kind)
        }
        for kind in ("text_adapter", "image_adapter")
    }
    optimizer = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    for kind, name in (("text_adapter", "text_adapter.pth"), ("image_adapter", "image_adapter_20.pth")):
        torch.save({"epoch": 20, kind: state[kind], f"{kind}_optimizer": optimizer}, tmp_path / name)
    return tmp_path, state


def test_the_authors_files_fill_the_adapters(random_aa_clip, authors):
    folder, state = authors
    import_adapters(random_aa_clip, folder / "text_adapter.pth", folder / "image_adapter_20.pth")
    for kind, tensors in state.items():
        own = getattr(random_aa_clip.adapters, kind).state_dict()
        assert set(own) == set(tensors)
        assert all(torch.equal(own[name], value) for name, value in tensors.items())


def test_one_of_them_leaves_the_other_adapter_alone(random_aa_clip, authors):
    folder, _ = authors
    before = random_aa_clip.adapters.text_adapter[0].weight.clone()
    import_adapters(random_aa_clip, image=folder / "image_adapter_20.pth")
    assert torch.equal(random_aa_clip.adapters.text_adapter[0].weight, before)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda s: s.pop("det_proj.fc.weight"),
            r"i.pth: image_adapter.det_proj.fc.weight is missing; build AAClip with",
        ),
        (lambda s: s.update({"seg_proj.7.fc.weight": torch.ones(2, 2)}), r"image_adapter.seg_proj.7.* unknown to it"),
        (
            lambda s: s.update({"det_proj.fc.weight": torch.ones(2, 2)}),
            r"has shape \[2, 2\], the model needs \[14, 24\]",
        ),
        (lambda s: s["det_proj.fc.weight"].fill_(math.inf), r"holds NaN or infinite numbers"),
        (lambda s: s.update({"epoch": 3}), r"i.pth: holds no adapter of AA-CLIP; give text_adapter.pth as text"),
    ],
)
def test_files_that_do_not_fit_change_nothing(random_aa_clip, authors, change, sentence):
    folder, state = authors
    change(state["image_adapter"])
    torch.save({"image_adapter": state["image_adapter"]}, folder / "i.pth")
    before = {name: value.clone() for name, value in random_aa_clip.adapters.state_dict().items()}
    with pytest.raises(WeightsError, match=sentence):
        import_adapters(random_aa_clip, folder / "text_adapter.pth", folder / "i.pth")
    assert all(torch.equal(v, before[n]) for n, v in random_aa_clip.adapters.state_dict().items())


def test_a_file_given_as_the_other_is_refused(random_aa_clip, authors):
    with pytest.raises(WeightsError, match=r"image_adapter_20.pth: holds no adapter of AA-CLIP"):
        import_adapters(random_aa_clip, text=authors[0] / "image_adapter_20.pth")


def test_a_pickle_with_code_is_refused(random_aa_clip, tmp_path):
    torch.save({"text_adapter": random_aa_clip.adapters}, tmp_path / "t.pth")
    with pytest.raises(WeightsError, match=r"t.pth: holds Python objects beside tensors"):
        import_adapters(random_aa_clip, text=tmp_path / "t.pth")
