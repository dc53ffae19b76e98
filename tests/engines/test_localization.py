"""Classes by name, lists of inputs, and weights that do not belong together."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_ext.base import InputError, ScanError, SettingError
from monai_ext.engines import (
    class_prompts,
    domain_of,
    evaluation_items,
    known_classes,
    localization_items,
    normal_items,
    offline_activation,
    prompt_table,
)
from monai_ext.engines.localization import case_score
from monai_ext.networks import PromptTable

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
    items = normal_items(str(jsonl(tmp_path)))
    assert [item["kind"] for item in items] == ["picture", "scan"]
    assert not any("mask" in item or "class_name" in item for item in items)
    (tmp_path / "list.jsonl").write_text('{"image_path": "a.png", "label": 1, "class_name": "Brain"}')
    with pytest.raises(SettingError, match=r"list\.jsonl: lists no normal case"):
        normal_items(str(tmp_path / "list.jsonl"))
    grey(tmp_path / "n.png")
    assert [item["case"] for item in normal_items(str(tmp_path / "n.png"))] == ["n"]
    with pytest.raises(InputError, match="none"):
        normal_items(str(tmp_path / "none.jsonl"))
