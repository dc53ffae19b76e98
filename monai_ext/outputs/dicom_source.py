"""The DICOM series that results belong to: its grid, whose it is, and how results refer to it.

highdicom is never shown what names a patient, for it logs and warns with values; the modules of patient and study
(PS3.3 C.7.1 and C.7.2) are copied into what it built.
"""

import importlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from monai_ext._version import __version__
from monai_ext.base import GeometryError, SettingError
from monai_ext.outputs.dicom_codes import PRIVATE, Coding
from monai_ext.outputs.dicom_copied import decimal, parsed, set_parsed, thickness_mm, writing_dicom
from monai_ext.outputs.dicom_references import REFERRED, check_references
from monai_ext.volumes import largest_shift_mm, quiet_pydicom, spacing_of
from monai_ext.volumes.dicom_checks import shape_of
from monai_ext.volumes.dicom_slice import DicomSlice
from monai_ext.volumes.dicom_stack import stacked

RESEARCH, MANUFACTURER = "for research use only", "monai-ext"
_PATIENT = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex")
# Together or not at all (PS3.3 C.7.1.1): whoever removed an identity says how.
_REMOVED = ("PatientIdentityRemoved", "DeidentificationMethod")
_STUDY = ("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "StudyDescription", "ReferringPhysicianName")
_PERSON = ("PatientAge", "PatientSize", "PatientWeight")
# Type 2: what is absent in the source must be there, empty.
_EMPTY = {*_PATIENT[:2], *_PATIENT[3:5], *_STUDY[:4], _STUDY[5]}
_BODY = ("BodyPartExamined",)  # not Laterality, which a SEG tells of each segment
_LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
# Terms of PS3.3 C.7.6.1.1.5; some writers put free text there.
_TERMS = {_LOSSY[0]: re.compile("00|01"), _LOSSY[2]: re.compile(r"ISO_\d{1,6}_\d{1,3}")}
_RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class SourceSeries:
    """A series that can be referred to.

    Attributes:
        case: the id for messages.
        affine: ``(4, 4)``, voxel index to mm in RAS+.
        shape: voxels along x, y, z; z is the slice.
        headers: of each slice, in the order of z; they may identify the patient.
    """

    case: str
    affine: np.ndarray
    shape: tuple[int, int, int]
    headers: list[Dataset] = field(repr=False)

    def planes(self, volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
        """Return a volume ``(x, y, z)`` on this grid as the images ``(z, y, x)`` of its slices.

        Raises:
            GeometryError: it lies on another grid, be it only by axes that run the other way.
        """
        shift = largest_shift_mm(self.shape, np.asarray(affine, dtype=np.float64), self.affine)
        if tuple(volume.shape) != self.shape or not shift <= 0.01 * min(spacing_of(self.affine)):
            ours, own = ("x".join(map(str, shape)) for shape in (volume.shape, self.shape))
            raise GeometryError(
                f"{self.case}: {ours} voxels are not on the grid of the DICOM series, {own} voxels in its own order "
                "of axes; bring them there first",
                code="output.grid",
                case=self.case,
            )
        return np.ascontiguousarray(volume.transpose(2, 1, 0))

    def references(self) -> list[Dataset]:
        """Return what the slices are called and where they lie, and nothing about the patient.

        Scanners write orientations and spacings that differ in their last digits, which highdicom refuses; all slices
        get those of the whole series, as they were read.
        """
        return [_bare(header, self.affine) for header in self.headers]

    def identify(self, dataset: Dataset) -> None:
        """Write whose, of which study and of which part of the body a result is, as its source says it."""
        extra = (*_BODY, *_LOSSY) if "Rows" in dataset else ()  # of images alone, not of reports
        source = self.headers[0]
        dataset.SpecificCharacterSet = "ISO_IR 192"  # UTF-8 holds whatever the source and our names hold
        removed = _REMOVED if all(parsed(source, keyword) for keyword in _REMOVED) else ()
        for keyword in (*_PATIENT, *removed, *_STUDY, *_PERSON, *extra):
            value = parsed(source, keyword)
            terms = _TERMS.get(keyword)
            if terms and not all(terms.fullmatch(str(word)) for word in np.atleast_1d(value)):
                continue
            if value is not None or keyword in _EMPTY:
                set_parsed(dataset, keyword, value)


def source_series(headers: Sequence[Dataset], case: str) -> SourceSeries:
    """Check that results can refer to a series, and sort its slices along their normal.

    Args:
        headers: of every slice, in any order.
        case: the id for messages.

    Raises:
        ScanError: attributes by which results refer to the series are absent, differ, are shared or are no UIDs.
        GeometryError: slices missing, doubled, not parallel or unevenly placed.
    """
    with writing_dicom(case):
        check_references(headers, case)
    slices = [
        DicomSlice(Path(), header, f"slice {number} of {len(headers)}", case)
        for number, header in enumerate(headers, 1)
    ]
    shape = shape_of(slices, case)
    with writing_dicom(case):
        slices, affine = stacked(slices, case)
    return SourceSeries(case, affine, shape, [item.header for item in slices])


def need_highdicom() -> Any:
    """Import highdicom, which writing DICOM needs and nothing else does.

    Raises:
        SettingError: it is not installed.
    """
    # What it tells at lower levels holds UIDs.
    logging.getLogger("highdicom").setLevel(logging.WARNING)
    try:
        with quiet_pydicom():
            return importlib.import_module("highdicom")
    except ImportError:
        raise SettingError(
            "DICOM output needs highdicom: pip install 'monai-ext[dicom]'", code="setting.extra"
        ) from None


def equipment(hd: Any, number: int, description: str) -> dict[str, Any]:
    """Return what the results of this package say of themselves, as highdicom's constructors take it."""
    item = hd.coding_schemes.CodingSchemeIdentificationItem
    return {
        "series_instance_uid": new_uid(),
        "sop_instance_uid": new_uid(),
        "series_number": number,
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": "monai-ext",
        "software_versions": __version__,
        "device_serial_number": __version__,  # type 1, and programs have no other number
        "series_description": description,
        "coding_schemes": [item(PRIVATE, name="Codes of monai-ext", responsible_organization="monai-ext")],
    }


def new_uid() -> str:
    """Return a new UID under 2.25, which needs no registered root (PS3.5 B.2)."""
    return str(generate_uid(prefix=None))


def concept(hd: Any, coding: Coding) -> Any:
    """Return a coding as highdicom has it."""
    return hd.sr.CodedConcept(coding.code, coding.scheme, coding.meaning)


def _bare(header: Dataset, affine: np.ndarray) -> Dataset:
    across, down, step_mm = spacing_of(affine)
    axes = _RAS_TO_LPS * (affine[:3, :2] / (across, down)).T
    bare = Dataset()
    for keyword in (*REFERRED, "Rows", "Columns"):
        setattr(bare, keyword, header.get(keyword))
    bare.ImageOrientationPatient = [decimal(part) for part in axes.ravel()]
    bare.PixelSpacing = [decimal(down), decimal(across)]
    bare.ImagePositionPatient = [decimal(part) for part in header.ImagePositionPatient]
    bare.Modality = str(header.get("Modality") or "OT")
    bare.SliceThickness = thickness_mm(header, round(step_mm, 6))
    bare.SpacingBetweenSlices = round(step_mm, 6)
    for keyword in _EMPTY:
        setattr(bare, keyword, None)
    return bare


def research_text(text: str, name: str, ending: str = f" ({RESEARCH})") -> str:
    """Return a text with an ending, if DICOM can hold it (LO, PS3.5 6.2).

    Raises:
        SettingError: too long, empty, or with signs that DICOM keeps for itself.
    """
    most = 64 - len(ending)
    if not 0 < len(text.strip()) <= most or "\\" in text or not text.isprintable():
        raise SettingError(
            f"{name}: {text[:80]!r} does not fit a DICOM file; give 1 to {most} letters without a backslash",
            code="setting.text",
        )
    return text + ending
