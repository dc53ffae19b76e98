"""Bad NIfTI: every field of the header wrong in turn, and every way to lose or add bytes."""

import gzip
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

NAN, INF = float("nan"), float("inf")
ROWS = ("srow_x", "srow_y", "srow_z")


def rows(*values: tuple[float, ...]) -> dict[str, Any]:
    return dict(zip(ROWS, values, strict=True)) | {"qform_code": 0}


HEADERS: dict[str, dict[str, Any]] = {
    **{f"sizeof_hdr {size}": {"sizeof_hdr": size} for size in (0, 347, 540, -348)},
    **{f"{count} dimensions": {"dim": [count]} for count in (0, -1, 8, 32767)},
    "2D": {"dim": [2, 7, 143]},
    "2D as 3D": {"dim": [3, 7, 143, 1]},
    "1D": {"dim": [1, 1001]},
    "4D of several": {"dim": [4, 7, 11, 1, 13]},
    "an axis of 0": {"dim": [3, 7, 0, 13]},
    "a negative axis": {"dim": [3, 7, -11, 13]},
    "two negative axes": {"dim": [3, -7, -11, 13]},
    "huge": {"dim": [3, 32767, 32767, 32767]},
    "more voxels than there are": {"dim": [3, 7, 11, 14]},
    "fewer voxels than there are": {"dim": [3, 7, 11, 12]},
    "fourth axis of 0": {"dim": [4, 7, 11, 13, 0]},
    **{f"datatype {code}": {"datatype": code} for code in (0, 1, 3, 255, 1536, -4)},
    "RGB": {"datatype": 128, "bitpix": 24},
    "RGBA": {"datatype": 2304, "bitpix": 32},
    "complex": {"datatype": 32, "bitpix": 64},
    "long double": {"datatype": 1536, "bitpix": 128},
    **{f"bitpix {bits}": {"bitpix": bits} for bits in (0, 8, 32, -16)},
    "another type of the same width": {"datatype": 512, "bitpix": 16},
    **{f"offset {at}": {"vox_offset": at} for at in (-352, 0, 16, 348, 352.5, 353, 400, 1e9, NAN, INF, -INF)},
    "magic of a pair": {"magic": b"ni1"},
    "magic of version 2": {"magic": b"n+2"},
    "no magic": {"magic": b""},
    "ANALYZE": {"magic": b"", "vox_offset": 0},
    "slope 0, intercept": {"scl_slope": 0, "scl_inter": -1024},
    "slope NaN, intercept": {"scl_slope": NAN, "scl_inter": -1024},
    "slope infinite": {"scl_slope": INF},
    "slope, intercept NaN": {"scl_slope": 2, "scl_inter": NAN},
    "intercept infinite": {"scl_inter": -INF},
    "slope next to nothing": {"scl_slope": 1e-38},
    "slope that overflows": {"scl_slope": 3e38},
    "slope that turns the sign": {"scl_slope": -1},
    **{f"pixdim {mm}": {"pixdim": [1, 1.5, mm, 2.5]} for mm in (0, -2, NAN, INF, 1e6, 1e-6)},
    "pixdim unlike the sform": {"pixdim": [1, 9, 2, 2.5]},
    "pixdim permuted": {"pixdim": [1, 2.5, 2, 1.5]},
    **{f"qfac {qfac}, qform alone": {"pixdim": [qfac], "sform_code": 0} for qfac in (NAN, 5, 0.5)},
    "qfac of the mirror": {"pixdim": [-1]},
    "quaternion too long": {"quatern": [1, 1, 1], "sform_code": 0},
    "quaternion NaN": {"quatern": [NAN, 0, 0], "sform_code": 0},
    "quaternion turned": {"quatern": [0, 0, 1]},
    "qform elsewhere": {"qoffset": [35, 6, 7]},
    "qform at NaN": {"qoffset": [NAN, 6, 7]},
    "qform at the end of the world": {"qoffset": [1e30, 6, 7], "sform_code": 0},
    "sform singular": rows((1.5, 0, 0, 0), (0, 2, 0, 0), (0, 1.5, 0, 2.5)),
    "sform 0": rows((0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0)),
    "sform NaN": rows((1.5, 0, 0, NAN), (0, 2, 0, 0), (0, 0, 2.5, 0)),
    "sform infinite": rows((1.5, 0, 0, INF), (0, 2, 0, 0), (0, 0, 2.5, 0)),
    "sform sheared": rows((1.5, 0, 0, 0), (0, 2, 0.5, 0), (0, 0, 2.4495, 0)),
    "sform of another spacing": rows((3, 0, 0, 0), (0, 2, 0, 0), (0, 0, 2.5, 0)),
    "sform far away": rows((1.5, 0, 0, 1e9), (0, 2, 0, 0), (0, 0, 2.5, 0)),
    "no forms": {"qform_code": 0, "sform_code": 0},
    **{f"sform code {code}": {"sform_code": code} for code in (-1, 6, 256)},
    "qform code 77": {"qform_code": 77},
    **{f"unit {unit}": {"xyzt_units": unit} for unit in (1, 3, 5, 7)},
}


