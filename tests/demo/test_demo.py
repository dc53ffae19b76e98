"""The demonstration: its plan, its refusals, and, in full, its promises."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_ext.base import ManifestError, ScanError, SettingError, WriteError
from monai_ext.demo import segmentation
from monai_ext.demo.lesion_scores import ADAPTED, BASELINES
from monai_ext.demo.plan import plan_demo
from monai_ext.demo.run import run_demo


def test_minutes_scale_training_alone() -> None:
    short, long = plan_demo(7), plan_demo(14)
    assert short.patients == long.patients
    assert long.finetune_epochs > 1.8 * short.finetune_epochs
    assert long.pretrain_epochs > 1.8 * short.pretrain_epochs
    assert long.adaptation_epochs > 1.8 * short.adaptation_epochs


@pytest.mark.parametrize("minutes", [0, 1, -5, 6, float("nan")])
def test_too_little_time_is_said(minutes: float) -> None:
    with pytest.raises(SettingError, match=r"leaves no time to train; give at least 6\.5"):
        plan_demo(minutes)


def test_the_first_half_alone_gets_all_of_the_time() -> None:
    alone = plan_demo(3, lesions=False)
    assert alone.adaptation_epochs == 0
    assert alone.finetune_epochs > plan_demo(6.5).finetune_epochs / 2
    with pytest.raises(SettingError, match=r"give at least 1\.5"):
        plan_demo(1, lesions=False)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_text("years of work")
    with pytest.raises(SettingError, match=r"already holds 'thesis\.docx'; choose an empty or a new folder"):
        run_demo(tmp_path)
    assert (tmp_path / "thesis.docx").read_text() == "years of work"


def test_a_scan_that_cannot_be_used_is_refused_before_minutes_are_spent(tmp_path: Path) -> None:
    (tmp_path / "torn.nii.gz").write_bytes(b"")
    with pytest.raises(ScanError, match=r"^torn: "):
        run_demo(tmp_path / "out", scan=tmp_path / "torn.nii.gz")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_like_named_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()  # named as ours, but no demonstration made it
    (tmp_path / "store" / "ct.b2nd").write_text("hours of preparing")
    with pytest.raises(SettingError, match=r"already holds 'store'; choose an empty or a new folder"):
        run_demo(tmp_path)
    assert (tmp_path / "store" / "ct.b2nd").exists()


class TrainingBeginsError(Exception):
    """Raised where the demonstration would begin to work."""


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise TrainingBeginsError

    monkeypatch.setattr(segmentation, "write_phantoms", stop)


@pytest.mark.usefixtures("stopped")
def test_an_interrupted_demonstration_is_cleared_by_the_next(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(TrainingBeginsError):
            run_demo(tmp_path / "demo")
        (tmp_path / "demo" / "phantoms").mkdir()  # what the interrupted one made
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        (tmp_path / "demo" / "store").symlink_to(tmp_path / "elsewhere")
        assert (tmp_path / "demo" / "phantoms").exists()
    assert (tmp_path / "elsewhere").exists()


def scan_of(path: Path, low: float, high: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(np.linspace(low, high, 7 * 11 * 13, dtype=np.float32).reshape(7, 11, 13), np.eye(4))
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


@pytest.mark.usefixtures("stopped")
def test_an_image_that_is_not_in_hu_needs_a_word_of_its_own(tmp_path: Path) -> None:
    mr = scan_of(tmp_path / "mr.nii.gz", 0, 300)
    with pytest.raises(ScanError, match=r"^mr: values from 0 to 300 do not look like CT .* pass --assume-hu"):
        run_demo(tmp_path / "out", scan=mr)
    assert not (tmp_path / "out").exists()
    with pytest.raises(TrainingBeginsError):
        run_demo(tmp_path / "out", scan=mr, assume_hu=True)


@pytest.mark.usefixtures("stopped")
def test_a_scan_that_the_demonstration_would_clear_or_confuse_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "demo.json").write_text("{}")
    own = scan_of(tmp_path / "demo" / "phantoms" / "own.nii.gz", -1000, 1000)
    with pytest.raises(SettingError, match=r"^own: lies inside the output folder, .* choose another --output"):
        run_demo(tmp_path / "demo", scan=own)
    assert own.exists()
    with pytest.raises(ScanError, match=r"^phantom_test_00: a patient of the demo has that name; rename the scan"):
        run_demo(tmp_path / "out", scan=scan_of(tmp_path / "phantom_test_00.nii.gz", -1000, 1000))
    (tmp_path / "link.nii.gz").symlink_to("/etc/hostname")
    with pytest.raises(ManifestError, match=r"^link: a link leads out of the root folder"):
        run_demo(tmp_path / "out", scan=tmp_path / "link.nii.gz")


def test_an_output_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=r"^file: is no folder; choose a writable output folder"):
        run_demo(tmp_path / "file")


@pytest.mark.full
@pytest.mark.filterwarnings("default")
def test_the_whole_way_with_a_real_scan(tmp_path: Path, shared_ct: Path) -> None:
    source = shared_ct / "abdomen_slab_3mm.nii.gz"
    result = run_demo(tmp_path / "demo", scan=source, minutes=10)
    page = (result.folder / "index.html").read_text()
    assert "No trained weights ship" in page
    labels = nib.load(result.folder / "segmentations" / "abdomen_slab_3mm" / "abdomen_slab_3mm_seg.nii.gz")
    scan = nib.load(source)
    assert labels.shape == scan.shape
    np.testing.assert_allclose(labels.affine, scan.affine, atol=1e-5)
    rows = [line.split(",") for line in (result.folder / "evaluation" / "scores.csv").read_text().splitlines()]
    dice = [float(row[3]) for row in rows if row[0] == "mean"]
    assert np.mean(dice) >= 0.8
    figures = json.loads((result.folder / "lesions" / "scores.json").read_text(encoding="utf-8"))["auroc"]
    seen = {name: places["organ"]["seen"] for name, places in figures.items()}
    assert seen[ADAPTED] >= max(seen[name] for name in BASELINES) + 0.1
    assert "Lesions, also of organs never seen with one" in page
