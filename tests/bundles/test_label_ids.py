"""A few organs of a label map with numbers of its own: fine-tuned, scored and segmented under consecutive ids."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigWorkflow

import monai_ext
from monai_ext.engines import class_names, ids_by_class

BUNDLE = "hi_end_mae_ct_segmentation"
# Phantoms number the organs 1 to 8; here they serve as a label map of which others want two.
ORGANS = {
    "labels": {"0": "background", "1": "kidneys", "2": "spine"},
    "label_ids": {"spine": 6, "kidneys": [3, 4]},
}


def test_the_readmes_example_is_one() -> None:
    text = (Path(monai_ext.bundle_path(BUNDLE)) / "docs" / "README.md").read_text(encoding="utf-8")
    example = json.loads(text.partition("```json\n")[2].partition("```")[0])
    assert ids_by_class(class_names(example["labels"]), example["label_ids"]) == {1: [5], 2: [2, 3], 3: [52]}


def test_chosen_organs_of_a_label_map(
    run_flow: Callable[..., ConfigWorkflow],
    finetune_settings: dict[str, Any],
    segment_settings: dict[str, Any],
    tmp_path: Path,
) -> None:
    flow = run_flow(BUNDLE, ["train", "tiny"], True, {**finetune_settings, **ORGANS})
    batch = next(iter(flow.parser.get_parsed_content("train#dataloader")))
    assert set(batch["label"].unique().tolist()) <= {0, 1, 2}
    best = Path(finetune_settings["output_dir"]) / "models" / "model.pt"
    data = Path(finetune_settings["dataset_dir"])
    common = {**segment_settings, **ORGANS, "weights": str(best)}
    out = tmp_path / "scores"
    flow = run_flow(
        BUNDLE, ["inference", "evaluate", "tiny"], False, {**common, "dataset_dir": str(data), "output_dir": str(out)}
    )
    scan = data / "images" / "phantom_test_00.nii.gz"
    run_flow(BUNDLE, ["inference", "tiny"], False, {**common, "dataset_dir": str(scan), "output_dir": str(tmp_path)})
    folder = tmp_path / "phantom_test_00"
    names = {
        entry["id"]: entry["name"] for entry in json.loads((folder / "phantom_test_00_seg.json").read_text())["labels"]
    }
    assert names == {1: "kidneys", 2: "spine"}
    predicted = np.asarray(nib.load(folder / "phantom_test_00_seg.nii.gz").dataobj)
    reference = np.asarray(nib.load(data / "labels" / "phantom_test_00.nii.gz").dataobj)
    rows = [row for row in csv.DictReader((out / "scores.csv").read_text().splitlines()) if row["case"] != "mean"]
    assert {row["class"] for row in rows} == {"kidneys", "spine"}
    for row in rows:
        if row["case"] == "phantom_test_00":
            one, two = predicted == int(row["class_id"]), np.isin(reference, {"1": [3, 4], "2": [6]}[row["class_id"]])
            assert float(row["dice"]) == pytest.approx(2 * (one & two).sum() / (one.sum() + two.sum()), abs=1e-5)
            assert two.any()
