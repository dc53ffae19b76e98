"""NRRD headers, read strictly (https://teem.sourceforge.net/nrrd/format.html)."""

import re
from pathlib import Path

import numpy as np

from monai_ext.volumes.checks import check_affine, check_spacing
from monai_ext.volumes.itk_headers import (
    GZIP,
    ItkHeader,
    affine_of,
    check_data,
    fields,
    lines,
    numbers_of,
    refuse_not_scalar,
    refuse_without,
    shape_of,
)
from monai_ext.volumes.refusals import refuse_damaged, refuse_geometry

_BYTES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"), 1),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), 2),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), 2),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t"), 4),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"), 8),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), 8),
    "float": 4,
    "double": 8,
}
_ALIASES = {"datafile": "data file", "lineskip": "line skip", "byteskip": "byte skip"}
_TO_RAS = {
    **dict.fromkeys(("left-posterior-superior", "lps"), (-1.0, -1.0, 1.0)),
    **dict.fromkeys(("right-anterior-superior", "ras"), (1.0, 1.0, 1.0)),
    **dict.fromkeys(("left-anterior-superior", "las"), (-1.0, 1.0, 1.0)),
}
_VECTOR = r"\([^()]*\)"


def check_nrrd(path: Path, case: str) -> ItkHeader:
    """Check header and data length of a NRRD file, its data attached or in one file beside it.

    Raises:
        ScanError: damaged, truncated, or of an encoding or type that is not read.
        GeometryError: not 3D, or space, directions or origin are absent or unusable.
    """
    with path.open("rb") as stream:
        header = lines(stream, case)
        if not header or not re.fullmatch("NRRD000[1-5]", header[0]):
            refuse_damaged(case, "its first line is not that of a NRRD file" if header else "it is empty")
        # "key:=value" lines are for applications.
        known = [line for line in header[1:] if line and not line.startswith("#") and ":=" not in line]
        found = fields(known, ": ", _ALIASES, case)
        shape = shape_of(found.get("sizes", ""), found.get("dimension", ""), case)
        if not set(found.get("kinds", "").split()) <= {"domain", "space", "???", "none"}:
            refuse_not_scalar(case, found["kinds"])
        affine = _affine(found, case)
        encoding = found.get("encoding", "").lower()
        if encoding not in ("raw", "gzip", "gz"):
            refuse_damaged(case, f"encoding {encoding[:40]!r} is not read here (raw and gzip are)")
        if {found.get("line skip", "0"), found.get("byte skip", "0")} != {"0"}:
            refuse_damaged(case, "skipped lines or bytes are not read here")
        kind = found.get("type", "")
        if kind not in _BYTES:
            refuse_damaged(case, f"voxel type {kind[:40]!r} is not read here")
        if _BYTES[kind] > 1 and found.get("endian", "").lower() not in ("little", "big"):
            refuse_damaged(case, "its byte order is not given")
        size = int(np.prod(shape)) * _BYTES[kind]
        check_data(path, stream, found.get("data file"), size, None if encoding == "raw" else GZIP, case)
    return ItkHeader(shape, affine)


def _affine(found: dict[str, str], case: str) -> np.ndarray:
    for key in ("space", "space directions", "space origin"):
        if key not in found:
            refuse_without(case, key)
    if found["space"].lower() not in _TO_RAS:
        refuse_without(case, f"a space of patient axes (it has {found['space'][:40]!r})")
    for key in ("space units", "units"):
        units = set(re.findall('"([^"]*)"', found.get(key, "")))
        if units - {"mm", ""}:
            refuse_without(case, f"millimetres (it has {' '.join(sorted(units))[:40]!r})")
    if "spacings" in found:
        what = "its header gives spacings beside space directions"
        refuse_geometry(case, what, "leave the spacings out", "scan.spacing_contradiction")
    if not re.fullmatch(rf"{_VECTOR}(\s+{_VECTOR}){{2}}", found["space directions"]):
        refuse_without(case, "three space directions")
    vectors = [_vector(text, "space directions", case) for text in re.findall(_VECTOR, found["space directions"])]
    check_spacing(np.linalg.norm(vectors, axis=1), case)
    origin = _vector(found["space origin"], "space origin", case)
    affine = affine_of(np.transpose(vectors), origin, _TO_RAS[found["space"].lower()])
    check_affine(affine, case)
    return affine


def _vector(text: str, key: str, case: str) -> np.ndarray:
    return numbers_of(text.strip("() ").replace(",", " "), key, case)
