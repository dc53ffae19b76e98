"""What the headers of NRRD and MetaImage files share: fields, numbers, and the length of the data."""

import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np

from monai_ext.volumes.checks import check_shape
from monai_ext.volumes.refusals import refuse, refuse_damaged, refuse_geometry

_HEADER_BYTES = 1 << 20
_CHUNK = 1 << 24
GZIP, ZLIB = 31, 15  # zlib's window bits
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)
_DIGITS = 18  # of a size; Python converts no more than some thousand
_FIELDS = {
    *("type", "dimension", "sizes", "encoding", "endian", "kinds", "space", "space directions", "space origin"),
    *("space units", "data file", "line skip", "byte skip", "measurement frame", "space dimension", "thicknesses"),
    *("ObjectType", "NDims", "DimSize", "ElementType", "ElementSpacing", "ElementByteOrderMSB", "ElementDataFile"),
    *("TransformMatrix", "Offset", "BinaryData", "CompressedData", "CompressedDataSize", "HeaderSize"),
    *(
        "ElementNumberOfChannels",
        "AnatomicalOrientation",
        "CenterOfRotation",
        "DistanceUnits",
        "ElementSize",
        "Modality",
    ),
}
_COUNTS = {3: "three", 9: "nine"}


@dataclass(frozen=True)
class ItkHeader:
    """What a header promises: ``shape`` in voxels and the ``(4, 4)`` ``affine``, voxel index to mm in RAS+."""

    shape: tuple[int, int, int]
    affine: np.ndarray


def lines(stream: BinaryIO, case: str) -> list[str]:
    """Read header lines up to an empty one, the one that starts the data, or the end of the file."""
    found: list[str] = []
    left = _HEADER_BYTES
    while line := stream.readline(left):
        left -= len(line)
        if not left:
            refuse_damaged(case, "its header does not end")
        found.append(line.decode("utf-8", "replace").strip())
        if not found[-1] or found[-1].startswith("ElementDataFile"):
            break
    return found


def fields(header: list[str], separator: str, aliases: dict[str, str], case: str) -> dict[str, str]:
    """Split ``key separator value`` lines, refusing keys given twice: readers differ in which they take."""
    found: dict[str, str] = {}
    for line in header:
        key, split, value = (part.strip() for part in line.partition(separator))
        key = aliases.get(key, key)
        if not (key.isascii() and key.isprintable()):
            refuse_damaged(case, "its header is not text")
        if not split or key in found:
            # What is no field of the format may be about the patient.
            named = repr(key) if key in _FIELDS else "a field"
            refuse_damaged(case, f"its header names {named} {'twice' if split else 'without a value'}")
        found[key] = value
    return found


def shape_of(text: str, count: str, case: str) -> tuple[int, int, int]:
    """Return the sizes of ``text``, as many as ``count`` says, if they are those of a volume."""
    sizes = text.split()
    if not sizes or not all(size.isdecimal() and len(size) <= _DIGITS for size in sizes) or count != str(len(sizes)):
        refuse_damaged(case, f"its sizes {text[:60]!r} are not {count[:10]!r} whole numbers")
    if len(sizes) > 3:
        refuse_geometry(case, f"{'x'.join(sizes)} voxels are a {count}D image", "give one 3D volume", "scan.dimensions")
    return check_shape([int(size) for size in sizes], case)


def numbers_of(text: str, key: str, case: str, count: int = 3) -> np.ndarray:
    """Return ``count`` numbers."""
    words = text.split()
    # Python would take 1_5 for 15, where others read 1.
    if len(words) != count or not all(_NUMBER.fullmatch(word) for word in words):
        refuse_damaged(case, f"its {key} is {text[:60]!r}, not {_COUNTS[count]} numbers")
    return np.array([float(word) for word in words])


def affine_of(columns: np.ndarray, origin: np.ndarray, to_ras: tuple[float, float, float]) -> np.ndarray:
    """Return the ``(4, 4)`` affine of the steps along the three axes, turned to RAS+ by a sign for each row."""
    affine = np.eye(4)
    # Not by a matrix: infinite numbers times its zeros would be warned of, and are refused later.
    affine[:3] = np.c_[columns, origin] * np.reshape(to_ras, (3, 1))
    return affine


def check_data(
    path: Path,
    stream: BinaryIO,
    data_file: str | None,
    size: int,
    packing: int | None,
    case: str,
    packed_size: str = "",
) -> None:
    """Refuse data that are not exactly ``size`` bytes when unpacked.

    Args:
        path: the header's file.
        stream: that file, where attached data begin.
        data_file: name of the detached data, which must lie beside the header; ``None`` when attached.
        size: bytes that the header announces.
        packing: ``GZIP``, ``ZLIB`` or ``None`` for plain bytes.
        case: the id for messages.
        packed_size: bytes that the header announces of the packed data, if it does.
    """
    if data_file is None:
        found = _length(stream, size, packing, packed_size, case)
    else:
        beside = path.parent / data_file
        if not beside.is_file() or beside.resolve().parent != path.parent.resolve():
            refuse_damaged(case, "its data file is not beside its header")
        with beside.open("rb") as data:
            found = _length(data, size, packing, packed_size, case)
    if found != size:
        amount = f"{found} of" if found < size else "more than"
        refuse_damaged(case, f"it holds {amount} the {size} bytes of voxels that its header announces")


def _length(stream: BinaryIO, size: int, packing: int | None, packed_size: str, case: str) -> int:
    """Count the bytes, unpacking in pieces; stops beyond ``size``."""
    left = os.fstat(stream.fileno()).st_size - stream.tell()
    if packed_size and packed_size != str(left):
        refuse_damaged(case, f"its header announces {packed_size[:40]!r} bytes of compressed data, {left} are there")
    unpack = None if packing is None else zlib.decompressobj(packing)
    found = 0
    try:
        while found <= size and (piece := stream.read(_CHUNK)):
            if unpack is None:
                found += len(piece)
            while unpack is not None and piece and found <= size:
                found += len(unpack.decompress(piece, _CHUNK))
                piece = unpack.unconsumed_tail
    except zlib.error:
        refuse_damaged(case, "its compressed data fail their checksum")
    if unpack is not None and found == size and not unpack.eof:
        refuse_damaged(case, "its compressed data are truncated")
    if unpack is not None and found == size and (unpack.unused_data or stream.read(1)):
        refuse_damaged(case, "more follows its compressed data")
    return found


def refuse_without(case: str, what: str) -> NoReturn:
    """Raise for a header that does not say where the volume lies."""
    what = f"its header lacks {what}, so its place in the patient is unknown"
    refuse_geometry(case, what, "export it again with its geometry", "scan.no_orientation")


def refuse_not_scalar(case: str, what: str) -> NoReturn:
    """Raise for voxels that are vectors or colours."""
    refuse(case, f"its voxels are {what[:60]}, not one number each", "give CT", "scan.not_scalar")
