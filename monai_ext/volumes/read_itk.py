"""Strict reading of NRRD and MetaImage files: our own look at the header, then SimpleITK."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from monai_ext.base import GeometryError, ScanError
from monai_ext.volumes.checks import check_affine
from monai_ext.volumes.itk_headers import check_meta, check_nrrd

ITK_ENDINGS = (".nrrd", ".mha", ".mhd")

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_itk(path: Path, case: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a NRRD or MetaImage file.

    Returns:
        The voxels ``(x, y, z)`` and the ``(4, 4)`` affine in mm, RAS+.

    Raises:
        ScanError: damaged, truncated, or of a type that is no scalar volume.
        GeometryError: shape, spacing or orientation are absent or impossible.
    """
    nrrd = path.name.lower().endswith(".nrrd")
    header = (check_nrrd if nrrd else check_meta)(path, case)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NrrdImageIO" if nrrd else "MetaImageIO")  # named, so that no other one is tried
    reader.SetFileName(str(path))
    try:
        with quiet_itk():
            image = reader.Execute()
    except RuntimeError:
        # Without its cause: ITK's message shows the whole path.
        raise ScanError(
            f"{case}: SimpleITK cannot read it; check that its axes are at right angles, or export it again",
            code="scan.damaged",
            case=case,
        ) from None
    affine = affine_of_itk(image)
    check_affine(affine, case)
    if image.GetSize() != header.shape or not np.allclose(image.GetSpacing(), header.spacing_mm, rtol=1e-6):
        raise GeometryError(
            f"{case}: SimpleITK reads {image.GetSize()} voxels of {image.GetSpacing()} mm where the header "
            f"says {header.shape} of {header.spacing_mm} mm; export it again",
            code="scan.spacing_contradiction",
            case=case,
        )
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0), affine


def affine_of_itk(image: sitk.Image) -> np.ndarray:
    """Return the ``(4, 4)`` affine, voxel index to mm in RAS+, of a 3D SimpleITK image (which is in LPS+)."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return LPS_TO_RAS @ affine


@contextmanager
def quiet_itk() -> Iterator[None]:
    """Keep ITK from printing warnings, which show whole paths and DICOM tags."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)
