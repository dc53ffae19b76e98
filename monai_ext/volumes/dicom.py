"""A DICOM series as one volume in HU, its files in the order of the voxels."""

import os
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom

from monai_ext.base import ScanError
from monai_ext.volumes.check_values import check_hu
from monai_ext.volumes.dicom_checks import check_slice, rescale_of, shape_of
from monai_ext.volumes.dicom_pixels import stored_values
from monai_ext.volumes.dicom_slice import DicomSlice, open_slice
from monai_ext.volumes.dicom_stack import stacked
from monai_ext.volumes.refusals import refuse, refusing_closed_files
from monai_ext.volumes.scan import Scan

_BESIDE_SLICES = (".txt", ".md", ".json", ".xml", ".csv", ".html", ".htm", ".pdf", ".png", ".jpg", ".ini")


@dataclass(frozen=True, eq=False)
class DicomSeries:
    """One series whose headers were found sound; its pixels are not read yet.

    Attributes:
        files: one a slice, ``files[k]`` holding the voxels ``[:, :, k]``. Their names may identify a patient.
        case: the id for messages and outputs.
        affine: ``(4, 4)`` float64, voxel index to mm in RAS+.
        shape: voxels along x, y, z, where z runs along the slices' normal.
        modality: as the first slice has it, ``"CT"`` unless others are accepted.
        source: base name of the folder.
        assume_hu: whether the values are taken for HU whatever modality and rescale say.
    """

    files: tuple[Path, ...] = field(repr=False)
    case: str
    affine: np.ndarray
    shape: tuple[int, int, int]
    modality: str
    source: Path
    assume_hu: bool = False
    _slices: tuple[DicomSlice, ...] = field(default=(), repr=False)

    def headers(self) -> list[pydicom.Dataset]:
        """Read everything but the pixels, with ``file_meta``, in slice order; it may identify the patient.

        Raises:
            ScanError: a file is gone or damaged.
        """
        with warnings.catch_warnings(), refusing_closed_files(self.case):
            warnings.simplefilter("ignore")
            return [item.whole_header() for item in self._slices]

    def read(self) -> Scan:
        """Decode the pixels and rescale them to HU, slice by slice.

        Raises:
            ScanError: pixels that are absent, damaged or compressed in a way not read here, or values that are
                not HU.
        """
        voxels = np.empty(self.shape, np.float32, order="F")
        with warnings.catch_warnings(), refusing_closed_files(self.case):
            warnings.simplefilter("ignore")
            for index, item in enumerate(self._slices):
                slope, intercept = rescale_of(item, assume_hu=self.assume_hu)
                try:
                    voxels[:, :, index] = stored_values(item.path).T * slope + intercept
                except ScanError as error:
                    item.refuse(f"has pixels that {error}", "copy or export the series again", error.code)
        voxels = check_hu(voxels, self.case, assume_hu=self.assume_hu)
        return Scan(voxels, self.affine, self.case, self.source, "dicom")


def open_series(path: str | os.PathLike[str], case: str | None = None, *, assume_hu: bool = False) -> DicomSeries:
    """Open the one series in a folder and check its headers; slices are sorted along their normal.

    Args:
        path: a folder with the slices of one series, and nothing else but notes and hidden files.
        case: the id for messages and outputs; the folder's name by default.
        assume_hu: accept other modalities than CT, and values without a rescale as they are stored.

    Raises:
        ScanError: unreadable slices, several series, another modality, no rescale, a localizer.
        GeometryError: slices missing, doubled, of several sizes or orientations, or a tilted gantry.
    """
    folder = Path(os.path.abspath(path))
    case = case or folder.name
    # Values that break the standard make pydicom warn, quoting them; what matters is checked below.
    with warnings.catch_warnings(), refusing_closed_files(case):
        warnings.simplefilter("ignore")
        slices = _one_series(_files(folder, case), case)
        for item in slices:
            check_slice(item, assume_hu=assume_hu)
        shape = shape_of(slices, case)
        slices, affine = stacked(slices, case)
        for item in slices:
            rescale_of(item, assume_hu=assume_hu)
        modality = "".join(slices[0].words("Modality")[:1])
    files = tuple(item.path for item in slices)
    return DicomSeries(files, case, affine, shape, modality, Path(folder.name), assume_hu, tuple(slices))


def _files(folder: Path, case: str) -> list[Path]:
    if not folder.is_dir():
        refuse(case, "there is no such folder", "check the path", "scan.missing")
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
