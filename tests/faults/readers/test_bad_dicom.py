"""Bad DICOM series: attributes wrong, absent, of another kind or twice; files cut, mixed or doubled."""

import os
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

Change = Callable[[list[Dataset]], object]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # of values that break the standard: ours do


def of(slices: list[Dataset], **fields: object) -> None:
    for data in slices:
        for keyword, value in fields.items():
            if value is None:
                delattr(data, keyword)
            elif isinstance(value, DataElement):
                data.add(value)
            else:
                setattr(data, keyword, value)


def every(**fields: object) -> Change:
    return lambda slices: of(slices, **fields)


def one(**fields: object) -> Change:
    return lambda slices: of(slices[2:3], **fields)


def raw(keyword: str, kind: str, value: object) -> DataElement:
    """Return an element of another VR than the standard's, its value not looked at."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return DataElement(pydicom.datadict.tag_for_keyword(keyword), kind, value, validation_mode=0)


def moved(*by_mm: float) -> Change:
    return lambda slices: of(
        slices[2:3], ImagePositionPatient=list(np.array(slices[2].ImagePositionPatient, float) + by_mm)
    )


def tilted(slices: list[Dataset]) -> None:
    lean = np.radians(12)
    for index, data in enumerate(slices):
        data.ImageOrientationPatient = [1, 0, 0, 0, round(np.cos(lean), 9), round(-np.sin(lean), 9)]
        data.ImagePositionPatient = [-10, 20.5, 30 + index * 2.5]


def smaller(slices: list[Dataset]) -> None:
    slices[2].Rows, slices[2].PixelData = 10, slices[2].PixelData[: -2 * 7]


def frames(slices: list[Dataset]) -> None:
    """One enhanced file of five frames, whose functional groups lack the planes' positions."""
    data = slices[0]
    data.SOPClassUID, data.NumberOfFrames = uid.EnhancedCTImageStorage, 5
    data.PixelData = b"".join(item.PixelData for item in slices)
    data.PerFrameFunctionalGroupsSequence = [Dataset() for _ in range(3)]
    data.SharedFunctionalGroupsSequence = [Dataset()]
    del slices[1:]


