"""Small files that unpack to gigabytes or nest without end: refused within ten seconds and a gigabyte."""

import gzip
import os
import resource
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from monai_ext.base import InputError
from monai_ext.volumes import open_series, read_labels, read_mask, read_picture, read_scan, reading_pool

DEPTH = 100_000
GIB = 2**30
_ITEM, _SEQUENCE = (
    struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF),
    struct.pack("<HH2sHI", 0x40, 0xA730, b"SQ", 0, 2**32 - 1),
)


def element(tag: tuple[int, int], kind: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", *tag, kind, len(value)) + value


def dicom(content: bytes, syntax: bytes = b"1.2.840.10008.1.2.1\0") -> bytes:
    meta = element((2, 0x10), b"UI", syntax)
    return bytes(128) + b"DICM" + element((2, 0), b"UL", struct.pack("<I", len(meta))) + meta + content


def nested_without_end() -> bytes:
    return dicom(element((8, 0x60), b"CS", b"CT") + (_SEQUENCE + _ITEM) * DEPTH)


def nested_and_closed() -> bytes:
    ends = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return dicom(element((8, 0x60), b"CS", b"CT") + (_SEQUENCE + _ITEM) * DEPTH + ends * DEPTH)


def nested_by_length() -> bytes:
    """Every sequence tells how long it is, so that each level copies all that is below it."""
    size, levels = 20 * DEPTH, []
    for level in range(DEPTH):
        inside = size - 20 * level - 12
        levels.append(struct.pack("<HH2sHI", 0x40, 0xA730, b"SQ", 0, inside))
        levels.append(struct.pack("<HHI", 0xFFFE, 0xE000, inside - 8))
    return dicom(element((8, 0x60), b"CS", b"CT") + b"".join(levels))


def deflated() -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = packer.compress(bytes(2**24)) * 1 + packer.flush()
    return dicom(zeros, b"1.2.840.10008.1.2.1.99\0\0"[:24])


def many_elements() -> bytes:
    """A quarter of a million private elements without a value, and no pixels."""
    tags = ((group, number) for group in (0x09, 0x0B, 0x0D, 0x0F) for number in range(0x1000, 0xFFFF))
    return dicom(b"".join(struct.pack("<HH2sH", *tag, b"LO", 0) for tag in tags))


SERIES = {
    "sequences without end": nested_without_end,
    "nested sequences": nested_and_closed,
    "nested sequences with lengths": nested_by_length,
    "deflated": deflated,
    "elements": many_elements,
}


def nifti(shape: tuple[int, int, int], code: int, size: int) -> bytes:
    header = bytearray(352)
    header[:4], header[344:348] = struct.pack("<i", 348), b"n+1\0"
    header[40:56] = struct.pack("<8h", 3, *shape, 1, 1, 1, 1)
    header[70:74] = struct.pack("<hh", code, 8 * size)
    header[76:108] = struct.pack("<8f", 1, 1.5, 1.5, 1.5, 0, 0, 0, 0)
    header[108:120] = struct.pack("<3f", 352, 1, 0)
    header[123], header[254:256] = 2, struct.pack("<h", 1)
    header[280:328] = struct.pack("<12f", 1.5, 0, 0, 0, 0, 1.5, 0, 0, 0, 0, 1.5, 0)
    return bytes(header)


def unpacking_to(start: bytes, gib: float) -> bytes:
    """A gzip file of many members: as small as one stream, and made in a moment."""
    return gzip.compress(start) + gzip.compress(bytes(2**24), 9) * int(gib * 64)


def judged(refused: InputError, started: float, record: object, family: str, case: str, code: str) -> None:
    seconds = spent() - started
    peak = max(map(peak_bytes, reading_pool._pool._all), default=0)
    fits = seconds < 10 and peak < GIB
    record("fault", [family, case, "caught" if fits else "hung"])
    assert fits, (seconds, peak)
    assert (refused.code, refused.case) == (code, "case_7")
    assert "SENTINEL" not in str(refused)


def spent() -> float:
    """Seconds of the processor that reading processes took, for the clock also shows what else the machine does."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    live = [Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii") for process in reading_pool._pool._all]
    ticks = sum(sum(map(int, stat.rpartition(")")[2].split()[11:13])) for stat in live)
    return ended.ru_utime + ended.ru_stime + ticks / os.sysconf("SC_CLK_TCK")


def peak_bytes(process: object) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


@pytest.fixture(autouse=True)
def _fresh_readers(write_ct, tmp_path):
    reading_pool.end_readers()
    read_scan(write_ct(tmp_path / "start.nii"))  # limits count from when it has started


@pytest.mark.parametrize("use", [read_scan, pytest.param(open_series, marks=pytest.mark.full)])
@pytest.mark.parametrize("name", SERIES)
def test_dicom(tmp_path, name, use, record_property):
    folder = tmp_path / "SENTINEL"
    folder.mkdir()
    for index in range(2):
        (folder / f"SENTINEL{index}").write_bytes(SERIES[name]())
    started = spent()
    with pytest.raises(InputError) as caught:
        use(folder, case="case_7")
    codes = {
        "elements": "dicom.truncated",
        "deflated": "dicom.transfer_syntax",
        "nested sequences with lengths": "dicom.truncated",
    }
    judged(caught.value, started, record_property, "DICOM bombs", name, codes.get(name, "dicom.unreadable"))


NIFTI = {
    "more than announced": (nifti((13, 11, 7), 4, 2), 4, "scan.damaged"),
    "as much as announced": (nifti((2048, 1024, 1024), 4, 2), 4, "scan.memory"),
}


@pytest.mark.parametrize("name", NIFTI)
@pytest.mark.parametrize("use", [read_scan, pytest.param(read_labels, marks=pytest.mark.full)])
def test_nifti(tmp_path, name, use, record_property, monkeypatch):
    monkeypatch.setenv("MONAI_EXT_READ_GIB", "0.125")
    start, gib, code = NIFTI[name]
    path = tmp_path / "SENTINEL" / "scan.nii.gz"
    path.parent.mkdir()
    path.write_bytes(unpacking_to(start, gib))
    assert path.stat().st_size < 5e6
    started = spent()
    with pytest.raises(InputError) as caught:
        use(path, case="case_7")
    judged(caught.value, started, record_property, "gzip bombs", f"{name}, {use.__name__}", code)


def png(width: int, height: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("use", [read_picture, read_mask])
def test_pictures(tmp_path, use, record_property):
    path = tmp_path / "SENTINEL.png"
    path.write_bytes(png(60_000, 60_000, bytes(2**20)))
    started = spent()
    with pytest.raises(InputError) as caught:
        use(path, "case_7")
    kind = "picture" if use is read_picture else "mask"
    judged(caught.value, started, record_property, "picture bombs", kind, f"{kind}.too_large")


def test_a_large_picture_that_is_none_of_them_is_read(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(4001, 3001, (b"\0" + bytes(3 * 4001)) * 3001))
    assert np.array_equal(read_picture(path).shape, (3001, 4001, 3))
