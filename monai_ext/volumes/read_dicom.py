"""Strict reading of one DICOM series folder into one volume in HU.

Attributes are those of DICOM PS3.3: C.7.6.2 (image plane), C.7.6.3 (pixels), C.8.2.1 and C.11.1 (CT, rescale).
Slices are named by their place among the folder's sorted files; file names and tags may identify a patient.
"""

import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.uid import DeflatedExplicitVRLittleEndian

from monai_ext.base import GeometryError, ScanError
from monai_ext.volumes.checks import SHEAR, check_affine, check_shape, check_spacing
from monai_ext.volumes.read_dicom_pixels import stored_values
from monai_ext.volumes.read_itk import LPS_TO_RAS

_BESIDE_SLICES = (".txt", ".md", ".json", ".xml", ".csv", ".html", ".htm", ".pdf", ".png", ".jpg", ".ini")
_HU_TYPES = {"", "HU", "US"}  # "US" is "unspecified", which CT of before 2008 carries
_READ = [
    "SeriesInstanceUID",
    "SeriesNumber",
    "Modality",
    "NumberOfFrames",
    "ImageType",
    "SamplesPerPixel",
    "Rows",
    "Columns",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PixelSpacing",
    "GantryDetectorTilt",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "ModalityLUTSequence",
]


@dataclass(frozen=True)
class _Slice:
    """One file: its data set without pixels, and its place among the sorted files for messages."""

    path: Path
    header: pydicom.Dataset
    place: str


