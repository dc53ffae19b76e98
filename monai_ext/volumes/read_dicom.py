"""Strict reading of one DICOM series folder into one volume in HU.

Attributes are those of DICOM PS3.3: image plane C.7.6.2, pixels C.7.6.3, CT C.8.2.1, rescale C.11.1.
"""

import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from monai_ext.base import ScanError
from monai_ext.volumes.checks import check_shape
from monai_ext.volumes.dicom_pixels import stored_values
from monai_ext.volumes.dicom_slice import DicomSlice, open_slice
from monai_ext.volumes.dicom_stack import stacked
from monai_ext.volumes.refusals import refuse, refuse_geometry

_BESIDE_SLICES = (".txt", ".md", ".json", ".xml", ".csv", ".html", ".htm", ".pdf", ".png", ".jpg", ".ini")
_HU_TYPES = {"HU", "US"}  # "US" is "unspecified", in CT of before 2008


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
    # Values that break the standard make pydicom warn, quoting them; what matters is checked below.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        slices = _one_series(_files(folder, case), case)
        for item in slices:
            _check_slice(item, assume_hu=assume_hu)
        shape = _shape(slices, case)
        slices, affine = stacked(slices, case)
        rescale = [_rescale(item, assume_hu=assume_hu) for item in slices]
        voxels = np.empty(shape, np.float32, order="F")
        for index, (item, (slope, intercept)) in enumerate(zip(slices, rescale, strict=True)):
            try:
                voxels[:, :, index] = stored_values(item.path).T * slope + intercept
            except ScanError as error:
                item.refuse(f"has pixels that {error}", "copy or export the series again", error.code)
    return voxels, affine


def _files(folder: Path, case: str) -> list[Path]:
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    folders = sum(entry.is_dir() for entry in entries)
    if folders:
        what = f"the folder holds {folders} folder{'s' if folders > 1 else ''}"
        refuse(case, what, "give the folder of one DICOM series", "dicom.folders")
    files = [entry for entry in entries if entry.name != "DICOMDIR" and not entry.name.lower().endswith(_BESIDE_SLICES)]
    if not files:
        refuse(case, "the folder holds no scan", "give the folder of one DICOM series", "scan.empty")
    return files


def _one_series(files: list[Path], case: str) -> list[DicomSlice]:
    slices = [open_slice(path, f"file {number} of {len(files)}", case) for number, path in enumerate(files, 1)]
    # De-identified series may have empty UIDs; their number then has to tell series apart.
    series = Counter(str(item.value("SeriesInstanceUID") or f"number {item.value('SeriesNumber')}") for item in slices)
    if len(series) > 1:
        sizes = ", ".join(str(size) for _, size in series.most_common(10))
        what = f"the folder mixes {len(series)} series (of {sizes} files)"
        refuse(case, what, "sort them into one folder a series", "dicom.series")
    return slices


def _check_slice(item: DicomSlice, *, assume_hu: bool) -> None:
    """Refuse what is no plain slice of CT."""
    if item.words("Modality") != ["CT"] and not assume_hu:
        item.refuse("is not CT by its modality", "give CT, or pass --assume-hu if it is in HU", "dicom.modality")
    if item.number("NumberOfFrames", 1) != 1:
        item.refuse("holds several frames", "convert it to one file a slice", "dicom.multiframe")
    if "LOCALIZER" in item.words("ImageType"):
        item.refuse("is a localizer", "take the localizers out of the folder", "dicom.localizer")
    if item.number("SamplesPerPixel", 1) != 1:
        item.refuse("is in colour", "give CT", "scan.not_scalar")
    if item.number("Rows", 0) < 1 or item.number("Columns", 0) < 1:
        item.refuse("has no pixels", "take it out of the folder", "dicom.no_pixels")


def _shape(slices: list[DicomSlice], case: str) -> tuple[int, int, int]:
    sizes = Counter((int(item.number("Columns", 0)), int(item.number("Rows", 0))) for item in slices)
    if len(sizes) > 1:
        what = f"the slices have several sizes, {' and '.join(f'{x}x{y}' for x, y in sizes)}"
        refuse_geometry(case, what, "sort them into one folder a series", "dicom.sizes")
    (columns, rows), count = sizes.popitem()
    return check_shape((columns, rows, count), case)


def _rescale(item: DicomSlice, *, assume_hu: bool) -> tuple[float, float]:
    if item.value("ModalityLUTSequence") is not None:
        item.refuse("has a modality LUT", "export it with a rescale slope and intercept", "dicom.rescale")
    if not assume_hu and not set(item.words("RescaleType")) <= _HU_TYPES:
        item.refuse("is rescaled to another unit than HU", "give CT in HU", "dicom.rescale_type")
    absent = [key for key in ("RescaleSlope", "RescaleIntercept") if item.value(key) is None]
    if len(absent) == 2 and assume_hu:
        return 1.0, 0.0
    if absent:
        way_out = "export it with them, or pass --assume-hu if the stored values are HU"
        item.refuse("has no rescale slope and intercept", way_out, "dicom.rescale")
    slope, intercept = item.number("RescaleSlope", 1), item.number("RescaleIntercept", 0)
    if slope == 0:
        item.refuse("has a rescale slope of 0", "export it again", "dicom.rescale")
    return slope, intercept