@pytest.mark.parametrize("bad", HEADERS)
@pytest.mark.parametrize("ending", ["nii", pytest.param("nii.gz", marks=pytest.mark.full)])
def test_header(tmp_path, nifti, limited, judged, bad, ending):
    content = nifti(**HEADERS[bad])
    path = tmp_path / f"case_7.{ending}"
    path.write_bytes(gzip.compress(content) if ending == "nii.gz" else content)
    judged("NIfTI", f"{bad}, {ending}", limited("read_scan", path), str(tmp_path))


def crc_wrong(packed: bytes) -> bytes:
    return packed[:-8] + bytes([packed[-8] ^ 1]) + packed[-7:]


def of_size(count: int) -> Callable[[bytes], bytes]:
    """Return a file of gigabytes of zeros, packed to megabytes."""

    def bomb(content: bytes) -> bytes:
        header = bytearray(content[:352])
        struct.pack_into("<8h", header, 40, 3, count, count, count, 1, 1, 1, 1)
        pack = zlib.compressobj(9, wbits=31)
        pieces = [pack.compress(bytes(header))]
        pieces += [pack.compress(bytes(count * count * 2)) for _ in range(count)]
        return b"".join([*pieces, pack.flush()])

    return bomb


def extension(size: int, given: int = 16) -> Callable[[Any], bytes]:
    """Return a file with an extension that says it has ``size`` bytes, and has ``given``."""
    return lambda nifti: nifti(between=b"\1\0\0\0" + struct.pack("<2i", size, 6) + bytes(given - 8))


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "wrong checksum": lambda content: crc_wrong(gzip.compress(content)),
    "wrong length": lambda content: gzip.compress(content)[:-1] + b"\1",
    "no trailer": lambda content: gzip.compress(content)[:-8],
    "half": lambda content: gzip.compress(content)[:900],
    "header alone": lambda content: gzip.compress(content[:352]),
    "header of gzip alone": lambda content: gzip.compress(content)[:10],
    "bits": lambda content: gzip.compress(content)[:400] + b"\xff\xff" + gzip.compress(content)[402:],
    "garbage behind": lambda content: gzip.compress(content) + b"garbage",
    "twice": lambda content: gzip.compress(content) * 2,
    "twice packed": lambda content: gzip.compress(gzip.compress(content)),
    "not packed": lambda content: content,
    "of nothing": lambda content: gzip.compress(b""),
    "bzip2": lambda content: b"BZh9" + content,
    "method unknown": lambda content: b"\x1f\x8b\x07" + gzip.compress(content)[3:],
    "bomb behind the header": lambda content: gzip.compress(content[:352] + bytes(1 << 26)),
    "bomb of a scan": of_size(950),
}
PLAIN: dict[str, Callable[[Any], bytes]] = {
    "nothing": lambda nifti: b"",
    **{f"{size} bytes": lambda nifti, size=size: nifti()[:size] for size in (1, 4, 347, 348, 350, 352, 353, 1000)},
    "a byte short": lambda nifti: nifti()[:-1],
    "a byte long": lambda nifti: nifti() + b"\0",
    "packed": lambda nifti: gzip.compress(nifti()),
    "text": lambda nifti: b"<html>not found</html>\n" * 90,
    "zeros": lambda nifti: bytes(2354),
    "line ends changed": lambda nifti: nifti()[:348].replace(b"\0", b"\r\0", 1) + nifti()[348:],
    "byte order of the header alone": lambda nifti: nifti(order=">")[:352] + nifti()[352:],
    "byte order of its first number alone": lambda nifti: struct.pack(">i", 348) + nifti()[4:],
    "extension of no size": extension(0),
    "extension of a negative size": extension(-16),
    "extension of 2 GB": extension(2**31 - 1),
    "extension beyond the voxels' start": extension(32),
    "extension cut short": lambda nifti: nifti(between=b"\1\0\0\0" + bytes(3)),
    "extension of letters": lambda nifti: nifti(between=b"\1\0\0\0" + b"abcdefgh" * 4),
}


LONG = [pytest.param(bad, marks=pytest.mark.full) if "bomb of" in bad else bad for bad in PACKED]


@pytest.mark.parametrize("bad", LONG)
def test_packing(tmp_path, nifti, limited, judged, bad):
    path = tmp_path / "case_7.nii.gz"
    path.write_bytes(PACKED[bad](nifti()))
    judged("NIfTI", f"gzip: {bad}", limited("read_scan", path), str(tmp_path))


