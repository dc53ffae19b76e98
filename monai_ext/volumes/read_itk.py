"""Strict reading of NRRD and MetaImage files: our own look at the header, then SimpleITK.

SimpleITK zero-fills truncated data, follows detached data files anywhere and takes the identity where no
orientation is written; after the look at the header it cannot. It is loaded where it is used, for it takes 90 MB, and
a process that has scans read by another one never uses it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from monai_ext.volumes.checks import LPS_TO_RAS, largest_shift_mm
from monai_ext.volumes.itk_meta import check_meta
from monai_ext.volumes.itk_nrrd import check_nrrd
from monai_ext.volumes.refusals import refuse_damaged, refuse_geometry
from monai_ext.volumes.relaxing import Rules

if TYPE_CHECKING:
    import SimpleITK

ITK_ENDINGS = (".nrrd", ".mha", ".mhd")


def read_itk(path: Path, case: str, rules: Rules, *, any_modality: bool) -> tuple[np.ndarray, np.ndarray]:
    """Read a NRRD or MetaImage file.

    Args:
        path: the file.
        case: the id for messages.
        rules: those of the scan.
        any_modality: take other modalities than CT, as of labels.

    Returns:
        The voxels ``(x, y, z)`` and the ``(4, 4)`` affine in mm, RAS+.

    Raises:
        ScanError: damaged, truncated, of another modality, or of a type that is no scalar volume.
        GeometryError: shape, spacing or orientation are absent, impossible or contradictory.
    """
    import SimpleITK

    image, affine = _opened(path, case, rules, any_modality=any_modality, whole=True)
    return SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0), affine


def read_itk_header(
    path: Path, case: str, rules: Rules, *, any_modality: bool
) -> tuple[tuple[int, int, int], np.ndarray]:
    """Check the header of a NRRD or MetaImage file and the length of its data as `read_itk` does.

    Returns:
        The shape in voxels and the ``(4, 4)`` affine in mm, RAS+.

    Raises:
        ScanError, GeometryError: as of `read_itk`.
    """
    image, affine = _opened(path, case, rules, any_modality=any_modality, whole=False)
    return image.GetSize(), affine


def _opened(path: Path, case: str, rules: Rules, *, any_modality: bool, whole: bool) -> tuple[Any, np.ndarray]:
    """Return SimpleITK's image, or its reader of the header alone, which tells size and spacing too."""
    import SimpleITK

    nrrd = path.name.lower().endswith(".nrrd")
    header = check_nrrd(path, case) if nrrd else check_meta(path, case, rules, any_modality=any_modality)
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("NrrdImageIO" if nrrd else "MetaImageIO")  # named, so that no other one is tried
    reader.SetFileName(str(path))
    try:
        with quiet_itk():
            if not whole:
                reader.ReadImageInformation()
            image = reader.Execute() if whole else reader
    except RuntimeError as error:
        if "memory" in str(error):  # "Failed to allocate memory for image"
            raise MemoryError from None
        refuse_damaged(case, "SimpleITK cannot read it or its axes are not at right angles")
    affine = affine_of_itk(image)
    # Both come of the same decimal strings, which SimpleITK turns into lengths and directions first.
    if image.GetSize() != header.shape or not largest_shift_mm(header.shape, affine, header.affine) < 0.01:
        what = f"SimpleITK finds {image.GetSize()} voxels of {image.GetSpacing()} mm elsewhere than the header says"
        refuse_geometry(case, what, "export it again", "scan.spacing_contradiction")
    return image, affine


def affine_of_itk(image: "SimpleITK.Image") -> np.ndarray:
    """Return the ``(4, 4)`` affine, voxel index to mm in RAS+, of a 3D SimpleITK image or reader (in LPS+)."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return LPS_TO_RAS @ affine


@contextmanager
def quiet_itk() -> Iterator[None]:
    """Keep ITK from printing warnings, which show whole paths and DICOM tags."""
    import SimpleITK

    before = SimpleITK.ProcessObject.GetGlobalWarningDisplay()
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        SimpleITK.ProcessObject.SetGlobalWarningDisplay(before)
