"""Source sets, pictures that are left out, and batches with the prompts of their classes."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from monai_ext.base import SettingError
from monai_ext.engines import PromptedBatch, source_pictures, split_items, usable_pictures
from monai_ext.networks import PromptTable

TABLE = PromptTable.from_dict(
    {
        "states": {"normal": ["{}"], "abnormal": ["broken {}"]},
        "templates": ["a photo of a {}."],
        "datasets": {
            "one": {"domain": "Industrial", "classes": {"candle": "white candle", "nut": "nut"}},
            "two": {"domain": "Medical", "classes": {"candle": "wax candle", "Liver": "liver"}},
        },
    }
)


def picture_set(folder: Path, classes: tuple[str, ...], count: int = 3) -> Path:
    rows = []
    for name in classes:
        for label in (0, 1):
            for n in range(count):
                image = np.full((7, 11, 3), 40 * n, np.uint8)
                row: dict[str, Any] = {"image_path": f"{name}_{label}_{n}.png", "label": label, "class_name": name}
                folder.mkdir(exist_ok=True)
                Image.fromarray(image).save(folder / row["image_path"])
                if label:
                    row["mask_path"] = f"{name}_{n}_mask.png"
                    Image.fromarray(np.eye(7, 11, dtype=np.uint8)).save(folder / row["mask_path"])
                rows.append(row)
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "list.jsonl"


@pytest.fixture
def sources(tmp_path: Path) -> list[dict[str, Any]]:
    return [
        {"list": str(picture_set(tmp_path / "one", ("candle", "nut"))), "dataset": "one"},
        {"list": str(picture_set(tmp_path / "two", ("candle", "Liver"))), "dataset": "two"},
    ]


def test_several_sets_at_once_keep_their_names_apart(sources: list[dict[str, Any]]) -> None:
    entries = source_pictures(sources, TABLE)
    assert len(entries) == 2 * 2 * 2 * 3
    items = split_items(entries, 0, 0)["training"]
    batch = {
        "image": torch.zeros(2, 3, 5, 5),
        "mask": torch.zeros(2, 1, 5, 5, dtype=torch.uint8),
        "label": torch.tensor([0, 1]),
        "class_name": ["candle", "candle"],
        "dataset": ["one", "two"],
    }
    inputs, label = PromptedBatch(TABLE)(batch, torch.device("cpu"))
    assert [one.abnormal for one in inputs["prompts"]] == [
        ("a photo of a broken white candle.",),
        ("a photo of a broken wax candle.",),
    ]
    assert label["mask"].dtype == torch.float32
    assert label["class_name"] == ["one/candle", "two/candle"]
    assert {item["dataset"] for item in items} == {"one", "two"}


def test_classes_are_chosen_over_all_sets_and_within_one(sources: list[dict[str, Any]]) -> None:
    assert len(source_pictures(sources, TABLE, ["candle"])) == 12
    within = [{**sources[0], "classes": ["nut"]}, sources[1]]
    assert {entry.class_name for entry in source_pictures(within, TABLE)} == {"nut", "candle", "Liver"}
    with pytest.raises(SettingError, match="no source set has 'pcb'; choose among Liver, candle, nut"):
        source_pictures(sources, TABLE, ["candle", "pcb"])


@pytest.mark.parametrize("wrong", [[], {"list": "a"}, ["a.jsonl"], [{"root": "a"}], [{"list": "a", "rot": "b"}]])
def test_a_wrong_source_is_one_sentence(wrong: Any) -> None:
    with pytest.raises(SettingError, match=r"^sources: "):
        source_pictures(wrong, TABLE)


def test_a_class_that_the_prompts_do_not_know(tmp_path: Path) -> None:
    path = picture_set(tmp_path / "x", ("pebble",))
    with pytest.raises(SettingError, match="class 'pebble': unknown in one; choose one of candle, nut"):
        source_pictures([{"list": str(path), "dataset": "one"}], TABLE)


def test_what_cannot_be_used_is_named_and_the_rest_goes_on(
    sources: list[dict[str, Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "one"
    whole = (folder / "candle_0_0.png").read_bytes()
    (folder / "candle_0_0.png").write_bytes(whole[:40])
    (folder / "nut_1_1.png").unlink()
    Image.fromarray(np.eye(5, 11, dtype=np.uint8)).save(folder / "nut_2_mask.png")
    Image.fromarray(np.eye(7, 11, dtype=np.uint8) * 255).save(folder / "candle_0_mask.png", format="JPEG")
    lines = (folder / "list.jsonl").read_text().splitlines()
    lines = [line.replace('"mask_path"', '"no_mask"') if "candle_1_2" in line else line for line in lines]
    (folder / "list.jsonl").write_text("\n".join(lines))
    with caplog.at_level(logging.ERROR):
        kept = usable_pictures(source_pictures(sources, TABLE), workers=2)
    assert len(kept) == 24 - 5
    messages = [record.getMessage() for record in caplog.records]
    for place, sentence in enumerate(
        [
            "candle/candle_0_0: the picture candle_0_0.png is truncated",
            "candle/candle_1_0: the mask is a JPEG",
            "candle/candle_1_2: labelled abnormal without a mask",
            "nut/nut_1_1: there is no picture nut_1_1.png",
            "nut/nut_1_2: the mask has 11x5 pixels and the picture 11x7",
        ]
    ):
        assert messages[place].startswith(f"left out: {sentence}")
    assert "5 of 24 pictures cannot be used" in capsys.readouterr().out
    assert len(usable_pictures(source_pictures(sources, TABLE), check=False)) == 24


def test_no_usable_picture_ends_the_run(tmp_path: Path) -> None:
    path = picture_set(tmp_path / "one", ("nut",), count=1)
    for image in (tmp_path / "one").glob("*.png"):
        image.write_bytes(b"")
    with pytest.raises(SettingError, match="none of 2 pictures can be used; the first: nut/nut_0_0: the picture"):
        usable_pictures(source_pictures([{"list": str(path), "dataset": "one"}], TABLE))


def test_the_split_is_by_picture_and_complete(sources: list[dict[str, Any]]) -> None:
    entries = source_pictures(sources, TABLE)
    parts = split_items(entries, 0.25, seed=2)
    names = [{item["image"] for item in parts[part]} for part in ("training", "validation")]
    assert not names[0] & names[1]
    assert len(names[0] | names[1]) == 24
    assert len(names[1]) == 6