@pytest.mark.parametrize("bad", PLAIN)
def test_bytes(tmp_path, nifti, limited, judged, bad):
    path = tmp_path / "case_7.nii"
    path.write_bytes(PLAIN[bad](nifti))
    judged("NIfTI", f"bytes: {bad}", limited("read_scan", path), str(tmp_path))


def changed(change: Callable[[np.ndarray], object], dtype: str) -> Callable[[Any], np.ndarray]:
    def make(nifti: Any) -> np.ndarray:
        voxels = nifti.voxels().astype(dtype)
        return voxels if (found := change(voxels)) is None else found

    return make


VOXELS: dict[str, Callable[[Any], np.ndarray]] = {
    "one NaN": changed(lambda voxels: voxels.__setitem__((3, 4, 5), NAN), "f4"),
    "one infinite": changed(lambda voxels: voxels.__setitem__((3, 4, 5), -INF), "f8"),
    "all NaN": changed(lambda voxels: voxels.fill(NAN), "f4"),
    "constant": changed(lambda voxels: voxels.fill(-1000), "i2"),
    "zeros": changed(lambda voxels: voxels.fill(0), "f8"),
    "beyond float32": changed(lambda voxels: voxels.__setitem__((3, 4, 5), 1e300), "f8"),
    "beyond int16": changed(lambda voxels: voxels.__setitem__((3, 4, 5), 70000), "i4"),
    "unsigned, wrapped": lambda nifti: nifti.voxels().astype("i2").astype("u2"),
    "without rescale": lambda nifti: (nifti.voxels() + 1024).astype("u2"),
    "bytes of a picture": lambda nifti: ((nifti.voxels() + 1024) // 5).astype("u1"),
    "from 0 to 1": lambda nifti: ((nifti.voxels() + 1024) / 1200).astype("f4"),
    "4D": lambda nifti: np.stack([nifti.voxels().astype("i2")] * 2, axis=-1),
}


@pytest.mark.parametrize("bad", VOXELS)
def test_voxels(tmp_path, nifti, limited, judged, bad):
    path = tmp_path / "case_7.nii"
    path.write_bytes(nifti(VOXELS[bad](nifti)))
    judged("NIfTI", f"voxels: {bad}", limited("read_scan", path), str(tmp_path))


def pipe(folder: Path, nifti: Any) -> Path:
    os.mkfifo(folder / "case_7.nii")
    return folder / "case_7.nii"


def link(folder: Path, to: str) -> Path:
    (folder / "case_7.nii").symlink_to(to)
    return folder / "case_7.nii"


def pair(folder: Path, nifti: Any, ending: str) -> Path:
    (folder / "case_7.hdr").write_bytes(nifti(magic=b"ni1", vox_offset=0)[:348])
    (folder / "case_7.img").write_bytes(nifti()[352:])
    return folder / f"case_7.{ending}"


def named(folder: Path, nifti: Any, name: str, content: bytes | None = None) -> Path:
    (folder / name).write_bytes(nifti() if content is None else content)
    return folder / name


PLACES: dict[str, Callable[[Path, Any], Path]] = {
    "missing": lambda folder, nifti: folder / "case_7.nii",
    "a folder of that name": lambda folder, nifti: (folder / "case_7.nii").mkdir() or folder / "case_7.nii",
    "a link to itself": lambda folder, nifti: link(folder, "case_7.nii"),
    "a link to nothing": lambda folder, nifti: link(folder, "gone.nii"),
    "a link to what never ends": lambda folder, nifti: link(folder, "/dev/zero"),
    "a pipe": pipe,
    "header of a pair": lambda folder, nifti: pair(folder, nifti, "hdr"),
    "voxels of a pair": lambda folder, nifti: pair(folder, nifti, "img"),
    "another ending": lambda folder, nifti: named(folder, nifti, "case_7.dat"),
    "no ending": lambda folder, nifti: named(folder, nifti, "case_7"),
    "a name too long": lambda folder, nifti: folder / f"{'x' * 300}.nii",
    "a path too long": lambda folder, nifti: folder / "/".join(["x" * 200] * 25) / "case_7.nii",
    "a zero byte in the name": lambda folder, nifti: folder / "case\0_7.nii",
    "below a file": lambda folder, nifti: named(folder, nifti, "case_7.nii") / "more.nii",
    "a NRRD by its name": lambda folder, nifti: named(folder, nifti, "case_7.nrrd"),
    "a MetaImage by its name": lambda folder, nifti: named(folder, nifti, "case_7.mha"),
    "a zip by its name": lambda folder, nifti: named(folder, nifti, "case_7.zip"),
}


@pytest.mark.parametrize("bad", PLACES)
@pytest.mark.parametrize("reader", ["read_scan", "read_header"])
def test_places(tmp_path, nifti, limited, judged, bad, reader):
    path = PLACES[bad](tmp_path, nifti)
    judged("NIfTI", f"{bad}, {reader}", limited(reader, path), str(tmp_path))