def read_dicom(folder: Path, case: str, *, assume_hu: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Read the one series in a folder, slices sorted along their normal.

    Args:
        folder: holds the slices of one series, and nothing else but notes and hidden files.
        case: the id for messages.
        assume_hu: accept other modalities than CT, and values without a rescale as they are stored.

    Returns:
        The voxels ``(x, y, z)`` float32, rescaled slice by slice, and the ``(4, 4)`` affine in mm, RAS+.

    Raises:
        ScanError: unreadable slices, several series, another modality, no rescale, a localizer.
        GeometryError: slices missing, doubled, of several sizes or orientations, or a tilted gantry.
    """
    # Values that break the standard make pydicom warn, with the values; what matters is checked below.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        slices = [_open(path, place, case) for path, place in _files(folder, case)]
        _check_series(slices, case)
        _check_images(slices, case, assume_hu=assume_hu)
        slices, affine = _stack(slices, case)
        rescale = [_rescale(item, case, assume_hu=assume_hu) for item in slices]
        first = slices[0].header
        shape = check_shape((int(first.Columns), int(first.Rows), len(slices)), case)
        voxels = np.empty(shape, np.float32, order="F")
        for index, (item, (slope, intercept)) in enumerate(zip(slices, rescale, strict=True)):
            try:
                voxels[:, :, index] = stored_values(item.path).T * slope + intercept
            except ScanError as error:
                _refuse(case, f"the pixels of {item.place} {error}", "copy the series again", error.code)
    return voxels, affine


def _files(folder: Path, case: str) -> list[tuple[Path, str]]:
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    files = [
        entry
        for entry in entries
        if entry.is_file() and entry.name != "DICOMDIR" and not entry.name.lower().endswith(_BESIDE_SLICES)
    ]
    folders = sum(entry.is_dir() for entry in entries)
    if folders:
        _refuse(
            case,
            f"the folder holds {folders} other folders",
            "give the folder of one series",
            "dicom.folders",
        )
    if not files:
        _refuse(case, "the folder holds no DICOM slices", "give the folder of one series", "scan.empty")
    return [(path, f"file {number} of {len(files)}") for number, path in enumerate(files, 1)]


def _open(path: Path, place: str, case: str) -> _Slice:
    try:
        meta = pydicom.filereader.read_file_meta_info(path)
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            # A few bytes can inflate to gigabytes before anything is known about them.
            _refuse(
                case, f"{place} is deflated", "store it uncompressed (dcmconv +ti)", "dicom.transfer_syntax"
            )
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_READ)
    except ScanError:
        raise
    except Exception as error:
        reason = "is not a DICOM file" if isinstance(error, InvalidDicomError) else "cannot be parsed"
        raise ScanError(
            f"{case}: {place} {reason}; leave only the whole slices of one series in the folder",
            code="dicom.unreadable",
            case=case,
        ) from None  # pydicom's messages show tags and paths
    return _Slice(path, header, place)


def _value(item: _Slice, keyword: str, case: str) -> Any:
    """Return an attribute, ``None`` when it is absent, empty or not of its type."""
    try:
        value = item.header.get(keyword)
    except Exception:
        # pydicom converts on access and raises whatever the bytes provoke.
        _refuse(
            case, f"{keyword} of {item.place} cannot be parsed", "export the series again", "dicom.unreadable"
        )
    return None if value is None or value == "" else value


def _numbers(item: _Slice, keyword: str, count: int, case: str) -> np.ndarray:
    value = _value(item, keyword, case)
    try:
        numbers = np.array([float(number) for number in np.atleast_1d(value)])
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise GeometryError(
            f"{case}: {item.place} has no usable {keyword}; export the series again with it",
            code="dicom.geometry",
            case=case,
        )
    return numbers


def _check_series(slices: list[_Slice], case: str) -> None:
    # De-identified series may have empty UIDs; their number then has to tell series apart.
    series = Counter(
        str(_value(item, "SeriesInstanceUID", case) or f"number {_value(item, 'SeriesNumber', case)}")
        for item in slices
    )
    if len(series) > 1:
        sizes = ", ".join(str(size) for _, size in series.most_common(10))
        _refuse(
            case,
            f"the folder mixes {len(series)} series (of {sizes} files)",
            "sort them into one folder a series",
            "dicom.series",
        )


def _check_images(slices: list[_Slice], case: str, *, assume_hu: bool) -> None:
    """Refuse what is no plain slice of CT, and slices that do not fit each other."""
    for item in slices:
        modality = _value(item, "Modality", case)
        if modality != "CT" and not assume_hu:
            known = (
                str(modality)
                if str(modality) in ("MR", "PT", "US", "NM", "CR", "DX", "MG", "SEG", "SR")
                else "not CT"
            )
            _refuse(
                case,
                f"the modality of {item.place} is {known}",
                "give CT, or pass --assume-hu",
                "dicom.modality",
            )
        if int(_value(item, "NumberOfFrames", case) or 1) > 1:
            _refuse(
                case, f"{item.place} is multi-frame", "convert it to one file a slice", "dicom.multiframe"
            )
        kind = np.atleast_1d(_value(item, "ImageType", case) or "")
        if "LOCALIZER" in map(str, kind):
            _refuse(
                case,
                f"{item.place} is a localizer",
                "take the localizers out of the folder",
                "dicom.localizer",
            )
        if _value(item, "SamplesPerPixel", case) not in (None, 1):
            _refuse(
                case, f"{item.place} is in colour", "give slices of one number a pixel", "scan.not_scalar"
            )
        for keyword in ("Rows", "Columns"):
            if not isinstance(_value(item, keyword, case), int):
                _refuse(case, f"{item.place} has no pixels", "take it out of the folder", "dicom.no_pixels")
    sizes = Counter((int(item.header.Columns), int(item.header.Rows)) for item in slices)
    if len(sizes) > 1:
        listed = " and ".join(f"{x}x{y}" for x, y in sizes)
        raise GeometryError(
            f"{case}: the slices have several sizes, {listed}; sort them into one folder a series",
            code="dicom.sizes",
            case=case,
        )


def _stack(slices: list[_Slice], case: str) -> tuple[list[_Slice], np.ndarray]:
    """Sort the slices along their normal and return them with the affine of the whole stack."""
    axes = np.array([_numbers(item, "ImageOrientationPatient", 6, case) for item in slices])
    spacings = np.array([_numbers(item, "PixelSpacing", 2, case) for item in slices])
    positions = np.array([_numbers(item, "ImagePositionPatient", 3, case) for item in slices])
    if np.abs(axes - axes[0]).max() > SHEAR:
        _bad_stack(
            case, "the slices are not parallel", "sort them into one folder a series", "dicom.orientations"
        )
    if np.abs(spacings - spacings[0]).max() > 1e-3 * spacings[0].min():
        _bad_stack(
            case, "the slices differ in pixel spacing", "sort them into one folder a series", "dicom.spacings"
        )
    across, down = axes[0, :3], axes[0, 3:]
    lengths = np.linalg.norm(axes[0].reshape(2, 3), axis=1)
    if np.abs(lengths - 1).max() > SHEAR or abs(across @ down) > SHEAR:
        _bad_stack(case, "rows and columns are not at right angles", "export it again", "dicom.orientation")
    normal = np.cross(across, down)
    order = np.argsort(positions @ normal, kind="stable")
    slices, positions = [slices[index] for index in order], positions[order]
    step = _step(positions, normal, case)
    _check_tilt(slices[0], axes[0], normal, step, case)
    check_spacing((spacings[0, 1], spacings[0, 0], np.linalg.norm(step)), case)
    affine = np.eye(4)
    # PixelSpacing gives the distance between rows first, so along y.
    affine[:3, 0], affine[:3, 1] = across * spacings[0, 1], down * spacings[0, 0]
    affine[:3, 2], affine[:3, 3] = step, positions[0]
    affine = LPS_TO_RAS @ affine
    check_affine(affine, case)
    return slices, affine


def _step(positions: np.ndarray, normal: np.ndarray, case: str) -> np.ndarray:
    """Return the vector in mm from each slice to the next, the same for all or refused."""
    if len(positions) < 2:
        _bad_stack(case, "one slice is no volume", "give the whole series", "scan.dimensions")
    heights = positions @ normal
    gaps = np.diff(heights)
    doubled = int(np.count_nonzero(gaps < 1e-3))
    if doubled:
        _bad_stack(
            case,
            f"{doubled} slices lie where another one does",
            "sort out duplicates or phases into one folder each",
            "dicom.duplicates",
        )
    usual = float(np.median(gaps))
    tolerance = 0.01 + 0.01 * usual  # positions are decimal strings, often of two digits
    missing = int(np.sum(np.rint(gaps / usual)[gaps > 1.5 * usual] - 1))
    if missing:
        _bad_stack(
            case,
            f"{missing} slices are missing between others {usual:g} mm apart",
            "find them",
            "dicom.missing",
        )
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    even = heights[0] + np.arange(len(heights)) * (step @ normal)
    if np.abs(gaps - usual).max() > 2 * tolerance or np.abs(heights - even).max() > tolerance:
        _bad_stack(
            case,
            f"slices are from {gaps.min():g} to {gaps.max():g} mm apart",
            "resample it to even spacing",
            "dicom.spacing_varies",
        )
    grid = positions[0] + np.arange(len(positions))[:, None] * step
    if np.abs(positions - grid).max() > tolerance:
        _bad_stack(case, "the slices do not lie on a straight line", "export it again", "dicom.positions")
    return step


def _check_tilt(item: _Slice, axes: np.ndarray, normal: np.ndarray, step: np.ndarray, case: str) -> None:
    shear = float(np.degrees(np.arctan2(np.linalg.norm(np.cross(normal, step)), normal @ step)))
    tag = _value(item, "GantryDetectorTilt", case)
    told = abs(float(tag)) if tag is not None else 0.0
    axial = np.abs(normal[2]) > 1 - SHEAR**2
    # A tilt that the tag tells and that neither positions nor orientation show has been lost on the way.
    tilt = shear if shear > np.degrees(SHEAR) else told if told > 0.1 and axial else 0.0
    if tilt:
        _bad_stack(
            case, f"the gantry was tilted by {tilt:.1f} degrees", "resample it to right angles", "dicom.tilt"
        )


def _rescale(item: _Slice, case: str, *, assume_hu: bool) -> tuple[float, float]:
    slope, intercept = _value(item, "RescaleSlope", case), _value(item, "RescaleIntercept", case)
    kind = str(_value(item, "RescaleType", case) or "")
    if "ModalityLUTSequence" in item.header:
        _refuse(
            case, f"{item.place} has a modality LUT", "export it with slope and intercept", "dicom.rescale"
        )
    if kind not in _HU_TYPES and not assume_hu:
        _refuse(
            case, f"{item.place} is rescaled to another unit than HU", "give CT in HU", "dicom.rescale_type"
        )
    if slope is None and intercept is None and assume_hu:
        return 1.0, 0.0
    try:
        numbers = float(slope), float(intercept)
    except (TypeError, ValueError):
        _refuse(
            case,
            f"{item.place} has no rescale slope and intercept",
            "export it with them, or pass --assume-hu if the stored values are HU",
            "dicom.rescale",
        )
    if not np.isfinite(numbers).all() or numbers[0] == 0:
        _refuse(
            case,
            f"{item.place} has rescale slope {numbers[0]:g} and intercept {numbers[1]:g}",
            "export it again",
            "dicom.rescale",
        )
    return numbers


def _refuse(case: str, what: str, way_out: str, code: str) -> NoReturn:
    raise ScanError(f"{case}: {what}; {way_out}", code=code, case=case) from None


def _bad_stack(case: str, what: str, way_out: str, code: str) -> NoReturn:
    raise GeometryError(f"{case}: {what}; {way_out}", code=code, case=case)
