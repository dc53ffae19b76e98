"""Headers of NRRD and MetaImage files, read strictly before any library allocates their voxels.

SimpleITK zero-fills truncated data, follows detached data files anywhere and takes an identity orientation where none
is written; what is checked here it cannot get wrong silently.
NRRD: https://teem.sourceforge.net/nrrd/format.html; MetaImage: https://itk.org/Wiki/ITK/MetaIO/Documentation.
"""

import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np

from monai_ext.base import GeometryError, ScanError
from monai_ext.volumes.checks import check_shape, check_spacing

_NRRD_BYTES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"), 1),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), 2),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), 2),
    **dict.fromkeys(
        ("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t"), 4
    ),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"), 8),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), 8),
    "float": 4,
    "double": 8,
}
_META_BYTES = {
    **dict.fromkeys(("MET_CHAR", "MET_UCHAR"), 1),
    **dict.fromkeys(("MET_SHORT", "MET_USHORT"), 2),
    **dict.fromkeys(("MET_INT", "MET_UINT", "MET_FLOAT"), 4),
    **dict.fromkeys(("MET_LONG_LONG", "MET_ULONG_LONG", "MET_DOUBLE"), 8),
}
_META_ALIASES = {
    "Rotation": "TransformMatrix",
    "Orientation": "TransformMatrix",
    "Position": "Offset",
    "Origin": "Offset",
    "BinaryDataByteOrderMSB": "ElementByteOrderMSB",
}
_NRRD_SPACES = {
    "left-posterior-superior",
    "lps",
    "right-anterior-superior",
    "ras",
    "left-anterior-superior",
    "las",
}
_HEADER_BYTES = 1 << 20
_CHUNK = 1 << 24


