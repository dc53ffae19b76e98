"""Settings that would fail after hours, or be silently wrong, are refused before a run begins."""

import math
from pathlib import Path
from typing import Any

import pytest

from monai_ext.base import SettingError, WriteError
from monai_ext.engines import check_settings


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("epochs", 0, "a whole number from 1 on"),
        ("batch_size", 2.5, "a whole number from 1 on"),
        ("batch_size", True, "a whole number from 1 on"),
        ("num_workers", -1, "a whole number from 0 on"),
        ("learning_rate", math.nan, "a number above 0"),
        ("learning_rate", 0, "a number above 0"),
        ("text_learning_rate", "fast", "a number above 0"),
        ("orthogonality", math.inf, "a number from 0 on"),
        ("rotate_prob", 3, "a number from 0 to 1"),
        ("rotate_degrees", "x", "a number from 0 to 180"),
        ("false_positive_rate", 1, "a number between 0 and 1"),
        ("clip_norm", -1, "a number above 0, or null"),
        ("betas", [0.5, 1], "two numbers from 0 to below 1"),
        ("betas", 0.5, "two numbers from 0 to below 1"),
        ("levels", "x", "a list of whole numbers such as [6, 12, 18, 24], or null"),
        ("classes", "candle", "a list of names such as ['liver'], or null"),
        ("views", 3, "a list such as ['axial', 'coronal']"),
        ("image_size", "big", "pixels, or [height, width], or null"),
        ("image_size", [518, 0.5], "pixels, or [height, width], or null"),
        ("threshold", math.nan, "a number of log-odds"),
        ("choose_by", "auc", "one of val_pixel_ap, val_pixel_auroc, val_image_auroc, val_loss"),
    ],
)
def test_a_wrong_value_is_named_with_what_to_give(name: str, value: Any, wanted: str) -> None:
    with pytest.raises(SettingError) as caught:
        check_settings(**{name: value})
    assert str(caught.value) == f"{name}: {value!r}; give {wanted}"


def test_right_values_pass(tmp_path: Path) -> None:
    check_settings(
        output_dir=tmp_path / "new" / "run", device="cpu", precision="auto", epochs=3, clip_norm=None, levels=[1, 2],
        betas=(0.5, 0.999), image_size=[56, 40], views="axial", classes=["liver"], threshold=-1, choose_by="val_loss",
    )  # fmt: skip


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(SettingError, match=r"^device: 'qpu' cannot be used on this computer; choose among cpu"):
        check_settings(device="qpu")
    with pytest.raises(SettingError, match=r"^precision: fp16 needs a CUDA card"):
        check_settings(device="cpu", precision="fp16")


def test_an_output_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"^run: file is no folder"):
        check_settings(output_dir=tmp_path / "file" / "run")
