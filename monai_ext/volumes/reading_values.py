"""What the reading process tells of scans, as JSON, and back; what comes back is checked like any other input."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from monai_ext.base import InputError
from monai_ext.volumes.refusals import refuse
from monai_ext.volumes.relaxing import RELAXABLE
from monai_ext.volumes.scan import Kind, Scan, ScanHeader

_KINDS: dict[str, Kind] = {"nifti": "nifti", "itk": "itk", "dicom": "dicom"}


@contextmanager
def trusting_nothing(case: str) -> Iterator[None]:
    """Refuse a scan whose reading process answered something else than it was asked for."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError):
        what = "the process that read it ended without a sound answer"
        refuse(case, what, "leave the scan out, or copy or export it again", "scan.crashed")


def header_values(scan: Scan | ScanHeader) -> dict[str, Any]:
    """Return everything but the voxels."""
    return {
        "shape": list(map(int, scan.shape)),
        "affine": scan.affine.tolist(),
        "case": scan.case,
        "kind": scan.kind,
        "relaxed": list(scan.relaxed),
    }


def scan_values(scan: Scan) -> dict[str, Any]:
    """Return the same of a scan, with its base name."""
    return header_values(scan) | {"source": str(scan.source)}


def header_of(values: Any) -> ScanHeader:
    """Return the header that `header_values` described."""
    case, affine = word(values["case"]), numbers(values["affine"], (4, 4))
    return ScanHeader(shape_of(values["shape"]), affine, case, _KINDS[values["kind"]], _rules(values["relaxed"]))


def scan_of(values: Any, voxels: np.ndarray | None, *dtypes: str) -> Scan:
    """Return the scan that `scan_values` described, with its voxels of a type that the caller expects."""
    header = header_of(values)
    if voxels is None or voxels.dtype.name not in dtypes or voxels.shape != header.shape:
        raise ValueError
    source = Path(Path(word(values["source"])).name)
    return Scan(voxels, header.affine, header.case, source, header.kind, header.relaxed)


def shape_of(values: Any) -> tuple[int, int, int]:
    """Return three sizes."""
    x, y, z = values
    if not all(isinstance(size, int) and size > 0 for size in (x, y, z)):
        raise ValueError
    return x, y, z


def numbers(values: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return finite float64, bit by bit those that were sent."""
    array = np.array(values, dtype=np.float64)
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError
    return array


def word(value: Any) -> str:
    """Return a string."""
    if not isinstance(value, str):
        raise TypeError
    return value


def number_in(value: Any, count: int) -> int:
    """Return an index of a list of so many."""
    if not isinstance(value, int) or not 0 <= value < count:
        raise ValueError
    return value


def counts_of(values: Any) -> Counter[str]:
    """Return how often each word was counted."""
    counts = Counter({word(key): value for key, value in values.items()})
    if not all(isinstance(count, int) and count > 0 for count in counts.values()):
        raise ValueError
    return counts


def paths_below(values: Sequence[Any], *folders: Path) -> tuple[Path, ...]:
    """Return paths, each of which lies in one of the folders."""
    paths = tuple(Path(word(value)) for value in values)
    for path in paths:
        if ".." in path.parts or not any(path.is_relative_to(folder) for folder in folders):
            raise ValueError
    return paths


def _rules(values: Any) -> tuple[str, ...]:
    rules = tuple(word(value) for value in values)
    if not set(rules) <= set(RELAXABLE):
        raise ValueError
    return rules
