"""``few-shot`` writes a balanced list that training can use."""

import json
import sys
from pathlib import Path

import pytest

from monai_ext.cli.app import main
from monai_ext.manifests import read_picture_list


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["monai_ext", "few-shot", *words])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


@pytest.fixture
def full(tmp_path: Path) -> Path:
    rows = [
        {"image_path": f"{name}/{label}/{n}.png", "label": label, "class_name": name, "mask_path": f"{name}/m/{n}.png"}
        for name in ("candle", "pcb3")
        for label in (0, 1)
        for n in range(5)
    ]
    rows = [row if row["label"] else {k: v for k, v in row.items() if k != "mask_path"} for row in rows]
    path = tmp_path / "full-shot.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_a_balanced_list_is_written(
    full: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = full.with_name("4-shot.jsonl")
    assert run(monkeypatch, str(full), str(output), "--shots", "4", "--seed", "7") == 0
    assert "8 pictures of 2 classes (candle, pcb3)" in capsys.readouterr().out
    entries = read_picture_list(output)
    assert sum(entry.label for entry in entries) == 4
    parts = [{(one.image, one.mask, one.label) for one in some} for some in (entries, read_picture_list(full))]
    assert parts[0] < parts[1]
    assert run(monkeypatch, str(full), str(output), "--class", "pcb3", "--shots", "2") == 0
    assert {entry.class_name for entry in read_picture_list(output)} == {"pcb3"}


def test_what_cannot_be_is_one_sentence(
    full: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, sentence in (
        (["--shots", "3"], "shots: 3 cannot be halved"),
        (["--shots", "12"], "5 normal pictures are too few for 12 shots"),
        (["--class", "nut"], "no picture of class 'nut'"),
    ):
        assert run(monkeypatch, str(full), str(full.with_name("out.jsonl")), *words) == 2
        assert sentence in capsys.readouterr().err.replace("\n", " ")
    assert not full.with_name("out.jsonl").exists()
