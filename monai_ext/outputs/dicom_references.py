"""By what results refer to the slices of a series, and what no result could refer to."""

from collections.abc import Sequence

from pydicom.dataset import Dataset
from pydicom.uid import UID

from monai_ext.outputs.dicom_copied import parsed
from monai_ext.volumes.refusals import refuse

_SHARED = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
REFERRED = ("SOPClassUID", "SOPInstanceUID", *_SHARED)


def check_references(headers: Sequence[Dataset], case: str) -> None:
    """Refuse slices that are not those of one series of one patient, each with a name of its own.

    Args:
        headers: of every slice, in any order.
        case: the id for messages.

    Raises:
        ScanError: attributes by which results refer to the series are absent, differ or are no UIDs; instances share
            one; or the slices are of several patients.
    """
    if not headers:
        refuse(case, "there are no slices", "give the headers of one DICOM series", "scan.empty")
    absent = [keyword for keyword in REFERRED if not all(header.get(keyword) for header in headers)]
    if absent:
        what = f"the series has no {', '.join(absent)}, by which a DICOM result refers to it"
        refuse(case, what, "export it again with its UIDs, or do without DICOM output", "dicom.references")
    wrong = [keyword for keyword in REFERRED if not all(UID(str(header.get(keyword))).is_valid for header in headers)]
    if wrong:
        what = f"the series has a {', '.join(wrong)} that is no valid UID, by which a DICOM result refers to it"
        refuse(case, what, "export it again with valid UIDs, or do without DICOM output", "dicom.references")
    if len({str(parsed(header, "PatientID") or "") for header in headers}) > 1:
        refuse(case, "the slices are of several patients", "give the slices of one series", "dicom.series")
    for keyword in _SHARED:
        if len({str(header.get(keyword)) for header in headers}) > 1:
            what = f"the slices differ in {keyword}"
            refuse(case, what, "give the slices of one series", "dicom.series")
    if len({str(header.SOPInstanceUID) for header in headers}) < len(headers):
        refuse(case, "slices share a SOPInstanceUID", "export the series again", "dicom.references")
