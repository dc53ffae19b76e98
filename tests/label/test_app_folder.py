"""The folder of an app, and the server's command and environment."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from monai_ext.base import ManifestError, SettingError, WeightsError, WriteError
from monai_ext.label.app_folder import localization_part, read_app, segmentation_part, write_app
from monai_ext.label.origins import LOOPBACK, is_own_host, may_act
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


def test_an_app_without_its_code_is_told(weights: Path, tmp_path: Path) -> None:
    app = write_app(tmp_path / "app", segmentation_part(weights), None)
    (app / "main.py").unlink()
    with pytest.raises(SettingError, match=r"main\.py is missing"):
        read_app(app)


def test_an_app_with_weights_does_not_begin_without(weights: Path, tmp_path: Path) -> None:
    app = write_app(tmp_path / "app", segmentation_part(weights), None)
    with pytest.raises(WriteError, match=r"has weights already"):
        write_app(app, segmentation_part(None), None)


def test_entries_are_those_of_the_bundle(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"--set overlapp: no entry of hi_end_mae_ct_segmentation"):
        write_app(tmp_path / "app", segmentation_part(weights, settings={"overlapp": 0.5}), None)
    write_app(tmp_path / "app", segmentation_part(weights, settings={"network_def#feature_size": 16}), None)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"segmentation": 3, "localization": null}'])
def test_a_damaged_description_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "app.json").write_text(content, encoding="utf-8")
    (tmp_path / "main.py").touch()
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


@pytest.mark.parametrize(
    ("studies", "port", "sentence"),
    [("no", 8009, "is no folder"), ("", 8009, "no folder"), (".", 0, "from 1 to 65535")],
)
def test_the_server_is_not_started_for_nothing(tmp_path: Path, studies: str, port: int, sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        server_command(tmp_path, studies, "127.0.0.1", port)


def test_a_port_in_use_is_told(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(SettingError, match=r"is in use; give another one"):
            server_command(tmp_path, str(tmp_path), "127.0.0.1", other.getsockname()[1])


def test_safe_settings_hold_unless_others_are_named(tmp_path: Path) -> None:
    own = server_environment(tmp_path, [], [], {"PATH": "x", "MONAI_LABEL_CORS_ORIGINS": '["https://a"]'})
    assert own["MONAI_LABEL_CORS_ORIGINS"] == "[]"  # only --cors opens it
    assert own["MONAI_LABEL_AUTO_UPDATE_SCORING"] == "false"
    assert own["MONAI_LABEL_DICOMWEB_CACHE_EXPIRY"] == "0"
    assert Path(own["MONAI_LABEL_SESSION_PATH"]).is_relative_to(tmp_path)
    named = server_environment(tmp_path, ["https://b"], ["Viewer.example"], {"MONAI_LABEL_AUTO_UPDATE_SCORING": "true"})
    assert named["MONAI_LABEL_CORS_ORIGINS"] == '["https://b"]'
    assert named["MONAI_LABEL_AUTO_UPDATE_SCORING"] == "true"
    assert own["MONAI_EXT_LABEL_HOSTS"] == "127.0.0.1 localhost [::1]"
    assert named["MONAI_EXT_LABEL_HOSTS"] == "127.0.0.1 localhost [::1] viewer.example"


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000", "[::1]"])
def test_this_machine_has_these_names(host: str) -> None:
    assert is_own_host(host, LOOPBACK)


@pytest.mark.parametrize("host", ["", "evil.example", "evil.example:8000", "127.0.0.1.evil.example", "127.0.0.1@evil"])
def test_other_names_that_lead_here_are_not_its_own(host: str) -> None:
    assert not is_own_host(host, LOOPBACK)
    assert is_own_host(host, ["*"])


@pytest.mark.parametrize(
    ("method", "origin", "allowed"),
    [
        ("POST", None, True),  # no browser
        ("POST", "http://127.0.0.1:8000", True),
        ("POST", "http://127.0.0.1:9000", False),
        ("PUT", "https://evil.example", False),
        ("DELETE", "null", False),
        ("GET", "https://evil.example", True),  # whose answer the browser keeps to itself
        ("POST", "https://viewer.example", True),
    ],
)
def test_pages_of_other_sites_change_nothing(method: str, origin: str | None, allowed: bool) -> None:
    assert may_act(method, origin, "127.0.0.1:8000", ["https://viewer.example"]) is allowed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["label-app", "--output", "app"], "nothing to serve"),
        (["label-app", "--output", "app", "--demo", "."], "no finished demonstration"),
        (["label-app", "--output", "app", "--train", "--set", "x=1"], "segmentation.NAME=VALUE"),
        (["label-app", "--output", "app", "--adapters", "a.safetensors"], "name at least one"),
        (["label-app", "--output", "app", "--demo", ".", "--class", "liver"], "with --demo some of the other options"),
        (["label-app", "--output", "app", "--train", "--calibration", "c.json"], "with no --adapters"),
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
