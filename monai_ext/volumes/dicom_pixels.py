"""The stored values of one DICOM slice, exactly as many as its header announces.

Uncompressed pixels are decoded here, RLE by pydicom, the JPEG families by the GDCM inside SimpleITK, which
needs no codec to be installed.
"""

from pathlib import Path

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset

from monai_ext.volumes.dicom_jpeg import JPEG_SYNTAXES, decoded_jpeg, fragments, refuse_pixels
from monai_ext.volumes.dicom_parse import TwiceError, parse
from monai_ext.volumes.dicom_rle import is_whole_rle

_NATIVE = {uid.ImplicitVRLittleEndian: "<", uid.ExplicitVRLittleEndian: "<", uid.ExplicitVRBigEndian: ">"}


def stored_values(path: Path) -> np.ndarray:
    """Decode one slice to ``(y, x)`` integers, before any rescale.

    MONOCHROME1 only tells a viewer to show low values bright; the values are read as they are.

    Raises:
        ScanError: the end of a sentence; the caller knows the case and the slice.
    """
    try:
        with path.open("rb") as handle:
            data = parse(handle)
        bits = int(data.BitsAllocated), int(data.BitsStored), int(data.HighBit)
        sign = int(data.PixelRepresentation)
        shape, pixels = (int(data.Rows), int(data.Columns)), bytes(data.PixelData)
        syntax = str(data.file_meta.TransferSyntaxUID)
        interpretation = str(data.PhotometricInterpretation)
    except TwiceError:
        refuse_pixels("stand beside an element that is given twice")
    except Exception:
        # pydicom raises whatever the bytes provoke, with tags in the message.
        refuse_pixels("are absent or cannot be parsed")
    if sign not in (0, 1):
        refuse_pixels(f"have a sign or none by a representation of {sign}")
    signed = sign == 1
    if interpretation not in ("MONOCHROME1", "MONOCHROME2"):
        refuse_pixels("are in colour")
    if bits[0] not in (8, 16, 32) or not 1 <= bits[1] <= bits[0] or bits[2] != bits[1] - 1:
        refuse_pixels(f"lie in {bits[1]} of {bits[0]} bits up to bit {bits[2]}, which is not read here")
    if syntax in _NATIVE:
        return _unpacked(_native(pixels, shape, bits[0], _NATIVE[uid.UID(syntax)]), bits[1], signed)
    if syntax == uid.RLELossless:
        frames = fragments(pixels)
        if len(frames) != 1 or not is_whole_rle(frames[0], shape[0] * shape[1], bits[0] // 8):
            refuse_pixels("are damaged")
        return _unpacked(_rle(data, shape), bits[1], signed)
    if syntax in JPEG_SYNTAXES:
        return decoded_jpeg(pixels, syntax, shape, bits, signed=signed)
    refuse_pixels("are compressed in a way that is not read here (JPEG, JPEG-LS, JPEG 2000 and RLE are)")


def _native(pixels: bytes, shape: tuple[int, int], allocated: int, order: str) -> np.ndarray:
    count = shape[0] * shape[1]
    size = count * allocated // 8
    if len(pixels) != size + size % 2:  # DICOM pads every value to an even length
        refuse_pixels(f"are {len(pixels)} bytes long instead of {size}")
    return np.frombuffer(pixels, f"{order}u{allocated // 8}", count).reshape(shape)


def _rle(data: Dataset, shape: tuple[int, int]) -> np.ndarray:
    try:
        values = np.asarray(data.pixel_array)
    except Exception:
        refuse_pixels("are damaged")
    if values.shape != shape:
        refuse_pixels(f"are {values.shape} instead of {shape}")
    return values


def _unpacked(values: np.ndarray, stored: int, signed: bool) -> np.ndarray:
    """Keep the stored bits alone (overlays once lay above them) and extend the sign."""
    wide = values.astype(np.int64) & ((1 << stored) - 1)
    return np.where(wide >> (stored - 1), wide - (1 << stored), wide) if signed else wide
