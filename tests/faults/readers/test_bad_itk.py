"""Bad NRRD and MetaImage: headers that lie, lack or repeat, and data that are not what they announce."""

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

NRRD = """NRRD0004
type: short
dimension: 3
space: left-posterior-superior
sizes: 7 11 13
space directions: (1.5,0,0) (0,2,0) (0,0,2.5)
kinds: domain domain domain
endian: little
encoding: raw
space origin: (-5,6,7)
"""
META = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = False
TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = -5 6 7
ElementSpacing = 1.5 2 2.5
DimSize = 7 11 13
ElementType = MET_SHORT
ElementDataFile = LOCAL
"""
Content = Callable[[bytes], bytes]


def nrrd(old: str = "", new: str = "", pack: Content = bytes) -> Content:
    assert old in NRRD
    return lambda data: NRRD.replace(old, new, 1).encode() + b"\n" + pack(data)


def meta(old: str = "", new: str = "", pack: Content = bytes) -> Content:
    assert old in META
    return lambda data: META.replace(old, new, 1).encode() + pack(data)


def packed_nrrd(pack: Content) -> Content:
    return nrrd("raw", "gzip", pack)


def packed_meta(pack: Content, size: str | None = "") -> Content:
    """Return a file that gives the right size of its packed data, or that one, or none if ``None``."""

    def make(data: bytes) -> bytes:
        packed = pack(data)
        told = "" if size is None else f"\nCompressedDataSize = {size or len(packed)}"
        return meta("CompressedData = False", f"CompressedData = True{told}")(b"") + packed

    return make


BAD_NRRD: dict[str, Content] = {
    "magic": nrrd("NRRD0004", "NRRD0009"),
    "nothing": lambda data: b"",
    "header alone": lambda data: NRRD.encode(),
    "no empty line": lambda data: NRRD.encode() + data,
    "cut short": lambda data: nrrd()(data)[:-1],
    "a byte more": lambda data: nrrd()(data) + b"\0",
    "another type": nrrd("short", "float"),
    "type twice, in capitals": nrrd("type: short", "type: short\nType: float"),
    "type as aliases": nrrd("endian: little\n", "endian: little\ntype: ushort\n"),
    "block": nrrd("type: short", "type: block"),
    "4D": nrrd("sizes: 7 11 13", "sizes: 7 11 13 1"),
    "2D": nrrd("sizes: 7 11 13", "sizes: 7 143 1"),
    "negative size": nrrd("sizes: 7 11 13", "sizes: 7 -11 13"),
    "huge": nrrd("sizes: 7 11 13", "sizes: 99999999999 11 13"),
    "digits without end": nrrd("sizes: 7 11 13", f"sizes: 7 11 {'9' * 5000}"),
    "vectors": nrrd("kinds: domain domain", "kinds: vector domain"),
    "no space": nrrd("space: left-posterior-superior\n"),
    "scanner's space": nrrd("left-posterior-superior", "scanner-xyz"),
    "four directions": nrrd("(0,0,2.5)", "(0,0,2.5) (0,0,1)"),
    "directions and words": nrrd("(0,0,2.5)", "(0,0,2.5) none"),
    "direction of two": nrrd("(0,0,2.5)", "(0,2.5)"),
    "direction NaN": nrrd("(0,0,2.5)", "(0,0,nan)"),
    "direction 0": nrrd("(0,0,2.5)", "(0,0,0)"),
    "singular": nrrd("(0,0,2.5)", "(0,2.5,0)"),
    "sheared": nrrd("(0,0,2.5)", "(0,0.5,2.45)"),
    "origin NaN": nrrd("(-5,6,7)", "(nan,6,7)"),
    "origin infinite": nrrd("(-5,6,7)", "(inf,6,7)"),
    "origin far away": nrrd("(-5,6,7)", "(1e12,6,7)"),
    "origin of words": nrrd("(-5,6,7)", "(-5 mm,6,7)"),
    "origin of Python's numbers": nrrd("(-5,6,7)", "(-5_0,6,7)"),
    "metres": nrrd("encoding", 'space units: "m" "m" "m"\nencoding'),
    "metres of axes": nrrd("encoding", 'units: "m" "m" "m"\nencoding'),
    "spacings too": nrrd("encoding", "spacings: 1 1 1\nencoding"),
    "no byte order": nrrd("endian: little\n"),
    "middle byte order": nrrd("little", "middle"),
    "byte order of others": nrrd("little", "big"),
    "text": nrrd("raw", "ascii"),
    "bzip2": nrrd("raw", "bzip2"),
    "bytes to skip": nrrd("encoding", "byte skip: -1\nencoding"),
    "data far away": nrrd("encoding", "data file: /etc/passwd\nencoding"),
    "data of many files": nrrd("encoding", "data file: LIST\nencoding"),
    "data itself": nrrd("encoding", "data file: case_7.nrrd\nencoding"),
    "data in a folder": nrrd("encoding", "data file: .\nencoding"),
    "gzip cut": packed_nrrd(lambda data: gzip.compress(data)[:-9]),
    "gzip checksum": packed_nrrd(lambda data: gzip.compress(data)[:-8] + bytes(8)),
    "gzip and garbage": packed_nrrd(lambda data: gzip.compress(data) + b"garbage"),
    "gzip twice": packed_nrrd(lambda data: gzip.compress(data) * 2),
    "gzip of more": packed_nrrd(lambda data: gzip.compress(data + bytes(1 << 20))),
    "gzip not packed": packed_nrrd(bytes),
    "no text": nrrd("kinds", "k\0nds"),
    "a line without end": lambda data: b"NRRD0004\n" + b"#" * (1 << 21),
}
BAD_META: dict[str, Content] = {
    "nothing": lambda data: b"",
    "header alone": lambda data: META.encode(),
    "cut short": lambda data: meta()(data)[:-1],
    "a byte more": lambda data: meta()(data) + b"\0",
    "no image": meta("Image", "Tube"),
    "other dimensions": meta("NDims = 3", "NDims = 4"),
    "2D": meta("DimSize = 7 11 13", "DimSize = 7 143 1"),
    "negative size": meta("7 11 13", "-7 -11 13"),
    "huge": meta("7 11 13", "70000 70000 70000"),
    "another type": meta("MET_SHORT", "MET_FLOAT"),
    "type of any width": meta("MET_SHORT", "MET_LONG"),
    "array of types": meta("MET_SHORT", "MET_SHORT_ARRAY"),
    "colours": meta("ElementType", "ElementNumberOfChannels = 3\nElementType"),
    "byte order of others": meta("MSB = False", "MSB = True"),
    "byte order by two names": meta("ElementType", "ElementByteOrderMSB = True\nElementType"),
    "matrix of words": meta("1 0 0 0 1 0 0 0 1", "a b c d e f g h i"),
    "matrix of eight": meta("1 0 0 0 1 0 0 0 1", "1 0 0 0 1 0 0 0"),
    "matrix of NaN": meta("1 0 0 0 1 0 0 0 1", "1 0 0 0 1 0 0 0 nan"),
    "matrix singular": meta("1 0 0 0 1 0 0 0 1", "1 0 0 0 1 0 0 1 0"),
    "matrix sheared": meta("1 0 0 0 1 0 0 0 1", "1 0 0 0 1 0 0 0.2 1"),
    "matrix of 2": meta("1 0 0 0 1 0 0 0 1", "2 0 0 0 2 0 0 0 2"),
    "axes of other names": meta("ElementType", "AnatomicalOrientation = ASL\nElementType"),
    "axes named as if mirrored": meta("ElementType", "AnatomicalOrientation = LAI\nElementType"),
    "MR": meta("ElementType", "Modality = MET_MOD_MR\nElementType"),
    "matrix of 0": meta("1 0 0 0 1 0 0 0 1", "0 0 0 0 0 0 0 0 0"),
    "offset of words": meta("-5 6 7", "north 6 7"),
    "offset of two": meta("-5 6 7", "-5 6"),
    "offset of four": meta("-5 6 7", "-5 6 7 8"),
    "offset with a unit": meta("-5 6 7", "-5mm 6 7"),
    "offset far away": meta("-5 6 7", "-5e9 6 7"),
    "offset NaN": meta("-5 6 7", "nan 6 7"),
    "spacing 0": meta("1.5 2 2.5", "1.5 0 2.5"),
    "spacing of two": meta("1.5 2 2.5", "1.5 2"),
    "spacing infinite": meta("1.5 2 2.5", "1.5 2 inf"),
    "micrometres": meta("ElementType", "DistanceUnits = um\nElementType"),
    "slope": meta("ElementType", "ElementToIntensityFunctionSlope = 2\nElementType"),
    "intercept": meta("ElementType", "ElementToIntensityFunctionOffset = -1024\nElementType"),
    "slope of words": meta("ElementType", "ElementToIntensityFunctionSlope = two\nElementType"),
    "text": meta("BinaryData = True", "BinaryData = False"),
    "data far away": meta("LOCAL", "/etc/passwd"),
    "data above": meta("LOCAL", "../case_7.mha"),
    "data of many files": meta("LOCAL", "LIST"),
    "data of a pattern": meta("LOCAL", "slice%03d.raw 1 13 1"),
    "zlib cut": packed_meta(lambda data: zlib.compress(data)[:-5]),
    "zlib checksum": packed_meta(lambda data: zlib.compress(data)[:-4] + bytes(4)),
    "zlib and garbage": packed_meta(lambda data: zlib.compress(data) + b"garbage"),
    "zlib of more": packed_meta(lambda data: zlib.compress(data + bytes(1 << 20))),
    "size of the packed data": packed_meta(zlib.compress, "100"),
    "size of no packed data": packed_meta(zlib.compress, "-1"),
    "no size of the packed data": packed_meta(zlib.compress, None),
    "size in words": packed_meta(zlib.compress, "many"),
    "a line without end": lambda data: b"Comment = " + b"x" * (1 << 21),
}


def good_data(nifti) -> bytes:
    return nifti.voxels().astype("<i2").tobytes(order="F")


@pytest.mark.parametrize("bad", BAD_NRRD)
def test_nrrd(tmp_path: Path, nifti, limited, judged, bad: str) -> None:
    path = tmp_path / "case_7.nrrd"
    path.write_bytes(BAD_NRRD[bad](good_data(nifti)))
    judged("NRRD and MetaImage", f"NRRD: {bad}", limited("read_scan", path), str(tmp_path), "passwd")


@pytest.mark.parametrize("bad", BAD_META)
def test_meta(tmp_path: Path, nifti, limited, judged, bad: str) -> None:
    path = tmp_path / "case_7.mha"
    path.write_bytes(BAD_META[bad](good_data(nifti)))
    judged("NRRD and MetaImage", f"MetaImage: {bad}", limited("read_scan", path), str(tmp_path), "passwd")


def test_both_are_read_when_nothing_is_wrong(tmp_path, nifti, limited):
    for ending, content in (
        ("nrrd", nrrd()),
        ("nrrd", packed_nrrd(gzip.compress)),
        ("mha", meta()),
        ("mha", packed_meta(zlib.compress)),
        ("mha", meta("ElementType", "AnatomicalOrientation = RAI\nModality = MET_MOD_CT\nElementType")),
        ("mha", meta("ElementType", "AnatomicalOrientation = LPS\nModality = MET_MOD_OTHER\nElementType")),
    ):
        (tmp_path / f"good.{ending}").write_bytes(content(good_data(nifti)))
        found = limited("read_scan", tmp_path / f"good.{ending}")
        assert found.kind == "value", found
        assert (found.value[0] == nifti.voxels()).all()
        assert found.value[1][:3, 3].tolist() == [5, -6, 7]