BAD: dict[str, Change] = {
    "a slice missing": lambda slices: slices.pop(2),
    "two slices missing": lambda slices: (slices.pop(2), slices.pop(2)),
    "a slice twice": lambda slices: slices.append(slices[1]),
    "the same instance elsewhere": one(SOPInstanceUID="2.25.9.1", ImagePositionPatient=[-10, 20.5, 30]),
    "one instance at two places": one(SOPInstanceUID="2.25.9.1"),
    "one of another patient": one(PatientID="SENTINEL-4712"),
    "one of no patient": one(PatientID=""),
    "one of another name alone": lambda slices: (
        of(slices, PatientID=None),
        of(slices[2:3], PatientName="SENTINEL^JOHN"),
    ),
    "one of another study": one(StudyInstanceUID="2.25.77"),
    "one of another frame of reference": lambda slices: [
        of([data], FrameOfReferenceUID=f"2.25.{6 + (i == 2)}") for i, data in enumerate(slices)
    ],
    "one slice": lambda slices: slices.__delitem__(slice(1, 5)),
    "one slice higher": moved(0, 0, 0.7),
    "one slice aside": moved(1, 0, 0),
    "tilt": tilted,
    "tilt that is told alone": every(GantryDetectorTilt=9),
    "two series": lambda slices: of(slices[:2], SeriesInstanceUID="2.25.88"),
    "two series without UID": lambda slices: [
        of([data], SeriesInstanceUID="", SeriesNumber=i % 2) for i, data in enumerate(slices)
    ],
    "one of another size": smaller,
    "one of another spacing": one(PixelSpacing=[1.25, 0.8]),
    "one turned": one(ImageOrientationPatient=[0, 1, 0, -1, 0, 0]),
    "one mirrored": one(ImageOrientationPatient=[-1, 0, 0, 0, 1, 0]),
    "one MR": one(Modality="MR"),
    "MR": every(Modality="MR"),
    "two modalities": every(Modality=["CT", "MR"]),
    "no modality": every(Modality=None),
    "a localizer": one(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
    "no rescale": every(RescaleSlope=None, RescaleIntercept=None),
    "no intercept": every(RescaleIntercept=None),
    "one without rescale": one(RescaleSlope=None, RescaleIntercept=None),
    "intercept 0": every(RescaleIntercept=0),
    "slope 0": every(RescaleSlope=0),
    "slope of two values": every(RescaleSlope=[1, 2]),
    "slope NaN": every(RescaleSlope=raw("RescaleSlope", "LO", "NaN")),
    "slope infinite": every(RescaleSlope=raw("RescaleSlope", "LO", "1e999")),
    "slope of words": every(RescaleSlope=raw("RescaleSlope", "LO", "one")),
    "slope with a comma": every(RescaleSlope=raw("RescaleSlope", "LO", "1,0")),
    "slope of a million digits": every(RescaleSlope=raw("RescaleSlope", "UT", "1" * 1_000_000)),
    "slope in Python's digits": every(RescaleIntercept=raw("RescaleIntercept", "LO", "-1_024")),
    "Hounsfield by another name": every(RescaleType="OD"),
    "modality LUT": every(ModalityLUTSequence=[Dataset()]),
    "spacing 0": every(PixelSpacing=[0, 1]),
    "spacing negative": every(PixelSpacing=[-1, 1]),
    "spacing of one number": every(PixelSpacing=raw("PixelSpacing", "DS", "1.25")),
    "spacing of three": every(PixelSpacing=[1, 1, 1]),
    "no spacing": every(PixelSpacing=None),
    "no position": every(ImagePositionPatient=None),
    "position NaN": one(ImagePositionPatient=raw("ImagePositionPatient", "LO", ["-10", "nan", "30"])),
    "position of two": one(ImagePositionPatient=[1, 2]),
    "positions far away": lambda slices: [
        of([data], ImagePositionPatient=[1e9, 0, i * 2.5]) for i, data in enumerate(slices)
    ],
    "positions all one": every(ImagePositionPatient=[0, 0, 0]),
    "no orientation": every(ImageOrientationPatient=None),
    "orientation of 0": every(ImageOrientationPatient=[0, 0, 0, 0, 0, 0]),
    "orientation not at right angles": every(ImageOrientationPatient=[1, 0, 0, 0.6, 0.8, 0]),
    "orientation of no unit": every(ImageOrientationPatient=[2, 0, 0, 0, 2, 0]),
    "colour": every(SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0),
    "colour by its name alone": every(PhotometricInterpretation="RGB"),
    "palette": every(PhotometricInterpretation="PALETTE COLOR"),
    "no photometric interpretation": every(PhotometricInterpretation=None),
    "two photometric interpretations": every(PhotometricInterpretation=["MONOCHROME2", "RGB"]),
    "bits stored above allocated": every(BitsStored=17, HighBit=16),
    "no bits stored": every(BitsStored=0, HighBit=0),
    "bits lying high": every(HighBit=15),
    "12 bits allocated": every(BitsAllocated=12),
    "1 bit": every(BitsAllocated=1, BitsStored=1, HighBit=0),
    "8 bits allocated": every(BitsAllocated=8, BitsStored=8, HighBit=7),
    "signed that are not": every(PixelRepresentation=1, BitsStored=11, HighBit=10),
    "unsigned that are not": lambda slices: [
        of(
            [data],
            RescaleIntercept=0,
            BitsStored=16,
            HighBit=15,
            PixelData=(np.frombuffer(data.PixelData, "<u2").astype("<i2") - 1024).tobytes(),
        )
        for data in slices
    ],
    "sign of 2": every(PixelRepresentation=2),
    "no sign": every(PixelRepresentation=None),
    "rows 0": every(Rows=0),
    "no rows": one(Rows=None),
    "rows of half": every(Rows=raw("Rows", "FD", 11.5)),
    "rows of words": every(Rows=raw("Rows", "LO", "eleven")),
    "rows and columns exchanged with others": every(Rows=77, Columns=2),
    "huge": every(Rows=65535, Columns=65535),
    "short pixels": one(PixelData=bytes(100)),
    "long pixels": one(PixelData=bytes(400)),
    "no pixels": one(PixelData=None),
    "empty pixels": one(PixelData=b""),
    "floating-point pixels": lambda slices: [
        (setattr(d, "FloatPixelData", bytes(308)), delattr(d, "PixelData")) for d in slices
    ],
    "several frames": one(NumberOfFrames=2),
    "frames of words": one(NumberOfFrames=raw("NumberOfFrames", "LO", "many")),
    "0 frames": one(NumberOfFrames=0),
    "enhanced": frames,
    "no UIDs, and no numbers": lambda slices: [
        of([data], SeriesInstanceUID="", SOPInstanceUID="", SeriesNumber=None, ImagePositionPatient=None)
        for data in slices
    ],
    "series number of words": every(SeriesNumber=raw("SeriesNumber", "LO", "three")),
}


@pytest.mark.parametrize("bad", BAD)
def test_attributes(tmp_path, ct_series, limited, judged, bad):
    slices = ct_series.slices()
    BAD[bad](slices)
    folder = ct_series.save(slices, tmp_path / "Doe^Jane" / "case_7")
    judged("DICOM", bad, limited("read_scan", folder), str(tmp_path), "Doe", "2.25")


def third(folder: Path) -> Path:
    return sorted(folder.iterdir())[2]


def bytes_of(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        for path in sorted(folder.iterdir()):
            path.write_bytes(change(path.read_bytes()))

    return damage


def third_of(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: third(folder).write_bytes(change(third(folder).read_bytes())) and None


def element(group: int, number: int, kind: bytes, value: bytes) -> bytes:
    long = kind in (b"OB", b"OW", b"UT", b"UN", b"SQ")
    return (
        struct.pack("<HH2s" + ("HI" if long else "H"), group, number, kind, *([0] if long else []), len(value)) + value
    )


def before_pixels(more: bytes) -> Callable[[bytes], bytes]:
    return lambda content: content.replace(PIXELS, more + PIXELS)


def deep(depth: int) -> bytes:
    begin = struct.pack("<HH2sHI", 0x0029, 0x1001, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    end = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    return begin * depth + end * depth


PIXELS = struct.pack("<HH2s", 0x7FE0, 0x0010, b"OW")
INTERCEPT = element(0x0028, 0x1052, b"DS", b"-1024.0 ")
ROWS = element(0x0028, 0x0010, b"US", struct.pack("<H", 11))


def syntax(name: str) -> bytes:
    return element(0x0002, 0x0010, b"UI", name.encode() + b"\0" * (len(name) % 2))


PLAIN = syntax(uid.ExplicitVRLittleEndian)


def at(place: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        assert place in content
        return content.replace(place, new, 1)

    return change


def deflated(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        data = pydicom.dcmread(path)
        data.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
        data.add_new((0x0029, 0x1001), "OB", bytes(1 << 22))
        data.save_as(path)


def said_to_be(syntax: str, keep: Callable[[bytes], bytes] | None = None) -> Callable[[Path], None]:
    """Another transfer syntax than that of the pixels, or none that there is."""

    def change(folder: Path) -> None:
        for path in sorted(folder.iterdir()):
            data = pydicom.dcmread(path)
            data.file_meta.TransferSyntaxUID = syntax
            if keep is not None:
                data.PixelData = encapsulate([keep(data.PixelData)])
                data["PixelData"].is_undefined_length = True
                data["PixelData"].VR = "OB"
            data.save_as(path)

    return change


BAD_FILES: dict[str, Callable[[Path], object]] = {
    "nothing": third_of(lambda content: b""),
    "text": third_of(lambda content: b"<html>not found</html>" * 20),
    "a NIfTI": third_of(lambda content: struct.pack("<i", 348) + bytes(344)),
    "preamble alone": third_of(lambda content: content[:132]),
    "no preamble": third_of(lambda content: content[132:]),
    "cut in the group 2": third_of(lambda content: content[:200]),
    "cut in the header": third_of(lambda content: content[:600]),
    "cut before the pixels": third_of(lambda content: content[: content.index(PIXELS)]),
    "cut in the head of the pixels": third_of(lambda content: content[: content.index(PIXELS) + 6]),
    "cut in the pixels": third_of(lambda content: content[:-20]),
    "a byte short": third_of(lambda content: content[:-1]),
    "noise": third_of(lambda content: content[:132] + os.urandom(4000)),
    "length of an element that lies": third_of(at(ROWS, ROWS[:6] + b"\xff\xff" + ROWS[8:])),
    "length of the pixels that lies": third_of(at(PIXELS + b"\0\0\x9a\0\0\0", PIXELS + b"\0\0\xff\xff\xff\x7f")),
    "length of an undefined end": third_of(at(PIXELS + b"\0\0\x9a\0\0\0", PIXELS + b"\0\0\xff\xff\xff\xff")),
    "VR of letters unknown": third_of(at(ROWS, ROWS.replace(b"US", b"ZZ"))),
    "VR of a number as text": third_of(at(ROWS, ROWS.replace(b"US", b"LO"))),
    "intercept twice": bytes_of(at(INTERCEPT, INTERCEPT + element(0x0028, 0x1052, b"DS", b"-1000 "))),
    "intercept again at the end": bytes_of(before_pixels(element(0x0028, 0x1052, b"DS", b"-1000 "))),
    "rows twice": bytes_of(at(ROWS, ROWS + ROWS)),
    "pixels twice": bytes_of(lambda content: content + content[content.index(PIXELS) :]),
    "100,000 nested sequences": third_of(before_pixels(deep(100_000))),
    "3,000 nested sequences without end": third_of(before_pixels(deep(3000)[: 3000 * 20])),
    "a sequence that never ends": third_of(before_pixels(deep(1)[:12])),
    "deflated to 4 MB": deflated,
    "said to be big-endian": bytes_of(at(PLAIN, syntax("1.2.840.10008.1.2.2"))),
    "said to be JPEG 2000, not packed": bytes_of(at(PLAIN, syntax(uid.JPEG2000Lossless))),
    "said to be JPEG 2000, packed raw": said_to_be(uid.JPEG2000Lossless, bytes),
    "said to be JPEG, packed raw": said_to_be(uid.JPEGLosslessSV1, bytes),
    "said to be JPEG-LS, packed raw": said_to_be(uid.JPEGLSLossless, bytes),
    "said to be RLE, not packed": bytes_of(at(PLAIN, syntax(uid.RLELossless))),
    "said to be RLE, packed raw": said_to_be(uid.RLELossless, bytes),
    "said to be plain, packed": said_to_be(uid.ExplicitVRLittleEndian, bytes),
    "video": said_to_be(uid.MPEG2MPML, bytes),
    "HTJ2K": said_to_be(uid.HTJ2KLossless, bytes),
    "no transfer syntax that there is": said_to_be("1.2.3.4"),
    "a pipe": lambda folder: (third(folder).unlink(), os.mkfifo(folder / "SENTINEL-p")),
    "a link to nothing": lambda folder: (folder / "SENTINEL-x").symlink_to("gone"),
    "a folder beside": lambda folder: (folder / "more").mkdir(),
    "a folder within a folder": lambda folder: third(folder).rename(folder / "x") and (folder / "sub").mkdir(),
}


@pytest.mark.parametrize("bad", BAD_FILES)
def test_files(tmp_path, ct_series, limited, judged, bad):
    folder = ct_series.save(ct_series.slices(), tmp_path / "Doe^Jane" / "case_7")
    BAD_FILES[bad](folder)
    judged("DICOM", bad, limited("read_scan", folder), str(tmp_path), "Doe", "2.25")
