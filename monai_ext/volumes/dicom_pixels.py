"""The stored values of one DICOM slice, exactly as many as its header announces.

Uncompressed pixels are decoded here, RLE by pydicom, the JPEG families by the GDCM inside SimpleITK, which
needs no codec to be installed. GDCM is given a file made anew from the pixel module alone: it then applies no
rescale and no inversion of its own, never parses the rest of the file (deeply nested sequences crash it), and
nothing about the patient reaches the temporary file.
"""

import struct
import tempfile
from pathlib import Path
from typing import NoReturn

import numpy as np
import pydicom
import SimpleITK
from pydicom import uid
from pydicom.dataset import Dataset

from monai_ext.base import ScanError
from monai_ext.volumes.read_itk import quiet_itk

_NATIVE = {uid.ImplicitVRLittleEndian: "<", uid.ExplicitVRLittleEndian: "<", uid.ExplicitVRBigEndian: ">"}
_JPEG = {
    "1.2.840.10008.1.2.4.50",  # baseline
    "1.2.840.10008.1.2.4.51",  # extended
    "1.2.840.10008.1.2.4.57",  # lossless
    "1.2.840.10008.1.2.4.70",  # lossless, first-order prediction
    "1.2.840.10008.1.2.4.80",  # JPEG-LS
    "1.2.840.10008.1.2.4.81",  # JPEG-LS, near-lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000, lossless
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
}
_END_OF_IMAGE = b"\xff\xd9"  # of all three families; decoders fill in what a truncated image lacks
_ITEM, _END_OF_ITEMS = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"


def stored_values(path: Path) -> np.ndarray:
    """Decode one slice to ``(y, x)`` integers, before any rescale.

    MONOCHROME1 only tells a viewer to show low values bright; the values are read as they are.

    Raises:
        ScanError: the end of a sentence; the caller knows the case and the slice.
    """
    try:
        data = pydicom.dcmread(path)
        bits = int(data.BitsAllocated), int(data.BitsStored), int(data.HighBit)
        signed = int(data.PixelRepresentation) == 1
        shape, pixels = (int(data.Rows), int(data.Columns)), bytes(data.PixelData)
        syntax = str(data.file_meta.TransferSyntaxUID)
        interpretation = str(data.PhotometricInterpretation)
    except Exception:
        # pydicom raises whatever the bytes provoke, with tags in the message.
        _refuse("are absent or cannot be parsed")
    if interpretation not in ("MONOCHROME1", "MONOCHROME2"):
        _refuse("are in colour")
    if bits[0] not in (8, 16, 32) or not 1 <= bits[1] <= bits[0] or bits[2] != bits[1] - 1:
        _refuse(f"lie in {bits[1]} of {bits[0]} bits up to bit {bits[2]}, which is not read here")
    if syntax in _NATIVE:
        return _unpacked(_native(pixels, shape, bits[0], _NATIVE[uid.UID(syntax)]), bits[1], signed)
    if syntax == uid.RLELossless:
        return _unpacked(_rle(data, shape), bits[1], signed)
    if syntax in _JPEG:
        return _jpeg(_joined(pixels), syntax, shape, (*bits, int(signed)))
    _refuse("are compressed in a way that is not read here (JPEG, JPEG-LS, JPEG 2000 and RLE are)")


def _native(pixels: bytes, shape: tuple[int, int], allocated: int, order: str) -> np.ndarray:
    count = shape[0] * shape[1]
    size = count * allocated // 8
    if len(pixels) != size + size % 2:  # DICOM pads every value to an even length
        _refuse(f"are {len(pixels)} bytes long instead of {size}")
    return np.frombuffer(pixels, f"{order}u{allocated // 8}", count).reshape(shape)


def _rle(data: Dataset, shape: tuple[int, int]) -> np.ndarray:
    try:
        values = np.asarray(data.pixel_array)
    except Exception:
        _refuse("are damaged")
    if values.shape != shape:
        _refuse(f"are {values.shape} instead of {shape}")
    return values


