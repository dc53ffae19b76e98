"""What the slices of a DICOM series must be before they are read as one volume in HU.

Attributes are those of DICOM PS3.3: image plane C.7.6.2, pixels C.7.6.3, CT C.8.2.1, rescale C.11.1.
"""

from collections import Counter
from collections.abc import Sequence

from monai_ext.volumes.checks import check_shape
from monai_ext.volumes.dicom_slice import OWNERS, DicomSlice
from monai_ext.volumes.refusals import refuse, refuse_geometry

_HU_TYPES = {"HU", "US"}  # "US" is "unspecified", in CT of before 2008


def check_slice(item: DicomSlice, *, assume_hu: bool) -> None:
    """Refuse what is no plain slice of CT.

    Raises:
        ScanError: another modality, several frames, a localizer, colour, or no pixels.
    """
    if item.words("Modality") != ["CT"] and not assume_hu:
        item.refuse("is not CT by its modality", "give CT, or pass --assume-hu if it is in HU", "dicom.modality")
    if item.number("NumberOfFrames", 1) != 1:
        item.refuse("holds several frames", "convert it to one file a slice", "dicom.multiframe")
    if "LOCALIZER" in item.words("ImageType"):
        item.refuse("is a localizer", "take the localizers out of the folder", "dicom.localizer")
    if item.number("SamplesPerPixel", 1) != 1:
        item.refuse("is in colour", "give CT", "scan.not_scalar")
    if item.count("Rows") < 1 or item.count("Columns") < 1:
        item.refuse("has no pixels", "take it out of the folder", "dicom.no_pixels")


def check_owners(slices: Sequence[DicomSlice], case: str) -> None:
    """Refuse slices of several patients, studies or frames of reference; what none of them tells is no matter.

    Raises:
        ScanError: they differ. Their values identify patients, and are not told.
    """
    named = any("PatientID" in item.owners for item in slices)
    for keyword in OWNERS:
        if keyword == "PatientName" and named:
            continue  # which may be spelled in several ways, where the id says it already
        if len({item.owners.get(keyword) for item in slices}) > 1:
            way_out = "give the slices of one patient, study and frame of reference"
            refuse(case, f"the slices of the series differ in their {keyword}", way_out, "dicom.owners")


def check_instances(slices: Sequence[DicomSlice], case: str) -> None:
    """Refuse one instance at two places; slices that lie where others do are refused before.

    Raises:
        ScanError: a SOPInstanceUID is given twice.
    """
    seen = set[str]()
    for item in slices:
        uid = str(item.value("SOPInstanceUID") or "")
        if uid and uid in seen:
            what, way_out = "has a SOPInstanceUID that is given twice, at two positions", "export the series again"
            item.refuse(what, way_out, "dicom.instance_twice")
        seen.add(uid)


def shape_of(slices: Sequence[DicomSlice], case: str) -> tuple[int, int, int]:
    """Return the shape ``(x, y, z)`` of the volume.

    Raises:
        GeometryError: slices of several sizes, a single slice, or more voxels than are read here.
    """
    sizes = Counter((item.count("Columns"), item.count("Rows")) for item in slices)
    if len(sizes) > 1:
        what = f"the slices have several sizes, {' and '.join(f'{x}x{y}' for x, y in sizes)}"
        refuse_geometry(case, what, "sort them into one folder a series", "dicom.sizes")
    (columns, rows), count = sizes.popitem()
    return check_shape((columns, rows, count), case)


def rescale_of(item: DicomSlice, *, assume_hu: bool) -> tuple[float, float]:
    """Return slope and intercept, by which the stored values of this slice become HU.

    Raises:
        ScanError: absent, zero, a table instead, or of another unit.
    """
    if item.value("ModalityLUTSequence") is not None:
        item.refuse("has a modality LUT", "export it with a rescale slope and intercept", "dicom.rescale")
    if not assume_hu and not set(item.words("RescaleType")) <= _HU_TYPES:
        item.refuse("is rescaled to another unit than HU", "give CT in HU", "dicom.rescale_type")
    absent = [key for key in ("RescaleSlope", "RescaleIntercept") if item.value(key) is None]
    if len(absent) == 2 and assume_hu:
        return 1.0, 0.0
    if absent:
        way_out = "export it with them, or pass --assume-hu if the stored values are HU"
        item.refuse("has no rescale slope and intercept", way_out, "dicom.rescale")
    slope, intercept = item.number("RescaleSlope", 1), item.number("RescaleIntercept", 0)
    if slope == 0:
        item.refuse("has a rescale slope of 0", "export it again", "dicom.rescale")
    return slope, intercept
