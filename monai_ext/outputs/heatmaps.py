"""Maps of anomaly as files: NIfTI on a scan's own grid, float TIFF and PNG of a picture's size."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK
from PIL import Image, PngImagePlugin, TiffImagePlugin

from monai_ext.base import WriteError
from monai_ext.volumes import affine_of_itk, check_affine, largest_shift_mm, nifti_image, quiet_itk, spacing_of

_DESCRIPTION = 270  # TIFF's ImageDescription


def save_heat_volume(path: Path, odds: np.ndarray, affine: np.ndarray, description: str, case: str) -> None:
    """Save a float32 NIfTI.

    Args:
        path: ends in ``.nii.gz``.
        odds: ``(x, y, z)``.
        affine: ``(4, 4)``, voxel index to mm in RAS+.
        description: at most 79 letters, for the header.
        case: the id for messages.

    Raises:
        GeometryError: an affine that NIfTI cannot hold.
    """
    check_affine(affine, case)
    image = nifti_image(np.asarray(odds, np.float32), affine)
    image.header["descrip"] = description.encode("ascii", "replace")[:79]
    nib.save(image, path)


def heat_volume_check(odds: np.ndarray, affine: np.ndarray, case: str) -> Callable[[Path], None]:
    """Return what re-reads such a file with SimpleITK and raises ``WriteError`` unless every voxel is as meant."""

    def check(path: Path) -> None:
        try:
            with quiet_itk():
                image = SimpleITK.ReadImage(str(path))
            read = SimpleITK.GetArrayViewFromImage(image).transpose(2, 1, 0)
            same = read.shape == odds.shape and np.array_equal(read, odds)
            # NIfTI holds float32: 1e-7 of an origin of 1 m, and what a quaternion near a half turn loses.
            near = same and largest_shift_mm(odds.shape, affine_of_itk(image), affine) <= 0.05 * min(spacing_of(affine))
        except RuntimeError:
            same = near = False
        if not near:
            raise WriteError(
                f"{case}: SimpleITK reads the map {'in another place' if same else 'otherwise'} than it was written; "
                "check the disk and that the scan's axes are at right angles",
                code="write.verify",
                case=case,
            )

    return check


def save_heat_picture(path: Path, odds: np.ndarray, description: str) -> None:
    """Save a float32 TIFF ``(h, w)`` with a description."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[_DESCRIPTION] = description.encode("ascii", "replace").decode()
    Image.fromarray(np.ascontiguousarray(odds, dtype=np.float32)).save(path, format="TIFF", tiffinfo=tags)


def save_mask_picture(path: Path, mask: np.ndarray, description: str) -> None:
    """Save a PNG of 0 and 255, ``(h, w)``, with a description."""
    text = PngImagePlugin.PngInfo()
    text.add_text("Description", description)
    Image.fromarray(mask.astype(np.uint8) * 255).save(path, format="PNG", pnginfo=text)


def picture_check(values: np.ndarray, case: str) -> Callable[[Path], None]:
    """Return what re-reads a picture file and raises ``WriteError`` unless every pixel is as meant."""

    def check(path: Path) -> None:
        try:
            with Image.open(path) as image:
                read = np.asarray(image)
        except (OSError, SyntaxError):
            read = np.empty(0)
        if not np.array_equal(read, values):
            raise WriteError(
                f"{case}: the picture reads back otherwise than it was written; check the disk and run again",
                code="write.verify",
                case=case,
            )

    return check
