"""A DICOM series as one volume in HU, its files in the order of the voxels."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom

from monai_ext.base import ScanError
from monai_ext.volumes.check_values import check_hu
from monai_ext.volumes.dicom_checks import check_slice, rescale_of, shape_of
from monai_ext.volumes.dicom_choice import choose_series
from monai_ext.volumes.dicom_pixels import stored_values
from monai_ext.volumes.dicom_places import case_of, picked
from monai_ext.volumes.dicom_quiet import quiet_pydicom
from monai_ext.volumes.dicom_slice import DicomSlice
from monai_ext.volumes.dicom_sort import warn_of
from monai_ext.volumes.dicom_stack import stacked
from monai_ext.volumes.dicom_zip import Unpacked
from monai_ext.volumes.refusals import refusing_closed_files
from monai_ext.volumes.scan import Scan


@dataclass(frozen=True, eq=False)
class DicomSeries:
    """One series whose headers were found sound; its pixels are not read yet.

    Attributes:
        files: one a slice, ``files[k]`` holding the voxels ``[:, :, k]``. Their names may identify a patient.
            Those of a zip are temporary, and removed with the series.
        case: the id for messages and outputs.
        affine: ``(4, 4)`` float64, voxel index to mm in RAS+.
        shape: voxels along x, y, z, where z runs along the slices' normal.
        modality: as the first slice has it, ``"CT"`` unless others are accepted.
        source: base name of the folder or zip, with the series where it is one of several.
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
    _unpacked: Unpacked | None = field(default=None, repr=False)

    def headers(self) -> list[pydicom.Dataset]:
        """Read everything but the pixels, with ``file_meta``, in slice order; it may identify the patient.

        Raises:
            ScanError: a file is gone or damaged.
        """
        with quiet_pydicom(), refusing_closed_files(self.case):
            return [item.whole_header() for item in self._slices]

    def read(self) -> Scan:
        """Decode the pixels and rescale them to HU, slice by slice.

        Raises:
            ScanError: pixels that are absent, damaged or compressed in a way not read here, or values that are
                not HU.
        """
        voxels = np.empty(self.shape, np.float32, order="F")
        with quiet_pydicom(), refusing_closed_files(self.case):
            for index, item in enumerate(self._slices):
                slope, intercept = rescale_of(item, assume_hu=self.assume_hu)
                try:
                    voxels[:, :, index] = stored_values(item.path).T * slope + intercept
                except ScanError as error:
                    item.refuse(f"has pixels that {error}", "copy or export the series again", error.code)
        voxels = check_hu(voxels, self.case, assume_hu=self.assume_hu)
        return Scan(voxels, self.affine, self.case, self.source, "dicom")

    def close(self) -> None:
        """Remove the temporary files of a zip now rather than with the series."""
        if self._unpacked is not None:
            self._unpacked.remove()


def open_series(
    path: str | os.PathLike[str], case: str | None = None, *, series: str | int | None = None, assume_hu: bool = False
) -> DicomSeries:
    """Open the one series in a folder or zip and check its headers; slices are sorted along their normal.

    Localizers, reports and other objects that are no slices are set aside, with a warning that counts them.

    Args:
        path: a folder with slices and nothing else but notes and hidden files; a zip of such folders; or either
            with a ``#`` and the series to pick, as in ``scans.zip#3``.
        case: the id for messages and outputs; by default the base name, with the series where it is one of several.
        series: the one to pick, instead of in the path: its number, or its mark as `find_series` gives it.
        assume_hu: accept other modalities than CT, and values without a rescale as they are stored.

    Raises:
        ScanError: unreadable slices, several series, another modality, no rescale, a localizer; or a zip that
            is damaged, encrypted, too large, or holds links or paths that lead out of it.
        GeometryError: slices missing, doubled, of several sizes or orientations, or a tilted gantry.
    """
    home, pick = picked(Path(os.path.abspath(path)))
    pick = pick if series is None else str(series)
    name = case or case_of(home)
    with quiet_pydicom(), refusing_closed_files(name):
        chosen, slices, places, unpacked = choose_series(home, pick, name)
        if pick is None:
            warn_of(places.set_aside, name)
        try:
            for item in slices:
                check_slice(item, assume_hu=assume_hu)
            shape = shape_of(slices, name)
            slices, affine = stacked(slices, name)
            for item in slices:
                rescale_of(item, assume_hu=assume_hu)
            modality = "".join(slices[0].words("Modality")[:1])
        except BaseException:
            if unpacked is not None:
                unpacked.remove()
            raise
    files = tuple(item.path for item in slices)
    return DicomSeries(
        files,
        case or chosen.case,
        affine,
        shape,
        modality,
        Path(chosen.path.name),
        assume_hu,
        tuple(slices),
        unpacked,
    )
