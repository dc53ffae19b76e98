"""Classes by name, lists of inputs, and weights that do not belong together."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from monai_ext.base import InputError, ScanError, SettingError, WeightsError
from monai_ext.engines import (
    class_prompts,
    domain_of,
    evaluation_items,
    known_classes,
    localization_items,
    normal_items,
    offline_activation,
    open_localizer,
    prompt_table,
    prompts_by_class,
)
from monai_ext.engines.localization import case_score
from monai_ext.metrics import Calibration, rate_threshold
from monai_ext.networks import AAClip, AnomalyLocalizer, PromptTable, load_clip, read_adapters, save_adapters

TABLE = PromptTable.published()


@pytest.mark.parametrize("name", ["Liver", "liver", "LIVER"])
def test_classes_are_found_in_capitals_or_not(name: str) -> None:
    assert class_prompts(name, TABLE) == TABLE.of_class("Liver")


def test_unknown_classes_list_the_known_or_stand_as_they_are() -> None:
    with pytest.raises(SettingError, match=r"class 'spleen': unknown; choose one of .*Liver.*screw.*free-text"):
        class_prompts("spleen", TABLE)
    with pytest.raises(SettingError, match=r"class 'screw': unknown in Liver; choose one of Liver, object, or"):
        class_prompts("screw", TABLE, "Liver")
    found = class_prompts("CT slice of the spleen", TABLE, free_text=True)
    assert "a photo of a damaged CT slice of the spleen." in found.abnormal
    with pytest.raises(SettingError, match="data set 'Livers': unknown"):
        class_prompts("Liver", TABLE, "Livers")


def test_domains_follow_the_class() -> None:
    assert domain_of("screw", TABLE) == "Industrial"
    assert domain_of("liver", TABLE) == "Medical"
    assert domain_of("anything", TABLE) == "Medical"
    assert domain_of("anything", TABLE, "VisA") == "Industrial"
    assert "object" in known_classes(TABLE, "Brain")


@pytest.mark.parametrize(
    ("architecture", "weights", "asked", "found"),
    [
        ("ViT-L-14-336", "openai", "weights", "quick_gelu"),
        ("ViT-L-14-336", "openai", "gelu", "gelu"),
        ("ViT-L-14", "laion2b_s32b_b82k", "weights", "weights"),
        ("clip.json", "clip.safetensors", "weights", "weights"),
        ("ViT-L-14-336", None, "weights", "weights"),
        ({}, "clip.safetensors", "weights", "weights"),
    ],
)
def test_the_activation_is_known_before_the_weights_are(architecture, weights, asked, found) -> None:
    assert offline_activation(architecture, weights, asked) == found


def test_a_file_of_weights_may_be_of_either_activation() -> None:
    with pytest.raises(SettingError, match=r"^ViT-L-14: a file does not say which activation"):
        offline_activation("ViT-L-14", "mine.safetensors", "weights")


def test_prompts_come_from_the_file_first(tmp_path: Path) -> None:
    assert prompt_table() == TABLE
    assert prompt_table(None, str(tmp_path / "none.safetensors")) == TABLE
    with pytest.raises(SettingError, match=r"none\.json: no such file"):
        prompt_table(str(tmp_path / "none.json"))


def test_the_score_of_a_case_is_its_own() -> None:
    assert case_score(np.log(4), float("nan"), "Industrial") == pytest.approx(0.8)
    assert case_score(np.log(4), 0.4, "Medical") == pytest.approx(0.8)
    assert case_score(np.log(4), 0.4, "Industrial") == pytest.approx(0.6)


def grey(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((3, 5), np.uint8)).save(path)


def test_lists_of_inputs(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match=r"the folder holds nothing to localize in"):
        localization_items(str(tmp_path))
    grey(tmp_path / "b.png")
    grey(tmp_path / "a" / "b.PNG")
    grey(tmp_path / "masks" / "b.png")
    grey(tmp_path / "ground_truth" / "c.png")
    grey(tmp_path / "b_mask.png")
    grey(tmp_path / "out" / "b.png")
    found = localization_items(str(tmp_path), str(tmp_path / "out"))
    assert [item["kind"] for item in found] == ["picture", "picture"]
    assert len({item["case"] for item in found}) == 2
    assert all(item["case"].startswith("b-") for item in found)
    (one,) = localization_items(str(tmp_path / "b.png"))
    assert one["case"] == "b"
    for missing in ("none.png", "none.nii.gz", "none"):
        with pytest.raises(ScanError, match=f"^{missing}: there is no such file"):
            localization_items(str(tmp_path / missing))


def test_links_that_lead_out_are_named(tmp_path: Path) -> None:
    grey(tmp_path / "elsewhere" / "x.png")
    (tmp_path / "in").mkdir()
    grey(tmp_path / "in" / "y.png")
    (tmp_path / "in" / "x.png").symlink_to(tmp_path / "elsewhere" / "x.png")
    found = {item["case"]: item for item in localization_items(str(tmp_path / "in"))}
    assert found["x"]["problem"].startswith("x: a link leads out of the folder")
    assert "problem" not in found["y"]


def test_results_of_earlier_runs_are_no_inputs(tmp_path: Path) -> None:
    grey(tmp_path / "x.png")
    for name in ("x_overlay.png", "x_anomaly.tif"):
        grey(tmp_path / "old" / "x" / name)
    (tmp_path / "old" / "x" / "x_candidates.json").write_text("{}")
    for folder in (tmp_path, tmp_path.parent / tmp_path.name / "old" / ".."):
        assert [item["case"] for item in localization_items(str(folder), str(tmp_path))] == ["x"]
    # What is named itself is taken.
    (one,) = localization_items(str(tmp_path / "old" / "x" / "x_overlay.png"))
    assert one["case"] == "x_overlay"
    with pytest.raises(ScanError, match=r"^old: holds nothing but results of earlier runs"):
        localization_items(str(tmp_path / "old"))


def test_a_calibration_of_the_other_kind_is_told_before_the_case_is_read(tmp_path: Path) -> None:
    grey(tmp_path / "x.png")
    (tmp_path / "ct.nii.gz").write_bytes(b"never read")
    one = rate_threshold([0.25, 0.5], 0.5)
    calibration = Calibration("picture", one, one, (0.25, 0.5), (0.25, 0.5), {})
    found = {item["case"]: item for item in localization_items(str(tmp_path), None, calibration)}
    assert "problem" not in found["x"]
    assert found["ct"]["problem"].startswith("ct: this is a volume, but the calibration was made on pictures; make")


@pytest.mark.parametrize("architecture", ["ViT-B-32", "ViT-L-14-336"])
def test_a_misspelt_tag_lists_those_there_are(architecture: str) -> None:
    with pytest.raises(SettingError, match=f"^{architecture}: no weights are called 'opneai'; choose one of openai"):
        offline_activation(architecture, "opneai", "weights")


def test_weights_of_a_grid_that_is_no_square_fill_a_localizer(tmp_path: Path) -> None:
    """3 x 5 patches: 15 positions say neither how many are across nor that they fit another size."""
    config = {
        "embed_dim": 13,
        "vision_cfg": {"image_size": [24, 40], "layers": 4, "width": 24, "patch_size": 8, "head_width": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 12, "heads": 2, "layers": 3},
    }
    clip = load_clip(config, None)
    weights, adapters = tmp_path / "clip.safetensors", tmp_path / "adapters.safetensors"
    safetensors.torch.save_file({name: t.contiguous() for name, t in clip.model.state_dict().items()}, weights)
    save_adapters(AAClip(clip), adapters)
    bare = load_clip(config, None, image_size=(40, 56))
    localizer = AnomalyLocalizer(AAClip(bare), TABLE.of_name("liver"), blur=(3, 1.0))
    open_localizer(localizer, config, str(weights), str(adapters))
    expected = load_clip(config, str(weights), image_size=(40, 56))
    assert torch.equal(bare.visual.positional_embedding, expected.visual.positional_embedding)
    with pytest.raises(SettingError, match=r"^own configuration: no weights are called 'openai'; give a file"):
        open_localizer(localizer, config, "openai", str(adapters))


def test_adapters_whose_image_side_was_never_trained_are_refused(tmp_path: Path) -> None:
    config = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 16, "layers": 4, "width": 8, "patch_size": 8, "head_width": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 3},
    }
    model = AAClip(load_clip(config, None))
    localizer = AnomalyLocalizer(model, TABLE.of_name("liver"), blur=(1, 1.0))
    path = tmp_path / "adapters.safetensors"
    save_adapters(model, path, stage=1)
    with pytest.raises(WeightsError, match=r"^adapters.safetensors: only stage 1 was trained"):
        open_localizer(localizer, config, None, str(path))
    for stage in (2, None):  # files of before do not say
        save_adapters(model, path, stage=stage)
        assert read_adapters(path)[1].stage == stage
        open_localizer(localizer, config, None, str(path))


def test_an_overlong_sentence_is_told_once(tmp_path: Path) -> None:
    words = "very " * 90 + "long"
    config = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 16, "layers": 4, "width": 8, "patch_size": 8, "head_width": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 3},
    }
    clip = load_clip(config, None)
    save_adapters(AAClip(clip), tmp_path / "adapters.safetensors")
    localizer = AnomalyLocalizer(AAClip(clip), TABLE.of_name(words), blur=(1, 1.0))
    with pytest.raises(SettingError, match=r"^prompt '.*': \d+ tokens, the CLIP reads 77"):
        open_localizer(localizer, config, None, str(tmp_path / "adapters.safetensors"))
    with pytest.raises(SettingError, match="the CLIP reads 77"):
        prompts_by_class([{"class_name": words}], TABLE, free_text=True, network=localizer)


def jsonl(folder: Path) -> Path:
    lines = [
        '{"image_path": "s7_01.png", "label": 0, "class_name": "Brain"}',
        '{"image_path": "s8_02.png", "label": 1, "class_name": "Brain", "mask_path": "m.png"}',
        '{"image_path": "ct.nii.gz", "label": 0.0, "class_name": "Arm"}',
    ]
    (folder / "list.jsonl").write_text("\n".join(lines))
    return folder / "list.jsonl"


def test_labelled_sets_by_class_and_patient(tmp_path: Path) -> None:
    items = evaluation_items(str(jsonl(tmp_path)), classes=["Brain"], group_pattern="^(s[0-9]+)_")
    assert [(item["unit"], item["abnormal"], "mask" in item) for item in items] == [("s7", 0, False), ("s8", 1, True)]
    items = evaluation_items(str(jsonl(tmp_path)))
    assert (items[0]["class_name"], items[0]["kind"]) == ("Arm", "scan")
    assert [item["index"] for item in items] == [0, 1, 2]
    with pytest.raises(SettingError, match=r"Arm/ct.nii: group_pattern '\^\(s\[0-9\]\+\)_' finds no patient"):
        evaluation_items(str(jsonl(tmp_path)), group_pattern="^(s[0-9]+)_")
    for bad in ("s[0-9]+", "(", ""):
        with pytest.raises(SettingError, match="no regular expression with a group"):
            evaluation_items(str(jsonl(tmp_path)), group_pattern=bad)


def test_normal_cases_of_a_list_or_a_folder(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="pictures and volumes together"):
        normal_items(str(jsonl(tmp_path)))
    lines = [line for line in jsonl(tmp_path).read_text().splitlines() if "png" in line]
    (tmp_path / "list.jsonl").write_text("\n".join(lines))
    items = normal_items(str(tmp_path / "list.jsonl"))
    assert [item["kind"] for item in items] == ["picture"]
    assert not any("mask" in item or "class_name" in item for item in items)
    with pytest.raises(SettingError, match=r"1 normal cases cannot tell a rate of 0\.1; give 9 or more"):
        normal_items(str(tmp_path / "list.jsonl"), rate=0.1)
    assert normal_items(str(tmp_path / "list.jsonl"), rate=0.5) == items
    (tmp_path / "list.jsonl").write_text('{"image_path": "a.png", "label": 1, "class_name": "Brain"}')
    with pytest.raises(SettingError, match=r"list\.jsonl: lists no normal case"):
        normal_items(str(tmp_path / "list.jsonl"))
    grey(tmp_path / "n.png")
    assert [item["case"] for item in normal_items(str(tmp_path / "n.png"))] == ["n"]
    with pytest.raises(InputError, match="none"):
        normal_items(str(tmp_path / "none.jsonl"))
