"""Evaluation of labelled sets: the figures are those of naive code, and what is undefined is said to be."""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai.bundle import ConfigWorkflow
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

BUNDLE = "aa_clip_lesion_localization"
Run = Callable[..., ConfigWorkflow]
SIDE = 16


def write_set(folder: Path, classes: dict[str, tuple[int, int]]) -> dict[str, list[tuple[np.ndarray, np.ndarray, int]]]:
    """Write pictures of noise, the abnormal ones with a brighter corner, and return what a mirror sees of them."""
    generator = np.random.default_rng(11)
    lines, seen = [], {}
    for name, (normal, abnormal) in classes.items():
        (folder / name).mkdir(parents=True)
        for number in range(normal + abnormal):
            label = int(number >= normal)
            grey = generator.integers(0, 180, (SIDE, SIDE)).astype(np.uint8)
            mask = np.zeros((SIDE, SIDE), np.uint8)
            record = {"image_path": f"{name}/p{number // 2}_{number}.png", "label": float(label), "class_name": name}
            if label:
                mask[2 : 5 + number % 3, 9:13] = 255
                grey[mask > 0] += 70
                record["mask_path"] = f"{name}/p{number}_mask.png"
                Image.fromarray(mask).save(folder / record["mask_path"])
            Image.fromarray(grey).save(folder / record["image_path"])
            lines.append(json.dumps(record))
            seen.setdefault(name, []).append((grey / 255.0, mask > 0, label))
    (folder / "full-shot.jsonl").write_text("\n".join(lines))
    return seen


