"""``python -m monai_ext localize`` as a user meets it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from monai_ext.networks import AAClip, load_clip, save_adapters

TINY = {
    "embed_dim": 13,
    "vision_cfg": {"image_size": 40, "layers": 4, "width": 24, "patch_size": 8, "head_width": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 12, "heads": 2, "layers": 3},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options that choose a CLIP of random weights."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(3)
    clip = load_clip(TINY, None)
    (folder / "clip.json").write_text(json.dumps(TINY))
    weights = {name: value.contiguous() for name, value in clip.model.state_dict().items()}
    safetensors.torch.save_file(weights, folder / "clip.safetensors")
    save_adapters(AAClip(clip), folder / "adapters.safetensors")
    options = ["--architecture", str(folder / "clip.json"), "--clip-weights", str(folder / "clip.safetensors")]
    options += ["--adapters", str(folder / "adapters.safetensors")]
    return [*options, "--image-size", "40"]


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", "monai_ext", "localize", *words]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300, cwd=cwd)


def test_a_picture_and_where_its_results_are(model: list[str], tmp_path: Path) -> None:
    Image.fromarray(np.arange(47 * 53, dtype=np.uint8).reshape(47, 53)).save(tmp_path / "photo.png")
    found = run("photo.png", "--class", "liver", *model, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert "results: localizations/photo" in found.stdout
    assert "uncalibrated" in found.stdout
    assert (tmp_path / "localizations" / "photo" / "photo_candidates.json").is_file()


def test_an_unknown_class_lists_the_known_ones(
    model: list[str],
    verb: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    Image.fromarray(np.zeros((47, 53), np.uint8)).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    assert verb("localize", "photo.png", "--class", "spleen", *model) == 2
    told = capfd.readouterr().err
    assert told.count("\n") <= 2
    assert "class 'spleen': unknown; choose one of" in told
    assert "--free-text" in told
    assert not (tmp_path / "localizations").exists()


@pytest.mark.full  # the sentences have quick tests of their own
def test_missing_adapters_are_one_sentence(model: list[str], tmp_path: Path) -> None:
    Image.fromarray(np.zeros((47, 53), np.uint8)).save(tmp_path / "photo.png")
    found = run("photo.png", "--class", "liver", *model, "--adapters", "none.safetensors", cwd=tmp_path)
    assert found.returncode == 2
    assert "error: none.safetensors: " in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.full  # the sentences have quick tests of their own
def test_dicom_output_of_a_picture_is_one_sentence(model: list[str], tmp_path: Path) -> None:
    Image.fromarray(np.zeros((47, 53), np.uint8)).save(tmp_path / "photo.png")
    found = run("photo.png", "--class", "liver", *model, "--dicom-seg", cwd=tmp_path)
    assert found.returncode == 2
    assert "error: dicom_seg: photo: no DICOM series, which DICOM output belongs to" in found.stderr
    assert not (tmp_path / "localizations").exists()
