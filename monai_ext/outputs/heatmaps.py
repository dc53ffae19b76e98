"""Maps of anomaly as files: NIfTI on a scan's own grid, float TIFF and PNG of a picture's size."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image, PngImagePlugin, TiffImagePlugin

from monai_ext.base import WriteError
from monai_ext.volumes import check_affine, nifti_image

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
