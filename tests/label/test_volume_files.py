"""Volumes as clients ask for them: no voxel moves, and a type that is too small is refused."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from monai_ext.base import SettingError
from monai_ext.label.volume_files import converted, write_volume
from monai_ext.volumes import affine_of_itk

OBLIQUE = np.array([[0.8, -0.6, 0, -31.5], [0.6, 0.8, 0, 12.25], [0, 0, 1, -7], [0, 0, 0, 1]]) @ np.diag([1.5, 2, 3, 1])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 14, (5, 7, 3)).astype(np.uint8)
    write_volume(tmp_path / "source.nii.gz", values, OBLIQUE)
    return tmp_path / "source.nii.gz"


@pytest.mark.parametrize("ending", [".nrrd", ".nii.gz", ".nii"])
@pytest.mark.parametrize("dtype", [None, "uint8", "uint16", "int16", "int32"])
def test_voxels_place_and_type(source: Path, tmp_path: Path, ending: str, dtype: str | None) -> None:
    path = converted(source, tmp_path / f"out{ending}", dtype, compress=False)
    image = SimpleITK.ReadImage(str(path))
    read = SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0)
    assert read.dtype == np.dtype(dtype or "uint8")
    assert np.array_equal(read, nib.load(source).dataobj)
    assert np.allclose(affine_of_itk(image), OBLIQUE, atol=1e-5)  # NIfTI's float32


def test_nifti_keeps_the_affine_to_the_last_bit(source: Path, tmp_path: Path) -> None:
    path = converted(source, tmp_path / "out.nii", "uint16")
    assert np.array_equal(nib.load(path).affine, nib.load(source).affine)


def test_a_type_that_is_too_small_is_refused(tmp_path: Path) -> None:
    write_volume(tmp_path / "large.nii.gz", np.full((2, 3, 5), 300, np.int16), OBLIQUE)
    with pytest.raises(SettingError, match=r"result_dtype: uint8 cannot hold values from 300 to 300"):
        converted(tmp_path / "large.nii.gz", tmp_path / "out.nrrd", "uint8")
    assert not (tmp_path / "out.nrrd").exists()
