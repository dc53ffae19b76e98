"""Calibration on normal cases: the threshold that is applied is the one that was chosen."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai.bundle import ConfigWorkflow
from PIL import Image

from monai_ext.base import InputError

BUNDLE = "aa_clip_lesion_localization"
Run = Callable[..., ConfigWorkflow]
Write = Callable[..., None]


def sentence(caught: pytest.ExceptionInfo[BaseException]) -> str:
    cause: BaseException | None = caught.value
    while cause is not None and not isinstance(cause, InputError):
        cause = cause.__cause__
    assert cause is not None
    return str(cause)


def test_calibrate_then_apply(run_flow: Run, mirror: dict[str, Any], write_scan: Write, tmp_path: Path) -> None:
    normal, test = tmp_path / "normal", tmp_path / "test"
    normal.mkdir()
    test.mkdir()
    # The brightest patch of 3 x 3 pixels of each picture is known: 50, 53, ..., 107 of 255.
    for number in range(20):
        grey = np.full((64, 64), 20, np.uint8)
        grey[5:8, 40:43] = 50 + 3 * number
        grey[50, 50] = 255  # one pixel, smaller than any candidate
        Image.fromarray(grey).save(normal / f"n{number:02d}.png")
    for name, value in (("below", 107), ("above", 120)):
        grey = np.full((64, 64), 20, np.uint8)
        grey[20:24, 30:33] = value
        Image.fromarray(grey).save(test / f"{name}.png")
    common = {**mirror, "min_area_px": 9, "overlay": False}
    run_flow(
        BUNDLE,
        ["inference", "calibrate"],
        False,
        {**common, "dataset_dir": str(normal), "output_dir": str(tmp_path / "cal"), "false_positive_rate": 0.1},
    )
    path = tmp_path / "cal" / "calibration.json"
    found = json.loads(path.read_text())
    np.testing.assert_allclose(found["levels"], (50 + 3 * np.arange(20)) / 255, atol=1e-6)
    # 21 * 0.9 = 18.9, so the 19th of 20: one normal picture exceeds it.
    assert found["level"]["threshold"] == pytest.approx(104 / 255, abs=1e-6)
    assert found["level"]["exceeding"] == 1
    told = json.loads((tmp_path / "cal" / "calibration_provenance.json").read_text())
    assert (told["state"], told["cases_done"], told["changed_settings"]["false_positive_rate"]) == (
        "completed",
        20,
        0.1,
    )
    overrides = {**common, "dataset_dir": str(test), "calibration_file": str(path), "output_dir": str(tmp_path / "out")}
    run_flow(BUNDLE, ["inference"], False, overrides)
    rates = {}
    for name in ("below", "above"):
        content = json.loads((tmp_path / "out" / name / f"{name}_candidates.json").read_text())
        assert content["calibrated"] is True
        assert "20 normal pictures: 5 % of them" in content["calibration"]
        rates[name] = content["candidates"][0]["false_positive_rate"]
    assert rates == {"below": pytest.approx(2 / 21), "above": pytest.approx(1 / 21)}
    # Nothing calls itself uncalibrated now; other settings, or a volume, are refused.
    assert "uncalibrated" not in (tmp_path / "out" / "cases.csv").read_text()
    with pytest.raises(RuntimeError) as caught:
        run_flow(BUNDLE, ["inference"], False, {**overrides, "min_area_px": 4})
    assert sentence(caught).startswith("calibration.json: calibrated with min_area_px 9, this run has 4; ")
    with pytest.raises(RuntimeError) as caught:
        run_flow(BUNDLE, ["inference"], False, {**overrides, "blur": [3, 0.6]})
    assert sentence(caught).startswith("calibration.json: calibrated with blur None, this run has [3.0, 0.6]; ")
    with pytest.raises(RuntimeError) as caught:
        run_flow(BUNDLE, ["inference"], False, {**overrides, "image_size": 70})
    assert sentence(caught).startswith(
        "calibration.json: calibrated with image_size [518, 518], this run has [70, 70]; "
    )
    write_scan(tmp_path / "ct.nii.gz", np.diag([2.0, 2, 4, 1]), (23, 19, 7), np.array([20.0, 18, 12]), 6)
    with pytest.raises(RuntimeError) as caught:
        run_flow(BUNDLE, ["inference"], False, {**overrides, "dataset_dir": str(tmp_path / "ct.nii.gz")})
    assert "this is a volume, but the calibration was made on pictures" in sentence(caught)


def test_too_few_normal_cases(run_flow: Run, mirror: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "normal"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(np.full((31, 37), 20 + number, np.uint8)).save(folder / f"{number}.png")
    with pytest.raises(RuntimeError) as caught:
        run_flow(
            BUNDLE,
            ["inference", "calibrate"],
            False,
            {**mirror, "dataset_dir": str(folder), "output_dir": str(tmp_path / "cal")},
        )
    assert sentence(caught).startswith("calibration: 3 normal cases cannot tell a rate of 0.05; give 19 or more")
    assert not (tmp_path / "cal").exists()
