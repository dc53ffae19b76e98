"""The folder of an app, and the server's command and environment."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from monai_ext.base import ManifestError, SettingError, WeightsError, WriteError
from monai_ext.label.app_folder import localization_part, read_app, segmentation_part, write_app
from monai_ext.label.serve import is_loopback, server_command, server_environment


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "mine.pt"
    path.write_bytes(b"weights")
    return path


def test_weights_are_copied_into_the_folder(weights: Path, tmp_path: Path) -> None:
    app = write_app(tmp_path / "app", segmentation_part(weights, tiny=True), None)
    found = read_app(app)
    assert found.localization is None
    assert found.segmentation is not None
    assert found.segmentation["configs"] == ["inference", "tiny"]
    assert found.segmentation["files"] == {"weights": "model/segmentation.pt"}
    assert (app / "model" / "segmentation.pt").read_bytes() == b"weights"
    assert len([line for line in (app / "main.py").read_text(encoding="utf-8").splitlines() if line]) == 2


def test_an_app_can_begin_without_weights(tmp_path: Path) -> None:
    app = write_app(tmp_path / "app", segmentation_part(None), None)
    assert not (app / "model").exists()


def test_an_app_is_written_anew_but_nothing_else_is_overwritten(weights: Path, tmp_path: Path) -> None:
    app = write_app(tmp_path / "app", segmentation_part(weights), None)
    weights.write_bytes(b"others")
    write_app(app, segmentation_part(weights), None)
    assert (app / "model" / "segmentation.pt").read_bytes() == b"others"
    with pytest.raises(WriteError, match=r"holds something else"):
        write_app(tmp_path, segmentation_part(weights), None)


def test_what_is_missing_is_said(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"nothing to serve; give --weights, --adapters or --demo"):
        write_app(tmp_path / "app", None, None)
    with pytest.raises(WeightsError, match=r"no\.pt: there is no such file"):
        write_app(tmp_path / "app", segmentation_part(tmp_path / "no.pt"), None)
    with pytest.raises(SettingError, match=r"--class liver"):
        localization_part(weights, [])
    with pytest.raises(SettingError, match=r"no app"):
        read_app(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"segmentation": 3, "localization": null}'])
def test_a_damaged_description_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "app.json").write_text(content, encoding="utf-8")
    with pytest.raises(SettingError, match=r"missing or damaged"):
        read_app(tmp_path)


def test_a_description_leads_nowhere_else(weights: Path, tmp_path: Path) -> None:
    app = write_app(tmp_path / "app", segmentation_part(weights), None)
    described = json.loads((app / "app.json").read_text(encoding="utf-8"))
    described["segmentation"]["files"]["weights"] = "../mine.pt"
    (app / "app.json").write_text(json.dumps(described), encoding="utf-8")
    with pytest.raises(ManifestError, match=r"outside its root"):
        read_app(app)


def test_the_server_listens_where_it_is_told(tmp_path: Path) -> None:
    command = server_command(tmp_path, str(tmp_path), "127.0.0.1", 8123)
    assert command[:4] == [sys.executable, "-m", "monailabel.main", "start_server"]
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--uvicorn_app") + 1] == "monai_ext.label.server:app"
    assert is_loopback("localhost")
    assert not is_loopback("0.0.0.0")
    assert "http://pacs/dicom-web" in server_command(tmp_path, "http://pacs/dicom-web", "127.0.0.1", 1)


@pytest.mark.parametrize(("studies", "port", "sentence"), [("no", 8000, "is no folder"), (".", 0, "from 1 to 65535")])
def test_the_server_is_not_started_for_nothing(tmp_path: Path, studies: str, port: int, sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        server_command(tmp_path, studies, "127.0.0.1", port)


def test_safe_settings_hold_unless_others_are_named(tmp_path: Path) -> None:
    own = server_environment(tmp_path, [], {"PATH": "x", "MONAI_LABEL_CORS_ORIGINS": '["https://a"]'})
    assert own["MONAI_LABEL_CORS_ORIGINS"] == "[]"  # only --cors opens it
    assert own["MONAI_LABEL_AUTO_UPDATE_SCORING"] == "false"
    assert own["MONAI_LABEL_DICOMWEB_CACHE_EXPIRY"] == "0"
    assert Path(own["MONAI_LABEL_SESSION_PATH"]).is_relative_to(tmp_path)
    named = server_environment(tmp_path, ["https://b"], {"MONAI_LABEL_AUTO_UPDATE_SCORING": "true"})
    assert named["MONAI_LABEL_CORS_ORIGINS"] == '["https://b"]'
    assert named["MONAI_LABEL_AUTO_UPDATE_SCORING"] == "true"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["label-app", "--output", "app"], "nothing to serve"),
        (["label-app", "--output", "app", "--demo", "."], "no finished demonstration"),
        (["label-app", "--output", "app", "--train", "--set", "x=1"], "segmentation.NAME=VALUE"),
        (["label-app", "--output", "app", "--adapters", "a.safetensors"], "name at least one"),
    ],
)
def test_the_command_line_ends_in_a_sentence(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    command = [sys.executable, "-m", "monai_ext", *arguments]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", env=_environment())
    assert ended.returncode == 2
    assert sentence in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "app").exists()


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    if importlib.util.find_spec("monailabel") is not None:
        pytest.skip("MONAI Label is installed")
    command = [sys.executable, "-m", "monai_ext", "label-serve", "--studies", "."]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", env=_environment())
    assert ended.returncode == 2
    assert "pip install 'monai-ext[label]'" in ended.stderr


def _environment() -> dict[str, Any]:
    return {**os.environ, "COLUMNS": "200"}
