"""The one way into the package for scans and labels: strict, validated before anything is allocated."""

import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np

from monai_ext.base import InputError, LabelError, case_id
from monai_ext.volumes.check_values import check_hu, label_ids
from monai_ext.volumes.checks import check_same_grid
from monai_ext.volumes.dicom import open_series
from monai_ext.volumes.dicom_places import case_of, is_series, picked
from monai_ext.volumes.read_itk import ITK_ENDINGS, read_itk, read_itk_header
from monai_ext.volumes.read_nifti import NIFTI_ENDINGS, read_nifti, read_nifti_header
from monai_ext.volumes.refusals import refuse, refusing_closed_files
from monai_ext.volumes.scan import Kind, Scan, ScanHeader


def read_scan(
    path: str | os.PathLike[str],
    *,
    assume_hu: bool = False,
    case: str | None = None,
    series: str | int | None = None,
) -> Scan:
    """Read a CT scan, or refuse it with one sentence that says why and what to do.

    No reader falls back to another one, and what readers are known to disagree about is refused.

    Args:
        path: a ``.nii``, ``.nii.gz``, ``.nrrd``, ``.mha`` or ``.mhd`` file, or a DICOM series folder or zip, with
            a ``#`` and the series where it holds several, see `open_series`.
        assume_hu: take the values for HU although the modality, the rescale or their range does not say so.
        case: the id for messages and outputs; the base name by default.
        series: the DICOM series to pick, instead of in the path.

    Raises:
        ScanError: missing, closed, damaged, not a 3D scalar volume, not finite, constant, or not in HU.
        GeometryError: spacing, orientation or slice positions are absent, impossible or contradictory.
    """
    if series is not None or is_series(Path(os.path.abspath(path))):
        found = open_series(path, case, series=series, assume_hu=assume_hu)
        try:
            return found.read()
        finally:
            found.close()
    path, case, kind = _place(path, case)
    with refusing_closed_files(case):
        voxels, affine = (read_nifti if kind == "nifti" else read_itk)(path, case)
    voxels = check_hu(voxels, case, assume_hu=assume_hu)
    return Scan(voxels, affine, case, Path(path.name), kind)


def read_header(path: str | os.PathLike[str], *, assume_hu: bool = False, case: str | None = None) -> ScanHeader:
    """Check a scan as `read_scan` does, but for its voxels: shape, spacing, orientation, and whether it is whole.

    Of gzipped NIfTI files only the start is read, so that one that ends too early is not noticed; of DICOM series
    the headers of all slices.

    Args:
        path: as of `read_scan`.
        assume_hu: accept DICOM series of other modalities than CT, and those without a rescale.
        case: the id for messages; the base name by default.

    Raises:
        ScanError, GeometryError: as of `read_scan`.
    """
    if is_series(Path(os.path.abspath(path))):
        series = open_series(path, case, assume_hu=assume_hu)
        series.close()
        return ScanHeader(series.shape, series.affine, series.case, "dicom")
    path, case, kind = _place(path, case)
    with refusing_closed_files(case):
        shape, affine = (read_nifti_header if kind == "nifti" else read_itk_header)(path, case)
    return ScanHeader(shape, affine, case, kind)


def read_labels(
    path: str | os.PathLike[str],
    *,
    like: Scan | ScanHeader | None = None,
    classes: Collection[int] | None = None,
    case: str | None = None,
) -> Scan:
    """Read a label volume: whole numbers, 0 for background.

    Args:
        path: a NIfTI, NRRD or MetaImage file; floating-point files are taken when every value is whole.
        like: the image that it labels, or its header, whose grid it must have; axes that merely run the other way, as
            converters of DICOM leave them, are turned to those of the image.
        classes: the ids that may occur beside 0; any by default.
        case: the id for messages; the base name by default.

    Returns:
        A scan whose ``voxels`` are int32 ids.

    Raises:
        ScanError: the file cannot be read.
        LabelError: a value is not a whole number, or not one of the classes.
        GeometryError: shape or affine differ from those of ``like``.
    """
    # With a case of its own the scan is named, which may be sound: say that its labels are meant.
    told = None if case is None else f"labels of {case}"
    try:
        path, told, kind = _place(path, told)
        if kind == "dicom":
            raise LabelError(
                f"{told}: a DICOM series holds no label ids; give the labels as NIfTI, NRRD or MetaImage",
                code="label.dicom",
            )
        with refusing_closed_files(told):
            voxels, affine = (read_nifti if kind == "nifti" else read_itk)(path, told)
    except InputError as error:
        error.case = case or told or case_id(path)
        raise
    case = case or told
    labels = Scan(label_ids(voxels, case, classes), affine, case, Path(path.name), kind)
    if like is not None:
        labels = _along(labels, like.affine)
        check_same_grid(labels.shape, labels.affine, like.shape, like.affine, case, like.case)
    return labels


def _along(labels: Scan, affine: np.ndarray) -> Scan:
    """Flip and swap the axes of the labels, so that they run as those of the affine; no value changes."""
    turn = nib.orientations.io_orientation(np.linalg.inv(affine) @ labels.affine)
    voxels = nib.orientations.apply_orientation(labels.voxels, turn)
    back = nib.orientations.inv_ornt_aff(turn, labels.voxels.shape)
    return replace(labels, voxels=voxels, affine=labels.affine @ back)


def _place(path: str | os.PathLike[str], case: str | None) -> tuple[Path, str, Kind]:
    # "." and ".." have no base name of their own; a link keeps its name.
    path = Path(os.path.abspath(path))
    if is_series(path):
        return path, case or case_of(picked(path)[0]), "dicom"
    case = case or case_id(path)
    with refusing_closed_files(case):  # a name too long, or a parent folder that may not be entered
        there = path.is_file()
    if not there:
        refuse(case, "there is no such file or folder", "check the path", "scan.missing")
    name = path.name.lower()
    if name.endswith(NIFTI_ENDINGS):
        return path, case, "nifti"
    if name.endswith(ITK_ENDINGS):
        return path, case, "itk"
    endings = ", ".join(NIFTI_ENDINGS + ITK_ENDINGS)
    way_out = f"give {endings}, or the folder or zip of one DICOM series"
    refuse(case, "its name ends in none of the formats read here", way_out, "scan.format")
