"""Volumes as the clients want them: NRRD or NIfTI of one type, on the grid of the image."""

from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK

from monai_ext.base import SettingError, case_id, replacing
from monai_ext.volumes import check_read_back, nifti_image, spacing_of

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def converted(source: Path, target: Path, dtype: str | None = None, compress: bool = True) -> Path:
    """Write a NIfTI anew in the form that a client asks for; no voxel is moved.

    Args:
        source: a NIfTI volume.
        target: ends in ``.nrrd``, ``.nii.gz`` or ``.nii``.
        dtype: a numpy type; that of the source by default.
        compress: of NRRD.

    Raises:
        SettingError: the type cannot hold the values.
        WriteError: the file could not be written whole.
    """
    image = nib.load(source)
    values, affine = np.asanyarray(image.dataobj), np.asarray(image.affine, np.float64)
    write_volume(target, _as_type(values, dtype), affine, compress)
    return target


def write_volume(target: Path, values: np.ndarray, affine: np.ndarray, compress: bool = True) -> None:
    """Write a volume and re-read it.

    Args:
        target: ends in ``.nrrd``, ``.nii.gz`` or ``.nii``.
        values: ``(x, y, z)``.
        affine: ``(4, 4)``, voxel index to mm in RAS+, its axes at right angles.
        compress: of NRRD.

    Raises:
        WriteError: the file could not be written whole.
    """
    with replacing(target, lambda path: check_read_back(path, values, affine, case_id(target))) as path:
        if target.suffix == ".nrrd":
            SimpleITK.WriteImage(_itk_image(values, affine), str(path), useCompression=compress)
        else:
            nib.save(nifti_image(values, affine), path)


def _itk_image(values: np.ndarray, affine: np.ndarray) -> SimpleITK.Image:
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(values.transpose(2, 1, 0)))
    lps, spacing = _LPS @ affine, np.array(spacing_of(affine))
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    return image


def _as_type(values: np.ndarray, dtype: str | None) -> np.ndarray:
    if dtype is None:
        return values
    typed = values.astype(dtype)
    if not np.array_equal(typed, values):
        raise SettingError(
            f"result_dtype: {dtype} cannot hold values from {values.min()} to {values.max()}; choose a larger type",
            code="label.dtype",
        )
    return typed
