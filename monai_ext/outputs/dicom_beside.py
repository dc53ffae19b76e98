"""DICOM files beside the other results of a scan that was a DICOM series."""

import tempfile
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from monai_ext._version import __version__
from monai_ext.base import ScanError, WriteError, replacing
from monai_ext.outputs.dicom_heat_map import write_heat_map
from monai_ext.outputs.dicom_report import write_lesion_report
from monai_ext.outputs.dicom_seg import write_dicom_seg
from monai_ext.outputs.dicom_source import MANUFACTURER, need_highdicom, source_series
from monai_ext.volumes import open_series, quiet_pydicom

SERIES_KEY = "series"  # of an entry: where its DICOM series lies, which no result may tell
_TINY = 4  # pixels a row, of frames of whole bytes


def series_headers(data: Mapping[Hashable, Any], case: str) -> list[Dataset]:
    """Read the headers of the series that an entry names.

    Raises:
        ScanError: it names none, or the series is no longer there or not sound.
    """
    if SERIES_KEY not in data:
        raise ScanError(
            f"{case}: there is no DICOM series that DICOM output could belong to; give one, or set dicom_seg to false",
            code="scan.no_series",
            case=case,
        )
    # Whatever the voxels are, they have been read: here only their place matters.
    found = open_series(data[SERIES_KEY], case, assume_hu=True)
    try:
        return found.headers()
    finally:
        found.close()


def add_label_seg(
    files: ExitStack,
    path: Path,
    labels: np.ndarray,
    affine: np.ndarray,
    headers: Sequence[Dataset],
    names: Mapping[int, str],
    algorithm: str,
    case: str,
) -> None:
    """Write a SEG that takes its place when the stack is left without an error."""
    target = files.enter_context(replacing(path))
    write_dicom_seg(target, labels, affine, headers, names, algorithm=algorithm, version=__version__, case=case)


def add_anomaly_files(
    files: ExitStack,
    folder: Path,
    odds: np.ndarray,
    mask: np.ndarray,
    affine: np.ndarray,
    headers: Sequence[Dataset],
    rows: Sequence[Mapping[str, Any]],
    algorithm: str,
    case: str,
) -> None:
    """Write mask, map and report, all of which take their places when the stack is left without an error."""
    add_label_seg(files, folder / f"{case}_seg.dcm", mask, affine, headers, {1: "candidate"}, algorithm, case)
    about: dict[str, Any] = {"algorithm": algorithm, "version": __version__, "case": case}
    heat = files.enter_context(replacing(folder / f"{case}_heatmap.dcm"))
    write_heat_map(heat, odds, affine, headers, quantity="anomaly log-odds", **about)
    report = files.enter_context(replacing(folder / f"{case}_report.dcm"))
    write_lesion_report(report, rows, headers, **about)


def remove_outdated(paths: Iterable[Path], case: str) -> None:
    """Remove DICOM files of an earlier run beside results that were written anew without them.

    What another program made stays, under whatever name.

    Raises:
        WriteError: one cannot be removed, and would contradict the new results.
    """
    for path in paths:
        try:
            if path.is_file() and _is_ours(path):
                path.unlink()
        except OSError as error:
            raise WriteError(
                f"{case}: {path.name} is of an earlier run and cannot be removed ({error.strerror or 'system error'}); "
                "remove it, for it contradicts the new results",
                code="write.outdated",
                case=case,
            ) from None


def _is_ours(path: Path) -> bool:
    try:
        with quiet_pydicom():
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["Manufacturer"])
            return bool(header.get("Manufacturer") == MANUFACTURER)
    except OSError:
        raise
    except Exception:
        return False  # no DICOM, so no object of ours


def check_referable(series: str | Path, case: str) -> None:
    """Refuse a DICOM series that no DICOM result could refer to, before a network runs over it.

    Whatever the libraries make of its headers, they make of a SEG of 4 x 4 pixels a frame, which is written to a
    temporary folder.

    Raises:
        SettingError: highdicom is not installed.
        ScanError, GeometryError: the series is not sound, or lacks UIDs.
        WriteError: no result can be made with its headers.
    """
    need_highdicom()
    source = source_series(series_headers({SERIES_KEY: series}, case), case)
    headers = [_tiny(header) for header in source.headers]
    labels = np.ones((_TINY, _TINY, len(headers)), np.uint8)
    with tempfile.TemporaryDirectory(prefix="monai_ext-") as folder, ExitStack() as files:
        path = Path(folder) / "trial.dcm"
        add_label_seg(files, path, labels, source.affine, headers, {1: "candidate"}, "monai-ext", case)


def _tiny(header: Dataset) -> Dataset:
    small = Dataset()
    small.update(header)
    small.Rows = small.Columns = _TINY
    return small
