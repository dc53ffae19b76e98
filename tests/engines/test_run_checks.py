"""Settings of a run, refused by name before any part is built."""

from pathlib import Path
from typing import Any

import pytest
import torch

from monai_ext.base import SettingError
from monai_ext.engines import EvaluationStep, TrainingStep, check_counts, check_device, check_paths, labelled_items


def test_paths_are_text_or_paths() -> None:
    check_paths(dataset_dir="2024_01", output_dir=Path("out"))
    with pytest.raises(SettingError, match=r"^dataset_dir: 202401 is no path; .* write \./ before it$"):
        check_paths(output_dir="out", dataset_dir=202401)
    with pytest.raises(SettingError, match=r"^weights: None is no path"):
        check_paths(weights=None)


@pytest.mark.parametrize("wrong", [0, -3, 1.5, "2", True, None])
def test_counts_are_whole_numbers(wrong: Any) -> None:
    check_counts(1, epochs=1, batch_size=7)
    check_counts(0, num_workers=0)
    with pytest.raises(SettingError, match=r"^batch_size: .*; give a whole number of at least 1$"):
        check_counts(1, epochs=3, batch_size=wrong)


def test_devices_are_those_of_this_computer() -> None:
    check_device("cpu")
    check_device(torch.device("cpu"))
    for wrong in ("nope", "cuda:77", None, 3.5):
        with pytest.raises(SettingError, match=r"^device: .* cannot be used on this computer; choose among cpu"):
            check_device(wrong)


@pytest.mark.parametrize("step", [TrainingStep, EvaluationStep])
def test_a_step_refuses_an_unknown_precision_before_any_scan(step: Any) -> None:
    with pytest.raises(SettingError, match=r"^precision: 'half' is unknown; choose one of auto"):
        step(precision="half")


@pytest.mark.parametrize("wrong", [{"accumulate": "2"}, {"clip_norm": "x"}, {"clip_norm": float("nan")}])
def test_text_is_no_number_of_a_step(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="both must be positive"):
        TrainingStep(**wrong)


def test_no_section_is_a_sentence() -> None:
    with pytest.raises(SettingError, match=r"^section: none is named; name one"):
        labelled_items("dataset.json", None, [])
