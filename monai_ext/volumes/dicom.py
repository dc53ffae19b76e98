"""A DICOM series as one volume in HU, its files in the order of the voxels."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from monai_ext.volumes.dicom_here import OpenedSeries, SeriesSlice, open_here, pixels_here
from monai_ext.volumes.dicom_places import case_of, picked
from monai_ext.volumes.dicom_quiet import quiet_pydicom
from monai_ext.volumes.dicom_slice import whole_header
from monai_ext.volumes.dicom_sort import warn_of
from monai_ext.volumes.dicom_zip import Unpacked, is_zip
from monai_ext.volumes.reading_limits import reads_inside
from monai_ext.volumes.reading_pool import ask
from monai_ext.volumes.reading_values import counts_of, numbers, paths_below, scan_of, shape_of, trusting_nothing, word
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
    _slices: tuple[SeriesSlice, ...] = field(default=(), repr=False)
    _unpacked: Unpacked | None = field(default=None, repr=False)

    def headers(self) -> list[pydicom.Dataset]:
        """Read everything but the pixels, with ``file_meta``, in slice order; it may identify the patient.

        The reading process reads them first: what it can read within its limits, this process can too.

        Raises:
            ScanError: a file is gone or damaged.
        """
        if not reads_inside():
            files = [[str(item.path), item.place] for item in self._slices]
            ask("check_headers", self.case, {"slices": files, "case": self.case})
        with quiet_pydicom(), refusing_closed_files(self.case):
            return [whole_header(item.path, item.place, self.case) for item in self._slices]

    def read(self) -> Scan:
        """Decode the pixels and rescale them to HU, slice by slice.

        Raises:
            ScanError: pixels that are absent, damaged or compressed in a way not read here, or values that are
                not HU.
        """
        if reads_inside():
            voxels = pixels_here(self._slices, self.shape, self.case, assume_hu=self.assume_hu)
            return Scan(voxels, self.affine, self.case, self.source, "dicom")
        slices = [[str(item.path), item.place, item.slope, item.intercept] for item in self._slices]
        told = {"slices": slices, "shape": self.shape, "case": self.case, "assume_hu": self.assume_hu}
        _, given = ask("read_pixels", self.case, told, scratch=True)
        with trusting_nothing(self.case):
            values = {"shape": self.shape, "affine": self.affine, "case": self.case, "kind": "dicom", "relaxed": []}
            return scan_of(values | {"source": str(self.source)}, given, "float32")

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
            is damaged, encrypted, too large, or holds links or paths that lead out of it; reading the headers crashes,
            hangs, or takes more memory than it may.
        GeometryError: slices missing, doubled, of several sizes or orientations, or a tilted gantry.
    """
    home, pick = picked(Path(os.path.abspath(path)))
    pick = pick if series is None else str(series)
    name = case or case_of(home)
    open_it = open_here if reads_inside() else _open_outside
    found = open_it(home, pick, case, name, assume_hu=assume_hu)
    if pick is None:
        warn_of(found.set_aside, name)
    files = tuple(item.path for item in found.slices)
    return DicomSeries(
        files,
        found.case,
        found.affine,
        found.shape,
        found.modality,
        found.source,
        assume_hu,
        found.slices,
        found.unpacked,
    )


def _open_outside(home: Path, pick: str | None, case: str | None, name: str, *, assume_hu: bool) -> OpenedSeries:
    # The folder of a zip's slices is this process's own: it outlives the reading process.
    unpacked = Unpacked() if is_zip(home) else None
    told = {"home": str(home), "pick": pick, "case": case, "name": name, "assume_hu": assume_hu}
    try:
        values, _ = ask("open_series", name, told, temporary=None if unpacked is None else str(unpacked.root))
        with trusting_nothing(name):
            return _opened(values, home, unpacked)
    except BaseException:
        if unpacked is not None:
            unpacked.remove()
        raise


def _opened(values: Any, home: Path, unpacked: Unpacked | None) -> OpenedSeries:
    files = paths_below(values["files"], home if unpacked is None else unpacked.root)
    scales = numbers(values["scales"], (len(files), 2)).tolist()
    places = [word(place) for place in values["places"]]
    slices = tuple(SeriesSlice(path, place, *scale) for path, place, scale in zip(files, places, scales, strict=True))
    shape = shape_of(values["shape"])
    if shape[2] != len(slices):
        raise ValueError
    return OpenedSeries(
        word(values["case"]),
        shape,
        numbers(values["affine"], (4, 4)),
        word(values["modality"]),
        Path(Path(word(values["source"])).name),
        slices,
        counts_of(values["set_aside"]),
        unpacked,
    )
