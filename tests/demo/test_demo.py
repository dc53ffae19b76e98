"""The demonstration: its plan, its refusals, and, in full, its promises."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_ext.base import ScanError, SettingError
from monai_ext.demo.plan import plan_demo
from monai_ext.demo.run import run_demo


def test_minutes_scale_training_alone() -> None:
    short, long = plan_demo(3), plan_demo(6)
    assert short.patients == long.patients
    assert long.finetune_epochs > 1.8 * short.finetune_epochs
    assert long.pretrain_epochs > 1.8 * short.pretrain_epochs


@pytest.mark.parametrize("minutes", [0, 1, -5, float("nan")])
def test_too_little_time_is_said(minutes: float) -> None:
    with pytest.raises(SettingError, match=r"leaves no time to train; give at least 1\.5"):
        plan_demo(minutes)


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


@pytest.mark.full
@pytest.mark.filterwarnings("default")
def test_the_whole_way_with_a_real_scan(tmp_path: Path, shared_ct: Path) -> None:
    source = shared_ct / "abdomen_slab_3mm.nii.gz"
    result = run_demo(tmp_path / "demo", scan=source, minutes=5)
    page = (result.folder / "index.html").read_text()
    assert "No trained weights ship" in page
    labels = nib.load(result.folder / "segmentations" / "abdomen_slab_3mm" / "abdomen_slab_3mm_seg.nii.gz")
    scan = nib.load(source)
    assert labels.shape == scan.shape
    np.testing.assert_allclose(labels.affine, scan.affine, atol=1e-5)
    rows = [line.split(",") for line in (result.folder / "evaluation" / "scores.csv").read_text().splitlines()]
    dice = [float(row[3]) for row in rows if row[0] == "mean"]
    assert np.mean(dice) >= 0.8
