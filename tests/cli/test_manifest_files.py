"""``manifest build``, ``verify`` and ``kshot`` as a user meets them: one after the other, on one folder."""

import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_ext.cli.app import main
from monai_ext.manifests import read_manifest


@pytest.fixture
def spleens(tmp_path: Path) -> Path:
    """A small Task09_Spleen: five labelled scans, one for the test, one with a truncated download."""
    root = tmp_path / "DOE^JANE" / "Task09_Spleen"
    rng = np.random.default_rng(1)
    for folder, numbers in (("imagesTr", (2, 3, 6, 8, 9)), ("labelsTr", (2, 3, 6, 8, 9)), ("imagesTs", (1,))):
        (root / folder).mkdir(parents=True)
        for number in numbers:
            voxels = rng.integers(-1010, -990, (5, 7, 6))
            voxels[1:4, 2:5] = rng.integers(-50, 90, (3, 3, 6))
            voxels = voxels if folder.startswith("images") else (voxels > -500)
            image = nib.Nifti1Image(voxels.astype(np.int16), np.diag([1.5, 2, 2.5, 1]))
            image.to_filename(root / folder / f"spleen_{number}.nii.gz")
    return root


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["monai_ext", "manifest", *map(str, words)])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as caught:
        main()
    captured = capsys.readouterr()
    return int(caught.value.code or 0), captured.out + captured.err


def test_from_a_folder_to_one_shot(
    spleens: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, told = run(capsys, monkeypatch, "build", spleens, "--jobs", 0)
    assert code == 0, told
    assert "recognised as msd_spleen by its layout: 11 of 11 files fit" in told
    assert "5 entries, 5 with label, 5 patients" in told
    path = spleens / "manifest.json"
    assert "next: python -m monai_ext manifest verify .../manifest.json" in told
    assert str(spleens.parent) not in told

    code, told = run(capsys, monkeypatch, "verify", path, "--jobs", 0, "--deep")
    assert (code, "6 entries of 6 patients: no problem found" in told) == (0, True), told

    out = spleens / "2-shot.json"
    code, told = run(capsys, monkeypatch, "kshot", path, "--shots", 2, "--out", out)
    assert (code, told) == (0, ".../2-shot.json: 2 of 5 training entries, 2 of 5 patients\n")
    assert [entry.split for entry in read_manifest(out).entries] == ["training", "training", "test"]
    assert run(capsys, monkeypatch, "verify", out, "--jobs", 0)[0] == 0


def test_trouble_is_told_by_kind_and_by_exit_code(
    spleens: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (spleens / "imagesTr/spleen_3.nii.gz").unlink()
    (spleens / "imagesTr/spleen_6.nii.gz").write_bytes(b"")
    code, told = run(capsys, monkeypatch, "build", spleens, "--jobs", 0, "--no-checksums")
    assert code == 1
    assert "spleen_3: a label without an image" in told
    assert "spleen_6: the file is empty" in told
    path, report = spleens / "manifest.json", spleens / "report.jsonl"
    content = json.loads(path.read_text())
    content["training"][0]["image"] = "../elsewhere.nii.gz"
    (spleens / "labelsTr/spleen_9.nii.gz").unlink()
    path.write_text(json.dumps(content))
    code, told = run(capsys, monkeypatch, "verify", path, "--jobs", 0, "--report", report)
    assert code == 1
    assert "manifest.outside_root" in told
    assert "label.missing" in told
    assert "3 entries of 3 patients: 2 problems in 2" in told
    assert "DOE" not in told.replace(str(spleens), "")
    assert len(report.read_text().splitlines()) == 2


def test_what_cannot_be_is_one_sentence_and_exit_code_2(
    spleens: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = spleens / "manifest.json"
    path.write_text(json.dumps({"schema_version": "7.0"}))
    for words, sentence in (
        (("build", spleens / "nowhere"), "nowhere: the folder of the data set is not there"),
        (("build", spleens, "--dataset", "msd_heart"), "no data set of that name is shipped"),
        (("build", spleens, "--split", "train"), "split: 'train' is none; give one of training, validation, test"),
        (("verify", path), "schema_version is '7.0', but this package reads 1.x"),
        (("verify", spleens / "none.json"), "none.json: no such datalist"),
        (("kshot", path, "--out", spleens / "out.json"), "schema_version is '7.0'"),
    ):
        code, told = run(capsys, monkeypatch, *words)
        assert code == 2, told
        assert sentence in told.replace("\n", " ")
        assert "Traceback" not in told
    assert not (spleens / "out.json").exists()


def test_nothing_that_is_read_from_is_replaced(
    spleens: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(capsys, monkeypatch, "build", spleens, "--jobs", 0)[0] == 0
    path, scan, other = spleens / "manifest.json", spleens / "imagesTr/spleen_2.nii.gz", spleens / "dataset.json"
    other.write_text("{}")
    (spleens / "link.json").symlink_to(path)
    before = {file: file.read_bytes() for file in (path, scan, other)}
    for out in (path, spleens / "link.json", spleens / "imagesTr" / ".." / "manifest.json"):
        for words in (
            ("kshot", path, "--shots", 1, "--out", out),
            ("mix", path, "--out", out),
            ("build", spleens, "--jobs", 0, "--dataset", path, "--out", out),
            ("verify", path, "--jobs", 0, "--report", out),
            ("leakage", path, "--jobs", 0, "--report", out),
            ("summary", path, "--jobs", 0, "--html", out),
        ):
            code, told = run(capsys, monkeypatch, *words)
            assert (code, told) == (
                2,
                f"error: {out.name}: it is read from, and would be replaced; give another name to write\n",
            )
    for out, sentence in (
        (scan, "spleen_2.nii.gz: a manifest is a .json file; name it so"),
        (other, "dataset.json: a file that is no manifest is there already; give another name, or take it away"),
    ):
        for words in (
            ("kshot", path, "--shots", 1, "--out", out),
            ("mix", path, "--out", out, "--root", spleens),
            ("build", spleens, "--jobs", 0, "--out", out),
        ):
            assert run(capsys, monkeypatch, *words) == (2, f"error: {sentence}\n")
    assert {file: file.read_bytes() for file in before} == before


def test_a_report_that_cannot_be_written_is_told_before_the_scans_are_read(
    spleens: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(capsys, monkeypatch, "build", spleens, "--jobs", 0)[0] == 0
    path = spleens / "manifest.json"
    for verb, option in (("verify", "--report"), ("leakage", "--report"), ("summary", "--html")):
        code, told = run(capsys, monkeypatch, verb, path, "--jobs", 0, option, path / "page.html")
        assert (code, told) == (2, "error: manifest.json: is no folder; choose a writable output folder\n")
