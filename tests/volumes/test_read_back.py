"""What was written is read by another library, and what differs in type, place or a voxel is refused."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_ext.base import WriteError
from monai_ext.volumes import check_read_back, nifti_image

AFFINE = np.array([[0, -1.5, 0, 20.5], [2.0, 0, 0, -7], [0, 0, 2.5, 3], [0, 0, 0, 1]])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float32])
def test_a_faithful_file_passes(tmp_path: Path, dtype: type) -> None:
    voxels = np.random.default_rng(0).integers(0, 200, (7, 5, 3)).astype(dtype)
    nib.save(nifti_image(voxels, AFFINE), tmp_path / "a.nii.gz")
    check_read_back(tmp_path / "a.nii.gz", voxels, AFFINE, "a")


@pytest.mark.parametrize("what", ["voxel", "type", "shape", "place", "cut", "none"])
def test_anything_else_is_refused(tmp_path: Path, what: str) -> None:
    voxels = np.random.default_rng(0).integers(0, 200, (7, 5, 3)).astype(np.int16)
    written, affine, path = voxels.copy(), AFFINE.copy(), tmp_path / "a.nii"
    if what == "voxel":
        written[6, 4, 2] += 1
    elif what == "type":
        written = written.astype(np.int32)
    elif what == "shape":
        written = written[:, :, :2]
    elif what == "place":
        affine[2, 3] += 0.2
    nib.save(nifti_image(written, affine), path)
    if what == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    elif what == "none":
        path.write_bytes(b"")
    with pytest.raises(WriteError, match=r"^ct_7: SimpleITK reads .*, so the file was not kept") as caught:
        check_read_back(path, voxels, AFFINE, "ct_7")
    assert (caught.value.code, caught.value.case) == ("write.verify", "ct_7")
