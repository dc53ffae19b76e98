"""``manifest mix`` on the command line: weights, folders, tables and exit codes."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from monai_ext.cli.app import main
from monai_ext.manifests import ManifestEntry, read_manifest, read_shipped, write_manifest


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["monai_ext", "manifest", "mix", *words])
    monkeypatch.setenv("COLUMNS", "160")
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def listed(path: Path, dataset: str, count: int) -> str:
    entries = [
        ManifestEntry(
            f"{dataset}_{n}", dataset, f"{dataset}/{n}.nii.gz", split="training", label=f"l/{n}.nii.gz" if n else None
        )
        for n in range(count)
    ]
    write_manifest(path, replace(read_shipped(dataset), entries=entries))
    return str(path)


def test_a_mix_is_told_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lidc = listed(tmp_path / "lidc" / "a=b.json", "lidc", 5)
    stoic = listed(tmp_path / "stoic" / "manifest.json", "stoic21", 3)
    btcv = listed(tmp_path / "lists" / "btcv.json", "btcv", 2)
    out = tmp_path / "mix.json"
    roots = [word for folder in ("lidc", "stoic", "lidc") for word in ("--input-root", str(tmp_path / folder))]
    assert run(monkeypatch, lidc, f"{stoic}=25%", f"{btcv}=2", "--out", str(out), *roots) == 0
    printed = capsys.readouterr().out
    for part in (
        "CC-BY-NC-4.0",
        "CC-BY-4.0 (medium confidence)",
        "25.0%",
        "is itself evaluated on",
        "manifest summary",
    ):
        assert part in printed
    manifest = read_manifest(out)
    assert [entry.image for entry in manifest.entries if entry.dataset == "btcv"] == [
        "lidc/btcv/0.nii.gz",
        "lidc/btcv/1.nii.gz",
    ]
    assert run(monkeypatch, lidc, stoic, "--out", str(out), "--commercial-ok", "--split", "training") == 0
    assert "3 left out: commercial use: no" in capsys.readouterr().out
    assert {entry.dataset for entry in read_manifest(out).entries} == {"lidc"}


def test_a_known_leak_ends_in_1_where_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    btcv, out = listed(tmp_path / "btcv.json", "btcv", 2), tmp_path / "mix.json"
    assert run(monkeypatch, btcv, "--out", str(out), "--fail-on-leakage", "--evaluate-on", "btcv") == 1
    assert "not written: 1 known leaks; leave data sets out with --exclude" in capsys.readouterr().err
    assert not out.exists()
    assert run(monkeypatch, btcv, "--out", str(out), "--fail-on-leakage", "--evaluate-on", "word") == 0
    assert out.exists()


def test_what_cannot_be_mixed_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    btcv, out = listed(tmp_path / "btcv.json", "btcv", 2), str(tmp_path / "mix.json")
    for words, sentence in (
        ([f"{btcv}=much"], "btcv.json=much: no weight; give a factor such as 2.5 or a share such as 30%"),
        ([str(tmp_path / "none.json")], "none.json: no such datalist"),
        ([btcv, btcv, btcv, "--input-root", "a", "--input-root", "b"], "input-root: 2 folders for 3 parts"),
        ([btcv, "--exclude", "btcv"], "nothing is left for the mix (no scan in the splits and data sets asked for)"),
    ):
        assert run(monkeypatch, *words, "--out", out) == 2
        assert sentence in capsys.readouterr().err.replace("\n", " ")
