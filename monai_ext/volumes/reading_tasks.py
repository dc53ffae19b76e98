"""What the reading process can be asked for; it imports the readers, and nothing that they do not need."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import SimpleITK  # noqa: F401  # before the limits of a request count, which loading it would use up

from monai_ext.volumes.check_values import is_whole
from monai_ext.volumes.dicom_choice import files_of
from monai_ext.volumes.dicom_here import SeriesSlice, open_here, pixels_here
from monai_ext.volumes.dicom_quiet import quiet_pydicom
from monai_ext.volumes.dicom_slice import whole_header
from monai_ext.volumes.dicom_sort import patient_of, sort_files, sorted_values
from monai_ext.volumes.read_here import header_here, labels_here, scan_here
from monai_ext.volumes.reading_limits import allow
from monai_ext.volumes.reading_values import header_of, header_values, scan_values
from monai_ext.volumes.reading_worker import Answer, GivenArray, Task
from monai_ext.volumes.refusals import refusing_closed_files


def _read_scan(
    path: str, case: str | None, series: str | None, assume_hu: bool, relax: Sequence[str], narrow: bool
) -> Answer:
    # Its type is changed where it is handed over: a copy less of the whole volume.
    scan = scan_here(Path(path), case, series, assume_hu=assume_hu, relax=relax, convert=False)
    return scan_values(scan), GivenArray(scan.voxels, "int16" if narrow and is_whole(scan.voxels) else "float32")


def _read_header(path: str, case: str | None, assume_hu: bool, relax: Sequence[str]) -> Answer:
    return header_values(header_here(Path(path), case, assume_hu=assume_hu, relax=relax)), None


def _read_labels(
    path: str, case: str | None, like: dict[str, Any] | None, classes: list[int] | None, relax: Sequence[str]
) -> Answer:
    scan = labels_here(Path(path), case, None if like is None else header_of(like), classes, relax)
    return scan_values(scan), scan.voxels


def _open_series(home: str, pick: str | None, case: str | None, name: str, assume_hu: bool) -> Answer:
    found = open_here(Path(home), pick, case, name, assume_hu=assume_hu)
    if found.unpacked is not None:
        found.unpacked.remove.detach()  # their folder is the asking process's
    values = {
        "case": found.case,
        "shape": found.shape,
        "affine": found.affine.tolist(),
        "modality": found.modality,
        "source": found.source.name,
        "files": [str(item.path) for item in found.slices],
        "places": [item.place for item in found.slices],
        "scales": [[item.slope, item.intercept] for item in found.slices],
        "set_aside": dict(found.set_aside),
    }
    return values, None


def _read_pixels(slices: list[Any], shape: list[int], case: str, assume_hu: bool) -> Answer:
    found = [SeriesSlice(Path(path), place, slope, intercept) for path, place, slope, intercept in slices]
    x, y, z = shape
    return None, pixels_here(found, (x, y, z), case, assume_hu=assume_hu)


def _check_headers(slices: list[list[str]], case: str) -> Answer:
    allow(files=len(slices))
    with quiet_pydicom(), refusing_closed_files(case):
        for path, place in slices:
            whole_header(Path(path), place, case)
    return None, None


def _sort_files(files: list[str], case: str) -> Answer:
    paths = list(map(Path, files))
    return sorted_values(sort_files(paths, case), paths), None


def _files_of(path: str, case: str) -> Answer:
    return [str(found) for found in files_of(Path(path), case)], None


def _patient_of(path: str, case: str) -> Answer:
    return patient_of(Path(path), case), None


def _of_pictures(name: str) -> Task:
    def task(**told: Any) -> Answer:
        from monai_ext.volumes.picture_tasks import TASKS  # not above: who reads scans alone needs no Pillow

        return TASKS[name](**told)

    return task


_PICTURES = ("read_picture", "read_mask", "check_picture", "check_mask", "picture_pixels")

TASKS: dict[str, Task] = {
    "read_scan": _read_scan,
    "read_header": _read_header,
    "read_labels": _read_labels,
    "open_series": _open_series,
    "read_pixels": _read_pixels,
    "check_headers": _check_headers,
    "sort_files": _sort_files,
    "files_of": _files_of,
    "patient_of": _patient_of,
    **{name: _of_pictures(name) for name in _PICTURES},
}
