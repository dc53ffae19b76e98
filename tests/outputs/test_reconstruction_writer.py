"""Reconstructions in HU on the scan's grid, and that no scan's takes another one's place."""

import hashlib
import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_ext.base import ScanError, WriteError
from monai_ext.outputs import ReconstructionWriter

AFFINE = np.array([[-2.0, 0, 0, 9], [0, 3, 0, -5], [0, 0, 5, 7], [0, 0, 0, 1]])


def prediction(value: float, scan_sha256: str | None = "aa" * 32) -> dict[str, object]:
    meta = {} if scan_sha256 is None else {"scan_sha256": scan_sha256}
    volume = torch.linspace(0, value, 3 * 5 * 7).reshape(1, 3, 5, 7)
    return {"case": "ct", "pred": MetaTensor(volume, affine=torch.from_numpy(AFFINE), meta=meta)}


def test_hu_and_sidecar(tmp_path):
    ReconstructionWriter("pred", tmp_path, (-100, 300))(prediction(1.2))  # above 1 there is nothing to show
    written = nib.load(tmp_path / "ct" / "ct_reconstruction.nii.gz")
    hu = np.linspace(0, 1.2, 105).clip(0, 1).reshape(3, 5, 7) * 400 - 100
    np.testing.assert_allclose(written.get_fdata(), hu, rtol=0, atol=0.51)  # whole HU
    np.testing.assert_array_equal(written.affine, AFFINE)
    sidecar = json.loads((tmp_path / "ct" / "ct_reconstruction.json").read_text())
    assert sidecar == {
        "case": "ct",
        "file": "ct_reconstruction.nii.gz",
        "window_hu": [-100.0, 300.0],
        "scan_sha256": "aa" * 32,
        "sha256": hashlib.sha256((tmp_path / "ct" / "ct_reconstruction.nii.gz").read_bytes()).hexdigest(),
    }


def test_the_same_scan_may_be_written_again_and_another_not(tmp_path):
    write = ReconstructionWriter("pred", tmp_path)
    write(prediction(1.0))
    write(prediction(0.5))
    before = {path: path.read_bytes() for path in (tmp_path / "ct").iterdir()}
    for other in ("bb" * 32, None):
        with pytest.raises(WriteError, match=r"^ct: ct_reconstruction\.nii\.gz exists and is the result of another"):
            write(prediction(0.1, other))
    assert {path: path.read_bytes() for path in (tmp_path / "ct").iterdir()} == before


def test_numbers_that_are_not_finite_leave_nothing(tmp_path):
    with pytest.raises(ScanError, match=r"^ct: the network returned numbers that are not finite"):
        ReconstructionWriter("pred", tmp_path)(prediction(float("nan")))
    assert not list(tmp_path.iterdir())
