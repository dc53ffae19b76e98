"""Whole verbs on folders of good and bad files: the good ones finish, the bad ones are named and leave nothing."""

import gzip
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow

import monai_ext
from monai_ext.volumes import VolumeStore

pytestmark = pytest.mark.full
BUNDLE = "hi_end_mae_ct_segmentation"
LABELS = {str(n): f"organ {n}" if n else "background" for n in range(9)}
SMALL = {
    "network_def#encoder_width": 24,
    "network_def#encoder_depth": 3,
    "network_def#encoder_heads": 3,
    "network_def#feature_size": 4,
    "network_def#decoder_stride": 1,
    "network_def#taps": [1, 2, 3],
    "image_size": [24, 24, 16],
    "patch_size": [8, 8, 8],
    "spacing_mm": [6.0, 6.0, 6.0],
}
GOOD = {"good_1", "good_2", "good_3"}


@pytest.fixture
def mixed(tmp_path: Path, nifti: Any, ct_series: Any) -> tuple[Path, set[str]]:
    """A folder with three good scans, and one bad file of each kind; with the cases of the bad ones."""
    folder = tmp_path / "Doe^Jane"
    folder.mkdir()
    voxels = np.full((31, 29, 23), -1000, np.int16)
    voxels[6:25, 5:24, 4:19] = 40 + np.arange(15)
    for name in ("good_1.nii.gz", "good_2.nii"):
        image = nib.Nifti1Image(voxels, np.diag([6.0, 6.0, 6.0, 1.0]))
        image.set_sform(image.affine, 1)
        nib.save(image, folder / name)
    slices = ct_series.slices()
    for index, data in enumerate(slices):  # of a body that is large enough to be one
        data.PixelSpacing, data.ImagePositionPatient = [20, 20], [0, 0, 20 * index]
    ct_series.save(slices, folder / "good_3")
    bad = {
        "torn.nii.gz": gzip.compress(nifti())[:900],
        "nothing.nii.gz": b"",
        "lying.nii": nifti(dim=[3, 7, 11, 14]),
        "nowhere.nii": nifti(qform_code=0, sform_code=0),
        "offset.nii": nifti(vox_offset=-352),
        "nan.nii": nifti(np.where(nifti.voxels() > 0, np.nan, nifti.voxels()).astype("f4")),
        "text.nrrd": b"NRRD0004\ntype: short\n\n",
        "words.mha": b"ObjectType = Image\nElementDataFile = LOCAL\n",
    }
    for name, content in bad.items():
        (folder / name).write_bytes(content)
    slices = ct_series.slices()
    del slices[2]
    ct_series.save(slices, folder / "gap")
    ct_series.save([*ct_series.slices(), ct_series.slices()[1]], folder / "doubled")
    names = {name.split(".")[0] for name in bad} | {"gap", "doubled"}
    return folder, names


def outcome_of(code: int, output: str, made: set[str], bad: set[str]) -> str:
    """Return what the whole run comes to: every bad file named, none left behind, every good one there."""
    if code == 0 or made - GOOD:
        return "silent"
    return "caught" if made == GOOD and all(name in output for name in bad) else "crashed"


def test_prepare(tmp_path, mixed, record_property):
    folder, bad = mixed
    command = [
        sys.executable,
        "-m",
        "monai_ext",
        "prepare",
        str(folder),
        str(tmp_path / "store"),
        "--spacing",
        "3",
        "3",
        "3",
    ]
    # In Python's own process a worker of each would cost seconds.
    done = subprocess.run([*command, "--workers", "0"], capture_output=True, encoding="utf-8", timeout=1800)
    output = done.stdout + done.stderr
    made = set(VolumeStore(tmp_path / "store"))
    outcome = outcome_of(done.returncode, output, made, bad)
    record_property("fault", ["whole runs", "prepare", outcome])
    assert outcome == "caught", (done.returncode, made, (tmp_path / "store" / "failed.csv").read_text(encoding="utf-8"))
    assert "SENTINEL" not in output
    assert "Traceback" not in output


def test_segmentation(tmp_path, mixed, record_property):
    folder, bad = mixed
    configs = [str(Path(monai_ext.bundle_path(BUNDLE)) / "configs" / f"{name}.json") for name in ("inference", "tiny")]
    flow = ConfigWorkflow(config_file=configs, workflow_type="infer", **SMALL, labels=LABELS)
    flow.initialize()
    torch.save(flow.network_def.state_dict(), tmp_path / "model.pt")
    settings = {**SMALL, "labels": LABELS, "weights": str(tmp_path / "model.pt"), "dataset_dir": str(folder)}
    settings["output_dir"] = str(tmp_path / "out")
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(configs), "--workflow_type", "infer"]
    for key, value in settings.items():
        command += [f"--{key}", value if isinstance(value, str) else repr(value)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=1800)
    output = done.stdout + done.stderr
    made = {path.name for path in (tmp_path / "out").iterdir()} - {"provenance.json"}
    outcome = outcome_of(done.returncode, output, made, bad)
    record_property("fault", ["whole runs", "segmentation", outcome])
    assert outcome == "caught", (done.returncode, made, output[-3000:])
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.startswith(("tmp", "."))]
