"""The one way into the package for scans and labels: strict, validated before anything is allocated.

Files are read in a process of limited time and memory, see ``reading_limits``.
"""

import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from monai_ext.base import case_id
from monai_ext.volumes.check_values import is_whole
from monai_ext.volumes.dicom_places import case_of, is_series, picked
from monai_ext.volumes.read_here import header_here, labels_here, scan_here
from monai_ext.volumes.reading_limits import reads_inside
from monai_ext.volumes.reading_pool import ask
from monai_ext.volumes.reading_values import header_of, header_values, scan_of, trusting_nothing
from monai_ext.volumes.relaxing import check_relax
from monai_ext.volumes.scan import Scan, ScanHeader


def read_scan(
    path: str | os.PathLike[str],
    *,
    assume_hu: bool = False,
    case: str | None = None,
    series: str | int | None = None,
    relax: str | Collection[str] = (),
    narrow: bool = False,
) -> Scan:
    """Read a CT scan, or refuse it with one sentence that says why and what to do.

    No reader falls back to another one, and what readers are known to disagree about is refused.

    Args:
        path: a ``.nii``, ``.nii.gz``, ``.nrrd``, ``.mha`` or ``.mhd`` file, or a DICOM series folder or zip, with
            a ``#`` and the series where it holds several, see `open_series`.
        assume_hu: take the values for HU although the modality, the rescale or their range does not say so.
        case: the id for messages and outputs; the base name by default.
        series: the DICOM series to pick, instead of in the path.
        relax: rules to relax, of `RELAXABLE`; those that the scan breaks are in its ``relaxed``.
        narrow: hand over int16 instead of float32 where every HU is a whole number: half the memory.

    Raises:
        ScanError: missing, closed, damaged, not a 3D scalar volume, not finite, constant, or not in HU; reading it
            crashes, hangs, or takes more memory than it may.
        GeometryError: spacing, orientation or slice positions are absent, impossible or contradictory.
        SettingError: ``relax`` names no rule.
    """
    place, rules = Path(os.path.abspath(path)), check_relax(relax)
    pick = None if series is None else str(series)
    if reads_inside():
        scan = scan_here(place, case, pick, assume_hu=assume_hu, relax=rules, convert=False)
        dtype = np.int16 if narrow and is_whole(scan.voxels) else np.float32
        return replace(scan, voxels=np.asarray(scan.voxels, dtype))
    told = {"path": str(place), "case": case, "series": pick, "assume_hu": assume_hu, "relax": rules, "narrow": narrow}
    dicom = series is not None or is_series(place)
    name = case or _case_of(place, dicom)
    values, voxels = ask("read_scan", name, told, scratch=dicom)
    with trusting_nothing(name):
        return scan_of(values, voxels, "float32", *(["int16"] if narrow else []))


def read_header(
    path: str | os.PathLike[str],
    *,
    assume_hu: bool = False,
    case: str | None = None,
    relax: str | Collection[str] = (),
) -> ScanHeader:
    """Check a scan as `read_scan` does, but for its voxels: shape, spacing, orientation, and whether it is whole.

    Of gzipped NIfTI files only the start is read, so that one that ends too early is not noticed; of DICOM series
    the headers of all slices.

    Args:
        path: as of `read_scan`.
        assume_hu: accept DICOM series of other modalities than CT, and those without a rescale.
        case: the id for messages; the base name by default.
        relax: as of `read_scan`.

    Raises:
        ScanError, GeometryError, SettingError: as of `read_scan`.
    """
    place, rules = Path(os.path.abspath(path)), check_relax(relax)
    if reads_inside():
        return header_here(place, case, assume_hu=assume_hu, relax=rules)
    dicom = is_series(place)
    name = case or _case_of(place, dicom)
    told = {"path": str(place), "case": case, "assume_hu": assume_hu, "relax": rules}
    values, _ = ask("read_header", name, told, scratch=dicom)
    with trusting_nothing(name):
        return header_of(values)


def read_labels(
    path: str | os.PathLike[str],
    *,
    like: Scan | ScanHeader | None = None,
    classes: Collection[int] | None = None,
    case: str | None = None,
    relax: str | Collection[str] = (),
) -> Scan:
    """Read a label volume: whole numbers, 0 for background.

    Args:
        path: a NIfTI, NRRD or MetaImage file; floating-point files are taken when every value is whole.
        like: the image that it labels, or its header, whose grid it must have; axes that merely run the other way, as
            converters of DICOM leave them, are turned to those of the image.
        classes: the ids that may occur beside 0; any by default.
        case: the id for messages; the base name by default.
        relax: as of `read_scan`.

    Returns:
        A scan whose ``voxels`` are int32 ids.

    Raises:
        ScanError: the file cannot be read, or not within the limits of time and memory.
        LabelError: a value is not a whole number, or not one of the classes.
        GeometryError: shape or affine differ from those of ``like``.
        SettingError: ``relax`` names no rule.
    """
    place, rules = Path(os.path.abspath(path)), check_relax(relax)
    if reads_inside():
        return labels_here(place, case, like, classes, rules)
    told = {
        "path": str(place),
        "case": case,
        "like": None if like is None else header_values(like),
        "classes": None if classes is None else [int(number) for number in classes],
        "relax": rules,
    }
    name = case or case_id(place)
    values, voxels = ask("read_labels", name, told)
    with trusting_nothing(name):
        return scan_of(values, voxels, "int32")


def _case_of(path: Path, dicom: bool) -> str:
    return case_of(picked(path)[0]) if dicom else case_id(path)
