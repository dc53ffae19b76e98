"""One file of a DICOM series, opened without its pixels, and its attributes as plain numbers and words."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from monai_ext.base import ScanError
from monai_ext.volumes.dicom_parse import TwiceError, parse
from monai_ext.volumes.refusals import refuse, refuse_geometry

# Whom and what a slice shows; of these only digests are kept.
OWNERS = ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID")
# Nothing else is kept in memory, least of all what names a patient.
_READ = [
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "Modality", "ImageType"),
    *("NumberOfFrames", "SamplesPerPixel"),
    *("Rows", "Columns", "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing"),
    *("GantryDetectorTilt", "RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence"),
]


@dataclass(frozen=True)
class DicomSlice:
    """A slice and how messages call it; its file name or tags may identify a patient.

    Attributes:
        path: the file.
        header: the attributes that the reader needs.
        place: such as ``"file 3 of 20"``, among the folder's sorted files.
        case: the id for messages.
        whole: whether anything follows the header; pixels must.
        owners: of each of `OWNERS` that is given a digest, by which slices of one patient are told from others.
    """

    path: Path
    header: pydicom.Dataset
    place: str
    case: str
    whole: bool = True
    owners: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    def value(self, keyword: str) -> Any:
        """Return an attribute as pydicom gives it, ``None`` when absent or empty."""
        try:
            value = self.header.get(keyword)
        except MemoryError:
            raise
        except Exception:
            # pydicom converts on access and raises whatever the bytes provoke.
            self.refuse(f"has a {keyword} that cannot be parsed", "export the series again", "dicom.unreadable")
        return None if value is None or value == "" else value

    def words(self, keyword: str) -> list[str]:
        """Return the values of a text attribute, none when absent or empty."""
        value = self.value(keyword)
        return [] if value is None else [str(word) for word in np.atleast_1d(value)]

    def numbers(self, keyword: str, count: int) -> np.ndarray:
        """Return ``count`` finite numbers; absent, more, fewer or others are refused."""
        try:
            values = np.atleast_1d(self.value(keyword))
            # Python takes 1_5 for 15, which is no number of DICOM.
            numbers = np.array([np.nan if "_" in str(value) else float(value) for value in values])
        except (TypeError, ValueError):
            numbers = np.empty(0)
        if numbers.shape != (count,) or not np.isfinite(numbers).all():
            what, way_out = f"{self.place} has no usable {keyword}", "export the series again with it"
            refuse_geometry(self.case, what, way_out, "dicom.geometry")
        return numbers

    def number(self, keyword: str, default: float) -> float:
        """Return a number, or the default when it is absent or empty."""
        return default if self.value(keyword) is None else float(self.numbers(keyword, 1)[0])

    def count(self, keyword: str) -> int:
        """Return a whole number, 0 when it is absent or empty."""
        number = self.number(keyword, 0)
        if number != int(number):
            self.refuse(f"has a {keyword} of {number:g}", "export the series again", "dicom.unreadable")
        return int(number)

    def refuse(self, what: str, way_out: str, code: str) -> NoReturn:
        """Raise a ``ScanError`` about this file."""
        refuse(self.case, f"{self.place} {what}", way_out, code)


def open_slice(path: Path, place: str, case: str) -> DicomSlice:
    """Parse a file up to its pixels.

    Raises:
        ScanError: not DICOM, damaged, deflated, or with an element twice.
    """
    if not path.is_file():  # to open a pipe would wait for its writer
        refuse(case, f"{place} is not a file", "leave only the slices of one series in the folder", "dicom.unreadable")
    try:
        meta = pydicom.filereader.read_file_meta_info(path)
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            # A few bytes can inflate to gigabytes before anything is known about them.
            what, way_out = f"{place} is deflated", "store the series uncompressed (dcmconv +ti)"
            refuse(case, what, way_out, "dicom.transfer_syntax")
        with path.open("rb") as handle:
            header = parse(handle, keep=[*_READ, *OWNERS], pixels=False)
            # pydicom takes the end of the file for that of the header, and a value cut short for the value.
            whole = handle.read(1) != b""
        owners = _owners(header)
    except (ScanError, MemoryError):
        raise
    except TwiceError:
        refuse(case, f"{place} holds an element twice", "export the series again", "dicom.twice")
    except Exception as error:
        what = "is not a DICOM file" if isinstance(error, InvalidDicomError) else "cannot be parsed"
        way_out = "leave only the whole slices of one series in the folder"
        refuse(case, f"{place} {what}", way_out, "dicom.unreadable")
    return DicomSlice(path, header, place, case, whole, owners)


def _owners(header: pydicom.Dataset) -> dict[str, bytes]:
    """Take whom and what a slice shows out of its header, and return digests of what is not empty."""
    found = {}
    for keyword in OWNERS:
        tag = Tag(keyword)
        if tag not in header:
            continue
        value = header.get_item(tag).value  # as the file has it, whatever the bytes would be converted to
        plain = value if isinstance(value, bytes) else str(value or "").encode("utf-8", "surrogateescape")
        plain = plain.strip(b" ^\0")  # which fill up values and names
        if plain:
            found[keyword] = hashlib.sha256(plain).digest()
        del header[tag]
    return found


def whole_header(path: Path, place: str, case: str, keep: list[str] | None = None) -> pydicom.Dataset:
    """Parse a file up to its pixels, keeping everything, or some elements alone.

    Raises:
        ScanError: it can no longer be parsed.
    """
    try:
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=keep)
    except (OSError, MemoryError):
        raise
    except Exception:
        refuse(case, f"{place} cannot be parsed", "copy or export the series again", "dicom.unreadable")
