"""Names that a terminal cannot show."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from monai_ext.base import print_any_name


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("ascii", b"\\u6f22 \\udce9"), ("utf-8", "漢 \\udce9".encode()), ("latin-1", b"\\u6f22 \\udce9")],
)
def test_what_cannot_be_shown_is_spelled_out(monkeypatch: pytest.MonkeyPatch, encoding: str, shown: bytes) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))
    print_any_name()
    print("漢 \udce9", end="", flush=True)
    assert written.getvalue() == shown


def test_another_way_out_of_the_user_s_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii", errors="ignore"))
    print_any_name()
    assert sys.stdout.errors == "ignore"


def test_a_summary_names_files_of_any_bytes(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/scan \xe9.nii.gz", "wb"):
        pass
    words = [sys.executable, "-m", "monai_ext", "prepare", str(tmp_path), str(tmp_path / "store"), "--workers", "0"]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    found = subprocess.run(words, capture_output=True, text=True, timeout=120, env=environment)
    assert found.returncode == 1
    assert "scan \\udce9: the file cannot be used, it is empty" in " ".join(found.stdout.replace("│", "").split())
    assert "Traceback" not in found.stderr
