"""The verb: what it prints, and its exit codes."""

import csv
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from monai_ext.cli.prepare import prepare
from monai_ext.volumes import VolumeStore

SHAPE = (23, 19, 17)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    hu = np.full(SHAPE, -1000, np.int16)
    hu[4:19, 3:16, 2:15] = 40
    hu[::2] += 3
    (tmp_path / "scans").mkdir()
    image = nib.Nifti1Image(hu, np.diag([3.0, 3.0, 3.0, 1.0]))
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "scans" / "good.nii.gz")
    return tmp_path / "scans"


def run(*arguments: object) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(prepare)
    result = CliRunner().invoke(app, [*map(str, arguments), "--workers", "0"], env={"COLUMNS": "200"})
    return result.exit_code, result.output


def test_prepared_and_skipped(scans, tmp_path):
    code, output = run(scans, tmp_path / "store", "--spacing", 3, 2, 1.5)
    assert code == 0
    assert "good" in output
    assert VolumeStore(tmp_path / "store").record("good").spacing_mm == (3.0, 2.0, 1.5)
    code, output = run(scans, tmp_path / "store", "--spacing", 3, 2, 1.5)
    assert code == 0
    assert "in the store already" in output


def test_failed_scan_is_named_with_its_reason(scans, tmp_path):
    (scans / "bad [red].nii.gz").write_bytes(b"")
    (scans / "good_seg.nii.gz").write_bytes(b"")
    code, output = run(scans, tmp_path / "store")
    assert code == 1
    assert "bad [red]: " in output  # brackets of a name are no markup
    assert "good_seg.nii.gz: named like labels" in output
    assert str(tmp_path) not in output


def test_nothing_found_is_one_sentence(tmp_path):
    (tmp_path / "nothing").mkdir()
    code, output = run(tmp_path / "nothing", tmp_path / "store")
    assert code == 2
    assert output.startswith("error: nothing: no scan found; give a folder")
    assert output.count("\n") == 1
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--spacing", 0, 1, 1], "spacing_mm: "),
        (["--section", "training"], "sections are parts of a datalist"),
        (["--scheduler", "tcp://127.0.0.1:8786"], "workers: a scheduler has workers of its own"),
        (["--scheduler", "local"], "workers: 0 can run nothing; give a local scheduler 1 or more"),
    ],
)
def test_wrong_settings_exit_with_2(scans, tmp_path, arguments, sentence):
    code, output = run(scans, tmp_path / "store", *arguments)
    assert code == 2
    assert sentence in output
    assert not (tmp_path / "store").exists()


def test_interruption_says_how_to_go_on(scans, tmp_path, monkeypatch):
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("monai_ext.volumes.prepare", interrupted)
    code, output = run(scans, tmp_path / "store")
    assert code == 130
    assert output.strip() == "interrupted: what is in the store is whole; give the same command again to go on"


def test_help_teaches_with_an_example():
    code, output = run("--help")
    assert code == 0
    assert "python -m monai_ext prepare ct_scans store" in output
    assert "Exit code: 0" in output


def test_every_failed_scan_is_listed_in_a_file(scans, tmp_path):
    for number in range(20):
        (scans / f"bad_{number:02}.nii.gz").write_bytes(b"")
    store = tmp_path / "store"
    code, output = run(scans, store)
    assert code == 1
    assert "and 8 more" in output
    assert "every failed scan with its reason: failed.csv in store" in output
    with (store / "failed.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["id"] for row in rows] == [f"bad_{number:02}" for number in range(20)]
    assert {row["code"] for row in rows} == {"scan.damaged"}
    assert all(row["reason"].startswith(f"{row['id']}: the file cannot be used, it is empty") for row in rows)
    assert VolumeStore(store).ids == ["good"]
    for path in scans.glob("bad_*"):
        path.unlink()
    assert run(scans, store)[0] == 0
    assert not (store / "failed.csv").exists()


def test_failed_scans_are_told_where_their_file_cannot_be_written(scans, tmp_path):
    (scans / "bad.nii.gz").write_bytes(b"")
    code, output = run(scans, tmp_path / "store", "--failed", scans / "good.nii.gz" / "failed.csv")
    assert code == 1
    assert "bad: the file cannot be used, it is empty" in output
    assert "error: failed.csv: could not be written (" in output


def test_how_to_page_uses_options_that_exist():
    page = Path(__file__).parents[2] / "docs" / "how-to" / "prepare-at-scale.md"
    commands = re.findall(r"^python -m monai_ext prepare (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(commands) == 2
    _, output = run("--help")
    for option in re.findall(r"--[a-z-]+", " ".join(commands)):
        assert option in output