@pytest.fixture
def settings(mirror: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    picture = {**mirror["picture"], "size": SIDE}
    paths = {"dataset_dir": str(tmp_path / "set"), "output_dir": str(tmp_path / "out")}
    own = {"preprocessing": {"_target_": "monai_ext.transforms.LoadInput", "mask_size": [SIDE, SIDE]}}
    return {**mirror, **paths, **own, "picture": picture, "replicates": 50}


@pytest.mark.parametrize("protocol", ["per_image", "published"])
def test_figures_are_those_of_naive_code(
    run_flow: Run, settings: dict[str, Any], tmp_path: Path, protocol: str
) -> None:
    seen = write_set(tmp_path / "set", {"Liver": (4, 5)})
    overrides = {**settings, "dataset_name": "Liver", "protocol": protocol, "group_pattern": "^p([0-9]+)_"}
    run_flow(BUNDLE, ["inference", "evaluate"], False, overrides)
    told = json.loads((tmp_path / "out" / "scores_provenance.json").read_text())
    assert (told["state"], told["cases_done"], told["config"]) == ("completed", 9, "inference+evaluate")
    assert told["changed_settings"]["dataset_name"] == "Liver"
    found = json.loads((tmp_path / "out" / "scores.json").read_text())
    (one, mean) = found["results"]
    maps, masks, labels = (np.array(part) for part in zip(*seen["Liver"], strict=True))
    expected = {
        "pixel_auroc": roc_auc_score(masks.ravel(), maps.ravel()),
        "pixel_average_precision": average_precision_score(masks.ravel(), maps.ravel()),
        "image_auroc": roc_auc_score(labels, maps.max(axis=(1, 2))),
        "image_average_precision": average_precision_score(labels, maps.max(axis=(1, 2))),
    }
    for name, value in expected.items():
        figure = one["measures"][name]
        assert figure["value"] == pytest.approx(value, abs=1e-6)
        assert figure["low"] <= figure["value"] <= figure["high"]
        assert mean["measures"][name]["value"] == figure["value"]
    assert one["measures"]["pixel_auroc"]["published"] == 0.9792
    assert one["measures"]["image_auroc"]["published"] == 0.6878
    assert one["measures"]["pixel_aupro"]["published"] is None
    assert found["protocol"] == protocol
    text = (tmp_path / "out" / "scores.md").read_text()
    assert "*97.92*" in text
    assert f"protocol: {protocol}" in text
    (row, _) = csv.DictReader((tmp_path / "out" / "scores.csv").read_text().splitlines())
    assert float(row["pixel_auroc"]) == pytest.approx(expected["pixel_auroc"], abs=1e-5)
    assert len(list((tmp_path / "out" / "overlays").glob("Liver_*.png"))) == 3
    cases = list(csv.DictReader((tmp_path / "out" / "cases.csv").read_text().splitlines()))
    assert [case["unit"] for case in cases] == ["0", "0", "1", "1", "2", "2", "3", "3", "4"]


def test_all_normal_and_all_abnormal_classes_are_undefined(
    run_flow: Run, settings: dict[str, Any], tmp_path: Path
) -> None:
    write_set(tmp_path / "set", {"candle": (3, 0), "capsules": (0, 3), "cashew": (2, 2)})
    run_flow(BUNDLE, ["inference", "evaluate"], False, {**settings, "overlay": False})
    rows = {row["class"]: row for row in csv.DictReader((tmp_path / "out" / "scores.csv").read_text().splitlines())}
    for name in ("pixel_auroc", "pixel_average_precision", "pixel_aupro", "pixel_f1_max", "image_auroc"):
        assert math.isnan(float(rows["candle"][name])), name
    assert "pixel_average_precision: no abnormal pixel" in rows["candle"]["notes"]
    assert math.isnan(float(rows["capsules"]["image_auroc"]))
    assert not math.isnan(float(rows["capsules"]["pixel_auroc"]))
    assert "image_auroc: normal and abnormal images are needed" in rows["capsules"]["notes"]
    assert float(rows["mean"]["image_auroc"]) == float(rows["cashew"]["image_auroc"])
    assert "mean of the 1 of 3 classes that have it" in rows["mean"]["notes"]
    assert "undefined" in (tmp_path / "out" / "scores.md").read_text()
    assert "NaN" not in (tmp_path / "out" / "scores.json").read_text()


def test_each_class_has_its_own_sentences(run_flow: Run, tiny: dict[str, Any], tmp_path: Path) -> None:
    write_set(tmp_path / "set", {"candle": (1, 2), "cashew": (2, 1)})
    (tmp_path / "set" / "candle" / "p0_0.png").write_bytes(b"no picture")
    settings = {**tiny, "dataset_dir": str(tmp_path / "set"), "replicates": 0, "dataset_name": "VisA"}
    with pytest.raises(RuntimeError) as caught:
        run_flow(BUNDLE, ["inference", "evaluate"], False, {**settings, "output_dir": str(tmp_path / "out")})
    assert "1 of 6 scans failed: candle/p0_0: the picture" in repr(caught.value.__cause__)
    cases = list(csv.DictReader((tmp_path / "out" / "cases.csv").read_text().splitlines()))
    assert len(cases) == 5
    # The same picture as another class gets another score: the anchors are the class's own.
    lines = (tmp_path / "set" / "full-shot.jsonl").read_text().replace('"candle"', '"cashew"').splitlines()
    (tmp_path / "set" / "other.jsonl").write_text("\n".join(lines[1:]))
    again = {**settings, "data_list_file_path": str(tmp_path / "set" / "other.jsonl")}
    run_flow(BUNDLE, ["inference", "evaluate"], False, {**again, "output_dir": str(tmp_path / "again")})
    other = list(csv.DictReader((tmp_path / "again" / "cases.csv").read_text().splitlines()))
    by_case = {case["case"].rpartition("/")[2] + case["class"]: case["score"] for case in cases}
    first = next(case for case in other if case["case"].startswith("cashew/p0_1 "))  # of several
    assert first["score"] != by_case["p0_1candle"]


def test_bad_images_of_one_name_are_all_told(run_flow: Run, settings: dict[str, Any], tmp_path: Path) -> None:
    """Published sets number the normal and the abnormal alike; a normal image with a lesion in its mask is neither."""
    write_set(tmp_path / "set", {"candle": (1, 2)})
    (tmp_path / "set" / "bad").mkdir()
    rows = [json.loads(line) for line in (tmp_path / "set" / "full-shot.jsonl").read_text().splitlines()]
    mask = rows[2]["mask_path"]
    for folder in ("", "bad/"):
        (tmp_path / "set" / f"{folder}000.png").write_bytes(b"no picture")
        rows.append({"image_path": f"{folder}000.png", "label": 0, "class_name": "candle"})
    rows[0]["mask_path"] = mask
    (tmp_path / "set" / "full-shot.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(RuntimeError) as caught:
        run_flow(BUNDLE, ["inference", "evaluate"], False, {**settings, "overlay": False, "dataset_name": "VisA"})
    told = str(caught.value.__cause__)
    assert told.startswith("3 of 5 scans failed: candle/p0_0: labelled normal, but ")
    assert "candle/000 (line 4): the picture 000.png is truncated" in told
    assert "candle/000 (line 5): the picture 000.png is truncated" in told
    assert len((tmp_path / "out" / "cases.csv").read_text().splitlines()) == 1 + 2
