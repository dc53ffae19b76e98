"""Strict reading of single-file NIfTI-1 and NIfTI-2, plain or gzipped.

Fields are those of https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h; where readers are known to
disagree about a field (forms absent, pixdim against sform, slope 0, units), the file is refused.
"""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import NoReturn

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from monai_ext.volumes.checks import check_affine, check_shape, check_spacing, largest_shift_mm, spacing_of
from monai_ext.volumes.nifti_extensions import extensions_fit
from monai_ext.volumes.refusals import refuse, refuse_damaged, refuse_geometry

NIFTI_ENDINGS = (".nii.gz", ".nii")

_NIFTI_1, _NIFTI_2 = b"n+1\x00", b"n+2\x00\r\n\x1a\n"
_NOT_SCALAR = {1: "single bits", 32: "complex", 128: "RGB", 1792: "complex", 2048: "complex", 2304: "RGBA"}
_READ = {2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280}  # 8 to 64 bit integers, float32 and float64
_MAX_OFFSET = 1 << 24  # header and extensions; they hold text, not volumes
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
    with _opened(path, case) as stream:
        found = _described(stream, case)
        data = _exactly(stream, found.size, case)
        voxels = np.frombuffer(data, found.dtype).reshape(found.shape, order="F")
        return (voxels if found.scale is None else _scaled(voxels, *found.scale)), found.affine


def read_nifti_header(path: Path, case: str) -> tuple[tuple[int, int, int], np.ndarray]:
    """Check the header of a NIfTI file as `read_nifti` does, and the length of one that is not gzipped.

    Returns:
        The shape in voxels and the ``(4, 4)`` affine in mm, RAS+.

    Raises:
        ScanError, GeometryError: as of `read_nifti`, but for voxels, which are not read.
    """
    with _opened(path, case) as stream:
        found = _described(stream, case)
        if not path.name.lower().endswith(".gz"):
            length = path.stat().st_size - stream.tell()
            if length != found.size:
                _refuse_length(max(length, 0), found.size, case)
    return found.shape, found.affine


@dataclass(frozen=True)
class _Described:
    shape: tuple[int, int, int]
    affine: np.ndarray
    dtype: np.dtype
    scale: tuple[float, float] | None
    size: int  # bytes of voxels


@contextmanager
def _opened(path: Path, case: str) -> Iterator[BufferedIOBase]:
    named = path.name.lower().endswith(".gz")
    with path.open("rb") as stream:
        start = stream.read(2)
    if not start:
        refuse_damaged(case, "it is empty")
    packed = start == b"\x1f\x8b"
    if packed != named:
        refuse_damaged(case, f"it is {'' if packed else 'not '}gzipped, against its name ({path.suffix})")
    try:
        # Damaged numbers are found by looking at them; on the way numpy would warn of some.
        with gzip.open(path) if packed else path.open("rb") as stream, np.errstate(all="ignore"):
            yield stream
    except (EOFError, zlib.error, gzip.BadGzipFile):
        refuse_damaged(case, "its gzip data is truncated or fails its checksum")


def _described(stream: BufferedIOBase, case: str) -> _Described:
    """Read all that comes before the voxels."""
    header = _header(stream, case)
    count = int(header["dim"][0])
    if not 1 <= count <= 7:
        refuse_damaged(case, f"its header gives {count} dimensions")
    shape = check_shape(header["dim"][1 : count + 1], case)
    dtype = _dtype(header, case)
    scale = _scale(header, case)
    affine = _affine(header, shape, case)
    offset, start = float(header["vox_offset"]), int(header["sizeof_hdr"])
    if not start + 4 <= offset <= _MAX_OFFSET or offset != int(offset):
        refuse_damaged(case, f"its header places the voxels at byte {offset:g}")
    if not extensions_fit(stream.read(int(offset) - start), header.endianness):
        refuse_damaged(case, "its header extensions are not as long as they say")
    return _Described(shape, affine, dtype, scale, dtype.itemsize * int(np.prod(shape)))


def _header(stream: BufferedIOBase, case: str) -> nib.Nifti1Header:
    block = stream.read(348)
    # The first number is the header's own size, which tells version and byte order.
    for mark, order in (("<", "<i4"), (">", ">i4")):
        size = int(np.frombuffer(block[:4].ljust(4), order)[0])
        if size == 540:
            block += stream.read(540 - 348)
            if len(block) == 540 and block[4:12] == _NIFTI_2:
                return nib.Nifti2Header(block, endianness=mark, check=False)
        elif size == 348 and block[344:348] == _NIFTI_1:
            return nib.Nifti1Header(block, endianness=mark, check=False)
    refuse_damaged(case, "its first bytes are not the header of a single-file NIfTI")