def _unpacked(values: np.ndarray, stored: int, signed: bool) -> np.ndarray:
    """Keep the stored bits alone (overlays once lay above them) and extend the sign."""
    wide = values.astype(np.int64) & ((1 << stored) - 1)
    return np.where(wide >> (stored - 1), wide - (1 << stored), wide) if signed else wide


def _joined(pixels: bytes) -> bytes:
    """Return the one frame of an encapsulated value, which items of any number hold (PS3.5 A.4)."""
    items, place = [], 0
    while place < len(pixels) and pixels[place : place + 4] != _END_OF_ITEMS:
        size = int.from_bytes(pixels[place + 4 : place + 8], "little")
        if pixels[place : place + 4] != _ITEM or place + 8 + size > len(pixels):
            _refuse("are truncated")
        items.append(pixels[place + 8 : place + 8 + size])
        place += 8 + size
    frame = b"".join(items[1:])  # the first item tells offsets of frames
    if not frame.rstrip(b"\x00").endswith(_END_OF_IMAGE):
        _refuse("are truncated")
    return frame


def _jpeg(frame: bytes, syntax: str, shape: tuple[int, int], bits: tuple[int, int, int, int]) -> np.ndarray:
    with tempfile.TemporaryDirectory(prefix="monai_ext-") as folder:
        path = Path(folder) / "slice.dcm"
        path.write_bytes(_pixel_module(frame, syntax, shape, bits))
        reader = SimpleITK.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(path))
        try:
            with quiet_itk():
                image = reader.Execute()
        except RuntimeError:
            _refuse("are damaged")
    if image.GetSize()[:2] != shape[::-1] or image.GetNumberOfComponentsPerPixel() != 1:
        _refuse(f"are {image.GetSize()} instead of {shape[::-1]}")
    return SimpleITK.GetArrayFromImage(image).reshape(shape)


def _pixel_module(frame: bytes, syntax: str, shape: tuple[int, int], bits: tuple[int, int, int, int]) -> bytes:
    """Return a DICOM file of the pixels alone (PS3.10; explicit VR, little endian)."""
    short = struct.Struct("<H").pack
    frame += b"\x00" * (len(frame) % 2)
    kind = b"1.2.840.10008.5.1.4.1.1.7"  # secondary capture, which has no rescale
    meta = b"".join(
        [
            _element(0x0002, 0x0001, b"OB", b"\x00\x01"),
            _element(0x0002, 0x0002, b"UI", kind),
            _element(0x0002, 0x0003, b"UI", b"2.25.1"),
            _element(0x0002, 0x0010, b"UI", syntax.encode()),
        ]
    )
    numbers = [*shape, *bits]
    tags = [0x0010, 0x0011, 0x0100, 0x0101, 0x0102, 0x0103]
    return b"".join(
        [
            bytes(128) + b"DICM",
            _element(0x0002, 0x0000, b"UL", struct.pack("<I", len(meta))),
            meta,
            _element(0x0008, 0x0016, b"UI", kind),
            _element(0x0008, 0x0018, b"UI", b"2.25.1"),
            _element(0x0028, 0x0002, b"US", short(1)),
            _element(0x0028, 0x0004, b"CS", b"MONOCHROME2"),
            *(_element(0x0028, tag, b"US", short(number)) for tag, number in zip(tags, numbers, strict=True)),
            struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF),
            _ITEM + struct.pack("<I", 0),
            _ITEM + struct.pack("<I", len(frame)) + frame,
            _END_OF_ITEMS + struct.pack("<I", 0),
        ]
    )


def _element(group: int, element: int, kind: bytes, value: bytes) -> bytes:
    value += (b"\x00" if kind in (b"UI", b"OB") else b" ") * (len(value) % 2)
    form = "<HH2sHI" if kind == b"OB" else "<HH2sH"
    lengths = (0, len(value)) if kind == b"OB" else (len(value),)
    return struct.pack(form, group, element, kind, *lengths) + value


def _refuse(what: str) -> NoReturn:
    raise ScanError(what, code="dicom.pixels") from None
