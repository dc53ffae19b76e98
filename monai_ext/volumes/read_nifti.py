"""Strict reading of single-file NIfTI-1 and NIfTI-2, plain or gzipped.

Fields are those of https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h; where readers are known to disagree
about a field (forms absent, pixdim against sform, slope 0, units), the file is refused.
"""

import gzip
import zlib
from pathlib import Path
from typing import IO, NoReturn

import nibabel as nib
import numpy as np

from monai_ext.base import GeometryError, ScanError
from monai_ext.volumes.checks import check_affine, check_shape, check_spacing, largest_shift_mm, spacing_of

NIFTI_ENDINGS = (".nii.gz", ".nii")

_HEADERS = {348: (nib.Nifti1Header, b"n+1\x00", 344), 540: (nib.Nifti2Header, b"n+2\x00\r\n\x1a\n", 4)}
_NOT_SCALAR = {1: "single bits", 32: "complex", 128: "RGB", 1792: "complex", 2048: "complex", 2304: "RGBA"}
_CHUNK = 1 << 24


def read_nifti(path: Path, case: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a NIfTI file.

    Returns:
        The voxels ``(x, y, z)``, scaled by slope and intercept where the header has them, and the ``(4, 4)``
        affine in mm, RAS+.

    Raises:
        ScanError: damaged, truncated, or of a type that is no scalar volume.
        GeometryError: shape, spacing or affine are absent, impossible or contradict each other.
    """
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        named = path.name.lower().endswith(".gz")
        if packed != named:
            _damaged(
                case, f"it is {'' if packed else 'not '}gzipped, against its name {NIFTI_ENDINGS[not named]}"
            )
        try:
            # mypy: both are readable binary streams, which typeshed gives no common type.
            stream: IO[bytes] = gzip.open(raw) if packed else raw  # type: ignore[assignment]
            return _read(stream, case)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            _damaged(case, "its gzip data is truncated or fails its checksum", error)


def _read(stream: IO[bytes], case: str) -> tuple[np.ndarray, np.ndarray]:
    header = _header(stream, case)
    shape = check_shape(_dimensions(header, case), case)
    dtype = _dtype(header, case)
    scale = _scale(header, case)
    affine = _affine(header, shape, case)
    offset, start = float(header["vox_offset"]), int(header["sizeof_hdr"])
    if not start + 4 <= offset < 2**31 or offset != int(offset):
        _damaged(case, f"its voxels start at byte {offset:g}")
    data = _exactly(stream, int(offset) - start, dtype.itemsize * int(np.prod(shape)), case)
    voxels = np.frombuffer(data, dtype).reshape(shape, order="F")
    if scale is not None:
        voxels = voxels * scale[0] + scale[1]
    return voxels, affine


def _header(stream: IO[bytes], case: str) -> nib.Nifti1Header:
    block = stream.read(348)
    if not block:
        _damaged(case, "it is empty")
    sizes = {order: int.from_bytes(block[:4], order) for order in ("little", "big")}  # type: ignore[arg-type]
    for order, size in sizes.items():
        if size not in _HEADERS:
            continue
        kind, magic, place = _HEADERS[size]
        block += stream.read(size - len(block))
        if len(block) == size and block[place : place + len(magic)] == magic:
            return kind(binaryblock=block, endianness="<" if order == "little" else ">", check=False)
        if len(block) < size:
            _damaged(case, f"it ends after {len(block)} bytes, within its header")
    _damaged(case, "its first bytes are not those of a single-file NIfTI")


def _dimensions(header: nib.Nifti1Header, case: str) -> list[int]:
    count = int(header["dim"][0])
    if not 1 <= count <= 7:
        _damaged(case, f"its header gives {count} dimensions")
    return [int(size) for size in header["dim"][1 : count + 1]]


def _dtype(header: nib.Nifti1Header, case: str) -> np.dtype:
    code = int(header["datatype"])
    if code in _NOT_SCALAR:
        raise ScanError(
            f"{case}: its voxels are {_NOT_SCALAR[code]}, not one number each; give the scan in HU",
            code="scan.not_scalar",
            case=case,
        )
    known = nib.nifti1.data_type_codes
    if code == 1536 or code not in known.code or known.dtype[code].itemsize == 0:
        _damaged(case, f"voxel type {code} is not read here")
    dtype = known.dtype[code].newbyteorder(header.endianness)
    if int(header["bitpix"]) != 8 * dtype.itemsize:
        _damaged(case, f"voxel type {code} has {8 * dtype.itemsize} bits, its header says {header['bitpix']}")
    return dtype


def _scale(header: nib.Nifti1Header, case: str) -> tuple[float, float] | None:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or np.isnan(slope):
        # Both mean "not scaled"; with an intercept some readers add it and some do not, 1024 HU apart.
        if np.isnan(intercept) or intercept == 0:
            return None
    elif np.isfinite(slope) and np.isfinite(intercept):
        return None if (slope, intercept) == (1, 0) else (slope, intercept)
    raise ScanError(
        f"{case}: slope {slope:g} with intercept {intercept:g} leaves its HU undefined; export it again with slope 1",
        code="scan.slope",
        case=case,
    )


def _affine(header: nib.Nifti1Header, shape: tuple[int, int, int], case: str) -> np.ndarray:
    pixdim = np.asarray(header["pixdim"][1:4], dtype=float)
    check_spacing(pixdim, case)
    units = header["xyzt_units"] & 7
    if units not in (0, 2):  # unknown, mm
        _contradiction(
            case, f"its unit of length has code {units}, which readers take for mm or scale", "scan.units"
        )
    codes = int(header["qform_code"]), int(header["sform_code"])
    if not all(0 <= code <= 5 for code in codes):
        _damaged(case, f"qform code {codes[0]} and sform code {codes[1]} are not both from 0 to 5")
    if codes == (0, 0):
        _contradiction(
            case, "neither qform nor sform is set, so left and right are unknown", "scan.no_orientation"
        )
    forms = []
    if codes[1]:
        forms.append(np.asarray(header.get_sform(), dtype=float))
    if codes[0]:
        try:
            forms.append(np.asarray(header.get_qform(), dtype=float))
        except (ValueError, nib.spatialimages.HeaderDataError):
            _contradiction(case, "its qform is not a rotation", "scan.qform")
    for form in forms:
        check_affine(form, case)
    spacing = spacing_of(forms[0])
    if not np.allclose(spacing, pixdim, rtol=1e-3, atol=0):  # float32, and writers that print few digits
        _contradiction(
            case, f"pixdim says {_mm(pixdim)} and the sform says {_mm(spacing)}", "scan.spacing_contradiction"
        )
    if len(forms) == 2:
        shift = largest_shift_mm(shape, *forms)
        # A float32 quaternion near a half turn is off by up to 0.3 mm at the edge of a body.
        if shift > 0.5 * min(spacing):
            _contradiction(case, f"qform and sform place a corner {shift:.2f} mm apart", "scan.forms")
    return forms[0]


def _exactly(stream: IO[bytes], skip: int, size: int, case: str) -> bytearray:
    stream.read(skip)
    # In pieces, so that a header that lies about its size costs no memory; to the end, where gzip checks its sum.
    data = bytearray()
    while piece := stream.read(_CHUNK):
        data += piece
        if len(data) > size:
            _damaged(case, f"it holds more than the {size} bytes of voxels that its header announces")
    if len(data) < size:
        _damaged(case, f"it holds {len(data)} of the {size} bytes of voxels that its header announces")
    return data


def _mm(spacing: np.ndarray | tuple[float, ...]) -> str:
    return " x ".join(f"{value:g}" for value in spacing) + " mm"


def _damaged(case: str, what: str, cause: Exception | None = None) -> NoReturn:
    raise ScanError(
        f"{case}: not a readable NIfTI file, {what}; copy or export it again", code="scan.damaged", case=case
    ) from cause


def _contradiction(case: str, what: str, code: str) -> NoReturn:
    raise GeometryError(f"{case}: {what}; set the header right or export it again", code=code, case=case)
