"""The simulated corpus goes through every step; its times and memory are for the benchmark to tell."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.full
def test_a_small_corpus_goes_through_every_step(tmp_path: Path) -> None:
    script = Path(__file__).with_name("corpus.py")
    words = [
        "--entries",
        "60",
        "--jobs",
        "1",
        "--folder",
        str(tmp_path / "corpus"),
        "--output",
        str(tmp_path / "c.json"),
    ]
    subprocess.run([sys.executable, str(script), *words], check=True, capture_output=True, timeout=1200)
    found = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))["whole"]
    assert found["verify"]["problems"] == 3
    assert found["open index"]["volumes"] == 60
    assert found["one epoch"]["crops"] >= 8 * 40
    mix = json.loads((tmp_path / "corpus/whole/mix.json").read_text(encoding="utf-8"))
    assert len(mix["datasets"]) == 5
