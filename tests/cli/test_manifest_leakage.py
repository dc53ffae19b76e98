"""``manifest leakage`` from the command line: what it prints and writes, and its exit codes."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from typer.testing import CliRunner, Result

from monai_ext.base import SettingError
from monai_ext.cli.app import app
from monai_ext.manifests import DatasetCard, Fact, Manifest, ManifestEntry, Relation, write_manifest


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["manifest", "leakage", *map(str, arguments), "--jobs", "0"], env={"COLUMNS": "160"})


def picture(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).uniform(0, 255, (8, 8, 3))
    return ndimage.zoom(coarse, (11, 9, 1), order=1).clip(0, 255).astype(np.uint8)


@pytest.fixture
def lists(tmp_path: Path) -> tuple[Path, Path]:
    """Two manifests, the second one with a copy of the first one's picture 1 and with one that is not there."""
    for name, pixels in [("a0", picture(0)), ("a1", picture(1)), ("b0", picture(2)), ("b1", picture(1)[3:, ::-1])]:
        Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / f"{name}.png")
    paths = []
    for name, count in (("a", 2), ("b", 3)):
        entries = [ManifestEntry(f"{name}{n}", f"set_{name}", f"{name}{n}.png", split="test") for n in range(count)]
        facts = {fact: Fact("unknown") for fact in ("title", "licence", "commercial_use")}
        card = DatasetCard(f"set_{name}", facts, overlaps=(Relation("set_a", "some [pictures]", "low"),))
        paths.append(tmp_path / f"{name}.json")
        write_manifest(paths[-1], Manifest(f"list_{name}", {card.id: card}, entries=entries))
    return paths[0], paths[1]


def test_pairs_problems_and_known_overlaps_are_told(lists: tuple[Path, Path], tmp_path: Path) -> None:
    report = tmp_path / "out" / "pairs.json"
    result = call(*lists, "--report", report)
    assert result.exit_code == 1, result.output
    assert re.search(r"near-duplicate .* a1 \(set_a, test\) .* b1 \(set_b, test\)", result.output)
    assert "4 scans compared: 1 pair found (1 near-duplicate); 1 could not" in result.output
    assert "known: set_a and set_b: some [pictures] (severity: low)" in result.output
    content = json.loads(report.read_text(encoding="utf-8"))
    assert [(pair["first"]["id"], pair["second"]["id"]) for pair in content["pairs"]] == [("a1", "b1")]
    assert [problem["case"] for problem in content["not_compared"]] == ["b2"]
    assert content["compared"] == 4
    assert 0.92 <= content["pairs"][0]["score"] < 1
    assert str(tmp_path) not in result.output.replace(str(report), "")
    assert str(tmp_path) not in report.read_text()


def test_a_page_shows_the_pairs_only_when_asked(lists: tuple[Path, Path], tmp_path: Path) -> None:
    plain, pictured = tmp_path / "plain.html", tmp_path / "pictured.html"
    call(*lists, "--report", plain)
    call(*lists, "--report", pictured, "--pictures")
    assert "a1 (set_a, test)" in plain.read_text()
    assert "<img" not in plain.read_text()
    assert pictured.read_text().count("data:image/png;base64,") == 2
    assert "some [pictures]" in pictured.read_text()
    assert "b2: " in pictured.read_text()


def test_nothing_found_is_0_and_one_list_is_compared_with_itself(lists: tuple[Path, Path]) -> None:
    result = call(lists[0])
    assert result.exit_code == 0, result.output
    assert "2 scans compared: no pair found" in result.output
    raised = call(*lists, "--threshold", "0.9999")
    assert raised.exit_code == 1
    assert "no pair found; 1 could not be compared" in raised.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--report", "pairs.csv"], r"pairs\.csv: a report is a \.json or \.html file"),
        (["--pictures"], "--pictures: only a page shows them"),
        (["--threshold", "0"], "threshold: 0 is no correlation"),
    ],
)
def test_wrong_settings_are_refused_before_the_work(
    lists: tuple[Path, Path], arguments: list[str], sentence: str
) -> None:
    result = call(*lists, *arguments)
    assert isinstance(result.exception, SettingError)
    assert re.search(sentence, str(result.exception))
