"""Reading back what was written: by another library, for a writer's mistake would also be its reader's."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from monai_ext.base import WriteError
from monai_ext.volumes.checks import largest_shift_mm, spacing_of
from monai_ext.volumes.read_itk import affine_of_itk, quiet_itk


def check_read_back(path: Path, voxels: npt.NDArray[np.generic], affine: npt.NDArray[np.floating], case: str) -> None:
    """Read a volume with SimpleITK and compare type, shape, place and every voxel with what was meant.

    Args:
        path: NIfTI, as nibabel wrote it, or NRRD.
        voxels: ``(x, y, z)``.
        affine: ``(4, 4)``, voxel index to mm in RAS+.
        case: the id for the message.

    Raises:
        WriteError: they differ; the file must not be kept.
    """
    import SimpleITK  # not above: see `read_itk`

    what = None
    try:
        with quiet_itk():
            image = SimpleITK.ReadImage(str(path))
        read = SimpleITK.GetArrayViewFromImage(image).transpose(2, 1, 0)
        if read.shape != voxels.shape or read.dtype != voxels.dtype or not _equal(read, voxels):
            what = "other voxels than were written"
        # NIfTI holds float32: 1e-7 of an origin of 1 m, and what a quaternion near a half turn loses.
        elif largest_shift_mm(voxels.shape, affine_of_itk(image), affine) > 0.05 * min(spacing_of(affine)):
            what = "another place than was written"
    except (RuntimeError, ValueError):
        what = "a file that it cannot open"
    if what:
        raise WriteError(
            f"{case}: SimpleITK reads {what}, so the file was not kept; "
            "check the disk and that the scan's axes are at right angles",
            code="write.verify",
            case=case,
        ) from None


def _equal(one: npt.NDArray[np.generic], other: npt.NDArray[np.generic]) -> bool:
    # Plane by plane: all at once, what is compared takes a byte a voxel more.
    return all(np.array_equal(one[:, :, z], other[:, :, z]) for z in range(one.shape[2]))
