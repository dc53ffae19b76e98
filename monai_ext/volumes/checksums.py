"""The checksum of a scan as it lies on disk: a file, a header with its data, or the slices of a DICOM series."""

import hashlib
import re
from pathlib import Path

from monai_ext.base import sha256_of
from monai_ext.volumes.dicom_choice import files_of
from monai_ext.volumes.dicom_places import is_series
from monai_ext.volumes.refusals import refuse_missing

_DATA_FILE = re.compile(rb"^\s*(?:ElementDataFile\s*=|data ?file\s*:)[ \t]*([^\r\n]+)", re.IGNORECASE | re.MULTILINE)
_HEADER_BYTES = 1 << 16


def source_checksum(path: Path, case: str) -> str:
    """Return the SHA-256 of a file with its detached data, or over those of a DICOM series' files.

    One file alone has the SHA-256 that every other tool gives it.

    Raises:
        ScanError: there is no such file or folder, or it is a pipe or device.
        OSError: a file cannot be read.
    """
    sums = sorted(map(sha256_of, source_files(path, case)))
    return sums[0] if len(sums) == 1 else hashlib.sha256("\n".join(sums).encode()).hexdigest()


def source_files(path: Path, case: str) -> list[Path]:
    """Return the files that a scan consists of.

    Raises:
        ScanError: there is no such file or folder, or it is a pipe or device.
    """
    if path.is_dir():
        return [part for part in path.iterdir() if part.is_file() and not part.name.startswith(".")]
    if path.is_file():
        return [path, *_data_file(path)]
    if is_series(path):
        return list(files_of(path, case))
    refuse_missing(case, path)


def _data_file(path: Path) -> list[Path]:
    if not path.name.lower().endswith((".mhd", ".mha", ".nrrd")):
        return []
    with path.open("rb") as handle:
        found = _DATA_FILE.search(handle.read(_HEADER_BYTES))
    # Reading takes data from beside the header only; what lies elsewhere it refuses.
    beside = path.parent / Path(found[1].decode(errors="replace").strip()).name if found else path
    return [beside] if beside != path and beside.is_file() else []