@dataclass(frozen=True)
class ItkHeader:
    """What a header promises: ``shape`` in voxels and ``spacing_mm``, both along the array's three axes."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]


def check_nrrd(path: Path, case: str) -> ItkHeader:
    """Check header and data length of a NRRD file, attached or detached.

    Raises:
        ScanError: damaged, truncated, or of an encoding or type that is not read.
        GeometryError: not 3D, or without a space, directions and origin.
    """
    with path.open("rb") as stream:
        if not re.fullmatch(rb"NRRD000[1-5]\r?\n", stream.readline(16)):
            _damaged(case, "its first line is not that of a NRRD file")
        fields = _fields(stream, case, end="", separator=": ")
        fields = {"data file" if key == "datafile" else key: value for key, value in fields.items()}
        shape = _shape(fields, "sizes", "dimension", case)
        kinds = fields.get("kinds", "domain domain domain").split()
        if not set(kinds) <= {"domain", "space", "???", "none"}:
            _not_scalar(case, " ".join(kinds))
        spacing = _nrrd_spacing(fields, case)
        encoding = fields.get("encoding", "").lower()
        if encoding not in ("raw", "gzip", "gz"):
            _damaged(case, f"encoding {encoding!r} is not read here (raw and gzip are)")
        for key in ("line skip", "lineskip", "byte skip", "byteskip"):
            if fields.get(key, "0") != "0":
                _damaged(case, f"{key} {fields[key]} is not read here")
        size = _bytes(fields, "type", _NRRD_BYTES, case)
        if size > 1 and fields.get("endian", "").lower() not in ("little", "big"):
            _damaged(case, "its byte order is not given")
        _check_data(
            path, stream, fields.get("data file"), int(np.prod(shape)) * size, encoding != "raw", 31, case
        )
    return ItkHeader(shape, spacing)


def check_meta(path: Path, case: str) -> ItkHeader:
    """Check header and data length of a MetaImage, ``.mha`` or ``.mhd`` with its data file beside it.

    Raises:
        ScanError: damaged, truncated, or of an encoding or type that is not read.
        GeometryError: not 3D, or without spacing, orientation and origin.
    """
    with path.open("rb") as stream:
        fields = _fields(stream, case, end="ElementDataFile", separator="=", aliases=_META_ALIASES)
        if fields.get("ObjectType", "Image") != "Image" or "ElementDataFile" not in fields:
            _damaged(case, "its header is not that of a MetaImage")
        shape = _shape(fields, "DimSize", "NDims", case)
        if fields.get("ElementNumberOfChannels", "1") != "1":
            _not_scalar(case, f"{fields['ElementNumberOfChannels']} channels")
        for key in ("ElementSpacing", "TransformMatrix", "Offset"):
            if key not in fields:
                _no_geometry(case, key)
        spacing = _triple(fields["ElementSpacing"], "ElementSpacing", case)
        check_spacing(spacing, case)
        if fields.get("BinaryData", "True").lower() != "true" or fields.get("HeaderSize", "0") != "0":
            _damaged(case, "text data and a HeaderSize are not read here")
        size = _bytes(fields, "ElementType", _META_BYTES, case)
        packed = fields.get("CompressedData", "False").lower() == "true"
        name = fields["ElementDataFile"]
        data_file = None if name.upper() == "LOCAL" else name
        _check_data(path, stream, data_file, int(np.prod(shape)) * size, packed, 15, case)
    return ItkHeader(shape, spacing)


def _fields(
    stream: BinaryIO, case: str, *, end: str, separator: str, aliases: dict[str, str] | None = None
) -> dict[str, str]:
    """Read ``key separator value`` lines up to the key ``end``, or up to an empty line where that is ``""``."""
    fields: dict[str, str] = {}
    read = 0
    while line := stream.readline(_HEADER_BYTES):
        read += len(line)
        text = line.decode("utf-8", "replace").strip()
        if not text and not end:
            return fields
        if read > _HEADER_BYTES:
            _damaged(case, "its header does not end")
        key, found, value = (part.strip() for part in text.partition(separator))
        if not text or text.startswith("#") or (not end and ":=" in text):
            continue  # comments, and NRRD's own keys and values of applications
        key = (aliases or {}).get(key, key)
        if not found or key in fields:
            _damaged(case, f"its header names {key[:40]!r} {'twice' if found else 'without a value'}")
        fields[key] = value
        if key == end:
            return fields
    if end or "data file" in fields or "datafile" in fields:
        return fields
    _damaged(case, "it ends within its header")


def _shape(fields: dict[str, str], key: str, count: str, case: str) -> tuple[int, int, int]:
    text = fields.get(key, "")
    if not re.fullmatch(r"\d+( +\d+)*", text) or fields.get(count) != str(len(text.split())):
        _damaged(case, f"{key} {text!r} does not fit {count} {fields.get(count)!r}")
    sizes = [int(size) for size in text.split()]
    # A trailing axis of length 1 would make SimpleITK's image 4D.
    return check_shape(sizes if len(sizes) < 4 or sizes[-1] > 1 else [*sizes[:-1], 1, 2], case)


def _nrrd_spacing(fields: dict[str, str], case: str) -> tuple[float, float, float]:
    for key in ("space", "space directions", "space origin"):
        if key not in fields:
            _no_geometry(case, key)
    if fields["space"].lower() not in _NRRD_SPACES:
        _no_geometry(case, f"a space that names patient axes ({fields['space'][:40]!r})")
    units = set(re.findall(r'"([^"]*)"', fields.get("space units", "")))
    if units - {"mm", ""}:
        _no_geometry(case, f"millimetres (space units {' '.join(sorted(units))[:40]!r})")
    columns = re.findall(r"\(([^)]*)\)", fields["space directions"])
    if len(columns) != 3:
        _no_geometry(case, "three space directions")
    lengths = [
        float(np.linalg.norm(_triple(column.replace(",", " "), "space directions", case)))
        for column in columns
    ]
    check_spacing(lengths, case)
    return lengths[0], lengths[1], lengths[2]


def _triple(text: str, key: str, case: str) -> tuple[float, float, float]:
    try:
        x, y, z = map(float, text.split())
    except ValueError:
        _damaged(case, f"{key} is {text[:60]!r}, not three numbers")
    return x, y, z


def _bytes(fields: dict[str, str], key: str, known: dict[str, int], case: str) -> int:
    name = fields.get(key, "")
    if name not in known:
        _damaged(case, f"voxel type {name[:40]!r} is not read here")
    return known[name]


def _check_data(
    path: Path, stream: BinaryIO, data_file: str | None, size: int, packed: bool, wbits: int, case: str
) -> None:
    if data_file is None:
        found = _length(stream, size, wbits if packed else None, case)
    else:
        beside = path.parent / data_file
        if beside.resolve().parent != path.parent.resolve() or not beside.is_file():
            _damaged(
                case, "its data file is not beside its header (lists and other folders are not followed)"
            )
        with beside.open("rb") as data:
            found = _length(data, size, wbits if packed else None, case)
    if found != size:
        more = "more than" if found > size else f"{found} of"
        _damaged(case, f"it holds {more} the {size} bytes of voxels that its header announces")


def _length(stream: BinaryIO, size: int, wbits: int | None, case: str) -> int:
    """Count the bytes of voxels, unpacking in pieces; stops beyond ``size``."""
    unpack = None if wbits is None else zlib.decompressobj(wbits)
    found = 0
    try:
        while found <= size and (piece := stream.read(_CHUNK)):
            while piece and found <= size:
                if unpack is None:
                    found, piece = found + len(piece), b""
                else:
                    found += len(unpack.decompress(piece, _CHUNK))
                    piece = unpack.unconsumed_tail
        if unpack is not None and found == size and not unpack.eof:
            raise zlib.error("incomplete")
    except zlib.error as error:
        _damaged(case, "its compressed data is truncated or fails its checksum", error)
    return found


def _no_geometry(case: str, what: str) -> NoReturn:
    raise GeometryError(
        f"{case}: the header lacks {what}, so its place in the patient is unknown; export it again with its geometry",
        code="scan.no_orientation",
        case=case,
    )


def _not_scalar(case: str, what: str) -> NoReturn:
    raise ScanError(
        f"{case}: its voxels are {what[:60]}, not one number each; give the scan in HU",
        code="scan.not_scalar",
        case=case,
    )


def _damaged(case: str, what: str, cause: Exception | None = None) -> NoReturn:
    raise ScanError(
        f"{case}: not a readable NRRD or MetaImage file, {what}; copy or export it again",
        code="scan.damaged",
        case=case,
    ) from cause
