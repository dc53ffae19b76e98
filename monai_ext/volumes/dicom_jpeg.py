"""JPEG, JPEG-LS and JPEG 2000 in DICOM, decoded by the GDCM inside SimpleITK.

GDCM is given a file made anew from the pixel module alone: it then applies no rescale and no inversion of its
own, never parses the rest of the file (deeply nested sequences crash it), and nothing about the patient reaches
the temporary file.
"""

import struct
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import numpy as np

from monai_ext.base import ScanError
from monai_ext.volumes.decoder_messages import hand_on, printed_by_libraries
from monai_ext.volumes.read_itk import quiet_itk

JPEG_SYNTAXES = {
    "1.2.840.10008.1.2.4.50",  # baseline
    "1.2.840.10008.1.2.4.51",  # extended
    "1.2.840.10008.1.2.4.57",  # lossless
    "1.2.840.10008.1.2.4.70",  # lossless, first-order prediction
    "1.2.840.10008.1.2.4.80",  # JPEG-LS
    "1.2.840.10008.1.2.4.81",  # JPEG-LS, near-lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000, lossless
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
}
_DAMAGE = ("Corrupt JPEG data", "Premature end of JPEG")  # libjpeg's warnings, after which it goes on
_END_OF_IMAGE = b"\xff\xd9"  # of all three families; decoders fill in what a truncated image lacks
_ITEM, _END_OF_ITEMS = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_JPEG2000_START = b"\xff\x4f\xff\x51"
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # markers that tell the precision, of JPEG and JPEG-LS


def refuse_pixels(what: str) -> NoReturn:
    """Raise a ``ScanError`` of the end of a sentence; the reader knows the case and the slice."""
    raise ScanError(what, code="dicom.pixels") from None


def decoded_jpeg(
    pixels: bytes, syntax: str, shape: tuple[int, int], bits: tuple[int, int, int], *, signed: bool
) -> np.ndarray:
    """Decode the one frame of an encapsulated value to ``(y, x)`` integers.

    Args:
        pixels: the value of PixelData.
        syntax: one of `JPEG_SYNTAXES`.
        shape: rows and columns.
        bits: allocated, stored and high bit by the header.
        signed: whether the header says that values have a sign.

    Raises:
        ScanError: the end of a sentence: truncated, damaged, or unlike the header.
    """
    import SimpleITK  # not above: see `read_itk`

    if bits[0] > 16:  # GDCM decodes them, to other values
        refuse_pixels(f"are compressed in {bits[0]} bits, which is read here uncompressed only")
    frame = _joined(pixels)
    with tempfile.TemporaryDirectory(prefix="monai_ext-") as folder:
        path = Path(folder) / "slice.dcm"
        path.write_bytes(_pixel_module(frame, syntax, shape, (*bits, int(signed))))
        reader = SimpleITK.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(path))
        image = None
        with printed_by_libraries() as printed, quiet_itk(), suppress(RuntimeError):
            image = reader.Execute()
    if image is None:
        refuse_pixels("are damaged")
    if any(words in printed.text for words in _DAMAGE):
        refuse_pixels("are damaged, and the decoder made up what it could not read")
    hand_on(printed.text)
    if image.GetSize()[:2] != shape[::-1] or image.GetNumberOfComponentsPerPixel() != 1:
        refuse_pixels(f"are {image.GetSize()} instead of {shape[::-1]}")
    values = SimpleITK.GetArrayFromImage(image).reshape(shape)
    precision = _precision(frame)
    # Without a sign of its own, such a number may be negative or large; small ones are the same either way.
    if signed and precision is not None and precision < bits[1] and values.max() >= 1 << (precision - 1):
        refuse_pixels(f"are compressed in {precision} bits without a sign, but the header says {bits[1]} bits with one")
    return values


def _precision(frame: bytes) -> int | None:
    """Return how many bits a value has by the compressed image itself, ``None`` where it tells a sign too."""
    if frame.startswith(_JPEG2000_START):
        depth = frame[42]  # Ssiz of ISO 15444-1 A.5.1
        return None if depth & 0x80 else depth + 1
    place = 2
    while place + 4 < len(frame) and frame[place] == 0xFF:
        if frame[place + 1] in _FRAMES:
            return frame[place + 4]
        place += 2 + int.from_bytes(frame[place + 2 : place + 4], "big")
    return None


def fragments(pixels: bytes) -> list[bytes]:
    """Return the items of an encapsulated value (PS3.5 A.4) but the first, which tells offsets of frames.

    Raises:
        ScanError: the end of a sentence: truncated.
    """
    items, place = [], 0
    while place < len(pixels) and pixels[place : place + 4] != _END_OF_ITEMS:
        size = int.from_bytes(pixels[place + 4 : place + 8], "little")
        if pixels[place : place + 4] != _ITEM or place + 8 + size > len(pixels):
            refuse_pixels("are truncated")
        items.append(pixels[place + 8 : place + 8 + size])
        place += 8 + size
    return items[1:]


def _joined(pixels: bytes) -> bytes:
    """Return the one frame of an encapsulated value, which items of any number hold."""
    frame = b"".join(fragments(pixels))
    if not frame.rstrip(b"\x00").endswith(_END_OF_IMAGE):
        refuse_pixels("are truncated")
    return frame


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