def _dtype(header: nib.Nifti1Header, case: str) -> np.dtype:
    code = int(header["datatype"])
    if code in _NOT_SCALAR:
        refuse(case, f"its voxels are {_NOT_SCALAR[code]}, not one number each", "give CT", "scan.not_scalar")
    if code not in _READ:
        refuse_damaged(case, f"voxel type {code} is not read here")
    dtype = nib.nifti1.data_type_codes.dtype[code].newbyteorder(header.endianness)
    if int(header["bitpix"]) != 8 * dtype.itemsize:
        refuse_damaged(case, f"its header gives {header['bitpix']} bits to voxels of {8 * dtype.itemsize}")
    return dtype


def _scale(header: nib.Nifti1Header, case: str) -> tuple[float, float] | None:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or np.isnan(slope):
        # Both mean "not scaled"; with an intercept some readers add it and some do not, 1024 HU apart.
        if np.isnan(intercept) or intercept == 0:
            return None
    elif np.isfinite(slope) and np.isfinite(intercept):
        return None if (slope, intercept) == (1, 0) else (slope, intercept)
    what = f"slope {slope:g} with intercept {intercept:g} leaves its values undefined"
    refuse(case, what, "set the slope or export it again", "scan.slope")


def _scaled(voxels: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    if voxels.dtype.kind == "f":
        return voxels * slope + intercept
    # Whole numbers come out as float32, computed in float64 slice by slice: all at once would take nine times
    # the memory of the file's int16.
    scaled = np.empty(voxels.shape, np.float32, order="F")
    for z in range(voxels.shape[2]):
        scaled[:, :, z] = voxels[:, :, z] * slope + intercept
    return scaled


def _affine(header: nib.Nifti1Header, shape: tuple[int, int, int], case: str) -> np.ndarray:
    pixdim = np.asarray(header["pixdim"][1:4], dtype=float)
    check_spacing(pixdim, case)
    units = int(header["xyzt_units"]) & 7
    if units not in (0, 2):  # unknown, mm
        _contradiction(case, f"unit of length {units} is not mm, which only some readers heed", "scan.units")
    forms = _forms(header, case)
    for form in forms:
        check_affine(form, case)
    spacing = spacing_of(forms[0])
    if not np.allclose(spacing, pixdim, rtol=1e-3, atol=0):  # float32, and writers that print few digits
        what = f"pixdim says {_mm(pixdim)} and the sform says {_mm(spacing)}"
        _contradiction(case, what, "scan.spacing_contradiction")
    # A float32 quaternion near a half turn is off by up to 0.3 mm at the edge of a body, so half a voxel.
    if len(forms) == 2 and (shift := largest_shift_mm(shape, *forms)) > 0.5 * min(spacing):
        _contradiction(case, f"qform and sform place a corner {shift:.2f} mm apart", "scan.forms")
    return forms[0]


def _forms(header: nib.Nifti1Header, case: str) -> list[np.ndarray]:
    """Return the affines that the header sets, the sform first: it is the more exact one."""
    qform_code, sform_code = int(header["qform_code"]), int(header["sform_code"])
    if not (0 <= qform_code <= 5 and 0 <= sform_code <= 5):
        refuse_damaged(case, f"qform code {qform_code} or sform code {sform_code} is none from 0 to 5")
    forms = [np.asarray(header.get_sform(), dtype=float)] if sform_code else []
    if qform_code:
        try:
            forms.append(np.asarray(header.get_qform(), dtype=float))
        except (ValueError, HeaderDataError):
            _contradiction(case, "its qform is no rotation", "scan.qform")
    if not forms:
        what = "neither qform nor sform is set, so left and right are unknown"
        _contradiction(case, what, "scan.no_orientation")
    return forms


def _exactly(stream: BufferedIOBase, size: int, case: str) -> bytearray:
    # In pieces, so that a header that lies about its size costs no memory; to the end, where gzip checks.
    data = bytearray()
    while len(data) <= size and (piece := stream.read(_CHUNK)):
        data += piece
    if len(data) != size:
        _refuse_length(len(data), size, case)
    return data


def _refuse_length(found: int, size: int, case: str) -> NoReturn:
    amount = f"{found} of" if found < size else "more than"
    refuse_damaged(case, f"it holds {amount} the {size} bytes of voxels that its header announces")


def _mm(spacing: np.ndarray | tuple[float, ...]) -> str:
    return " x ".join(f"{value:g}" for value in spacing) + " mm"


def _contradiction(case: str, what: str, code: str) -> NoReturn:
    refuse_geometry(case, what, "set the header right or export it again", code)
