"""Opening and decoding a DICOM series in this process: what `open_series` has the reading process do."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monai_ext.base import ScanError
from monai_ext.volumes.check_values import check_hu
from monai_ext.volumes.dicom_checks import check_instances, check_owners, check_slice, rescale_of, shape_of
from monai_ext.volumes.dicom_choice import choose_series
from monai_ext.volumes.dicom_pixels import stored_values
from monai_ext.volumes.dicom_quiet import quiet_pydicom
from monai_ext.volumes.dicom_stack import stacked
from monai_ext.volumes.dicom_zip import Unpacked
from monai_ext.volumes.reading_limits import allow
from monai_ext.volumes.refusals import refuse, refusing_closed_files


@dataclass(frozen=True)
class SeriesSlice:
    """One slice of an opened series.

    Attributes:
        path: its file, whose name may identify a patient.
        place: how messages call it.
        slope, intercept: make HU of its stored values.
    """

    path: Path
    place: str
    slope: float
    intercept: float


@dataclass(frozen=True)
class OpenedSeries:
    """A series whose headers were found sound, its slices in the order of the voxels.

    Attributes:
        case, shape, affine, modality, source: see ``DicomSeries``.
        slices: its slices.
        set_aside: how many files of each kind beside them are no slices.
        unpacked: the temporary files of a zip.
    """

    case: str
    shape: tuple[int, int, int]
    affine: np.ndarray
    modality: str
    source: Path
    slices: tuple[SeriesSlice, ...]
    set_aside: Counter[str]
    unpacked: Unpacked | None


def open_here(home: Path, pick: str | None, case: str | None, name: str, *, assume_hu: bool) -> OpenedSeries:
    """Check the headers of a series.

    Args:
        home: a folder or zip.
        pick: the series, if it may hold several.
        case: the id, if it does not follow from the series.
        name: the id for messages.
        assume_hu: see `open_series`.
    """
    with quiet_pydicom(), refusing_closed_files(name):
        chosen, slices, places, unpacked = choose_series(home, pick, name)
        try:
            for item in slices:
                check_slice(item, assume_hu=assume_hu)
            check_owners(slices, name)
            shape = shape_of(slices, name)
            slices, affine = stacked(slices, name)
            check_instances(slices, name)
            found = tuple(SeriesSlice(item.path, item.place, *rescale_of(item, assume_hu=assume_hu)) for item in slices)
            modality = "".join(slices[0].words("Modality")[:1])
        except BaseException:
            if unpacked is not None:
                unpacked.remove()
            raise
    source = Path(chosen.path.name)
    return OpenedSeries(case or chosen.case, shape, affine, modality, source, found, places.set_aside, unpacked)


def pixels_here(
    slices: Sequence[SeriesSlice], shape: tuple[int, int, int], case: str, *, assume_hu: bool
) -> np.ndarray:
    """Decode the slices to float32 HU ``(x, y, z)``."""
    allow(voxels=shape[0] * shape[1] * shape[2])
    voxels = np.empty(shape, np.float32, order="F")
    with quiet_pydicom(), refusing_closed_files(case):
        for index, item in enumerate(slices):
            try:
                voxels[:, :, index] = stored_values(item.path).T * item.slope + item.intercept
            except ScanError as error:
                what, way_out = f"{item.place} has pixels that {error}", "copy or export the series again"
                refuse(case, what, way_out, error.code)
    return check_hu(voxels, case, assume_hu=assume_hu)
