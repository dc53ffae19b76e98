"""Reading scans and labels in this process: what ``read_scan`` has the reading process do."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np

from monai_ext.base import InputError, LabelError, case_id
from monai_ext.volumes.check_values import check_hu, label_ids
from monai_ext.volumes.checks import check_same_grid
from monai_ext.volumes.dicom import open_series
from monai_ext.volumes.dicom_places import is_series
from monai_ext.volumes.read_itk import ITK_ENDINGS, read_itk, read_itk_header
from monai_ext.volumes.read_nifti import NIFTI_ENDINGS, read_nifti, read_nifti_header
from monai_ext.volumes.refusals import refuse, refuse_missing, refusing_closed_files
from monai_ext.volumes.relaxing import Rules
from monai_ext.volumes.scan import Kind, Scan, ScanHeader


def scan_here(
    path: Path,
    case: str | None,
    series: str | None,
    *,
    assume_hu: bool,
    relax: Sequence[str] = (),
    convert: bool = True,
) -> Scan:
    """Read a CT scan; ``case`` is ``None`` where only the file can tell it.

    Without ``convert`` the voxels may be of the file's own type, for a caller who makes them float32.
    """
    if series is not None or is_series(path):
        found = open_series(path, case, series=series, assume_hu=assume_hu)
        try:
            return found.read()
        finally:
            found.close()
    case = case or case_id(path)
    kind, rules = kind_of(path, case), Rules(relax)
    with refusing_closed_files(case):
        if kind == "nifti":
            voxels, affine = read_nifti(path, case, rules)
        else:
            voxels, affine = read_itk(path, case, rules, any_modality=assume_hu)
    voxels = check_hu(voxels, case, assume_hu=assume_hu, convert=convert)
    return Scan(voxels, affine, case, Path(path.name), kind, rules.used)


def header_here(path: Path, case: str | None, *, assume_hu: bool, relax: Sequence[str] = ()) -> ScanHeader:
    """Check all of a scan but its voxels."""
    if is_series(path):
        series = open_series(path, case, assume_hu=assume_hu)
        series.close()
        return ScanHeader(series.shape, series.affine, series.case, "dicom")
    case = case or case_id(path)
    kind, rules = kind_of(path, case), Rules(relax)
    with refusing_closed_files(case):
        if kind == "nifti":
            shape, affine = read_nifti_header(path, case, rules)
        else:
            shape, affine = read_itk_header(path, case, rules, any_modality=assume_hu)
    return ScanHeader(shape, affine, case, kind, rules.used)


def labels_here(
    path: Path,
    case: str | None,
    like: Scan | ScanHeader | None,
    classes: Collection[int] | None,
    relax: Sequence[str] = (),
) -> Scan:
    """Read a label volume."""
    # With a case of its own the scan is named, which may be sound: say that its labels are meant.
    told = case_id(path) if case is None else f"labels of {case}"
    rules = Rules(relax)
    try:
        if is_series(path):
            raise LabelError(
                f"{told}: a DICOM series holds no label ids; give the labels as NIfTI, NRRD or MetaImage",
                code="label.dicom",
            )
        kind = kind_of(path, told)
        with refusing_closed_files(told):
            if kind == "nifti":
                voxels, affine = read_nifti(path, told, rules)
            else:
                voxels, affine = read_itk(path, told, rules, any_modality=True)
    except InputError as error:
        error.case = case or told
        raise
    case = case or told
    labels = Scan(label_ids(voxels, case, classes), affine, case, Path(path.name), kind, rules.used)
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


def kind_of(path: Path, case: str) -> Kind:
    """Return the family of formats of a file, by its name.

    Raises:
        ScanError: there is no such file, it is a pipe or device, or it is none of those read here.
    """
    with refusing_closed_files(case):  # a name too long, or a parent folder that may not be entered
        there = path.is_file()
    if not there:
        refuse_missing(case, path)
    name = path.name.lower()
    if name.endswith(NIFTI_ENDINGS):
        return "nifti"
    if name.endswith(ITK_ENDINGS):
        return "itk"
    endings = ", ".join(NIFTI_ENDINGS + ITK_ENDINGS)
    way_out = f"give {endings}, or the folder or zip of one DICOM series"
    refuse(case, "its name ends in none of the formats read here", way_out, "scan.format")
