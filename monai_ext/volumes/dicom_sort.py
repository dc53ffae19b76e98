"""The files of one folder sorted into series, without what is no slice of a volume."""

import hashlib
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_ext.volumes.dicom_quiet import quiet_pydicom
from monai_ext.volumes.dicom_slice import DicomSlice, open_slice, whole_header
from monai_ext.volumes.reading_limits import allow, reads_inside
from monai_ext.volumes.reading_pool import ask
from monai_ext.volumes.reading_values import counts_of, number_in, trusting_nothing, word
from monai_ext.volumes.refusals import refuse

# Storage classes of PS3.4 B.5 by how their UIDs go on after 1.2.840.10008.; the first that fits counts.
_CLASSES = {
    r"1\.3\.10$": "DICOMDIR",
    r"5\.1\.4\.1\.1\.88\.": "report",
    r"5\.1\.4\.1\.1\.66\.[47]$": "segmentation",
    r"5\.1\.4\.1\.1\.11\.": "presentation state",
    r"5\.1\.4\.1\.1\.481\.": "radiotherapy object",
    r"5\.1\.4\.1\.1\.(9|66|67|104)(\.|$)": "other object",  # waveforms, raw data, registrations, documents
    r"5\.1\.4\.1\.1\.(30|4\.2)$": "other object",  # parametric maps, spectra
}
# De-identified files may have no class; modalities are those of PS3.3 C.7.3.1.1.1.
_MODALITIES = {
    **dict.fromkeys(("SR", "KO"), "report"),
    **dict.fromkeys(("SEG", "LABELMAP"), "segmentation"),
    "PR": "presentation state",
    **dict.fromkeys(("RTSTRUCT", "RTPLAN", "RTDOSE", "RTRECORD", "RTSEGANN"), "radiotherapy object"),
    **dict.fromkeys(("REG", "FID", "DOC", "AU", "ECG", "HD", "PLAN", "STAIN"), "other object"),
}
_DICOM = "1.2.840.10008."
_CAPTURE = re.compile(r"1\.2\.840\.10008\.5\.1\.4\.1\.1\.7(\.|$)")


@dataclass(frozen=True)
class SeriesFiles:
    """The files of one series, in the order of their names.

    Attributes:
        files: one a slice.
        uid: the series instance UID, empty where it was removed.
        number: the series number, if there is one.
        modality: of the first file, empty where it says none.
        instances: their SOP instance UIDs, by which parts and copies of a series are told apart.
    """

    files: tuple[Path, ...]
    uid: str
    number: int | None
    modality: str
    instances: frozenset[str]

    @property
    def key(self) -> str:
        """The series in a word that names no patient: its number, and eight digits derived from its UID."""
        digits = hashlib.sha256(self.uid.encode()).hexdigest()[:8] if self.uid else ""
        number = "" if self.number is None else str(self.number)
        return "-".join(filter(None, (number, digits))) or "unnumbered"


@dataclass(frozen=True)
class Sorted:
    """What a folder holds: its series, and how many files of each kind are no slices."""

    series: list[SeriesFiles]
    set_aside: Counter[str]


@dataclass(frozen=True)
class _Head:
    path: Path
    place: str
    uid: str
    number: int | None
    modality: str
    instance: str
    set_aside: str | None
    whole: bool


def sort_files(files: Sequence[Path], case: str) -> Sorted:
    """Open the files of a folder, keep none of their headers, and sort them, see `sort_slices`.

    Raises:
        ScanError: a file is not DICOM, damaged, or ends before its pixels; or reading the headers crashes, hangs or
            takes more memory than it may.
    """
    if not reads_inside():
        values, _ = ask("sort_files", case, {"files": list(map(str, files)), "case": case})
        with trusting_nothing(case):
            return _sorted_of(values, files)
    allow(files=len(files))
    with quiet_pydicom():
        return sort_slices(
            (open_slice(path, f"file {number} of {len(files)}", case) for number, path in enumerate(files, 1)), case
        )


def sort_slices(slices: Iterable[DicomSlice], case: str) -> Sorted:
    """Sort files into series; those of localizers, reports and the like are only counted.

    A localizer among the slices of a series stays there, for the reader to refuse.

    Raises:
        ScanError: a file ends before its pixels.
    """
    heads = [_head(item) for item in slices]
    for head in heads:
        if not head.whole and head.set_aside is None:
            refuse(case, f"{head.place} ends before its pixels", "copy or export the series again", "dicom.truncated")
    groups: dict[object, list[_Head]] = defaultdict(list)
    for head in heads:
        # De-identified series may have empty UIDs; their number then has to tell series apart.
        groups[head.uid or head.number].append(head)
    set_aside, series = Counter[str](), []
    for group in groups.values():
        if all(head.set_aside for head in group):
            set_aside.update(str(head.set_aside) for head in group)
        else:
            first = group[0]
            instances = frozenset(head.instance for head in group)
            series.append(
                SeriesFiles(tuple(head.path for head in group), first.uid, first.number, first.modality, instances)
            )
    return Sorted(series, set_aside)


def patient_of(path: Path, case: str) -> str:
    """Return the patient's id of a file, which tells patients apart and must go nowhere else; empty if it has none.

    Raises:
        ScanError: the file is damaged, or reading it crashes, hangs or takes more memory than it may.
    """
    if not reads_inside():
        values, _ = ask("patient_of", case, {"path": str(path), "case": case})
        with trusting_nothing(case):
            return word(values)
    with quiet_pydicom():
        return str(whole_header(path, "its first file", case, ["PatientID"]).get("PatientID") or "")


def sorted_values(found: Sorted, files: Sequence[Path]) -> dict[str, Any]:
    """Return what was found as JSON can hold it, files by their place in the list."""
    number_of = {path: number for number, path in enumerate(files)}
    series = [
        [[number_of[path] for path in one.files], one.uid, one.number, one.modality, sorted(one.instances)]
        for one in found.series
    ]
    return {"series": series, "set_aside": dict(found.set_aside)}


def _sorted_of(values: Any, files: Sequence[Path]) -> Sorted:
    series = []
    for places, uid, number, modality, instances in values["series"]:
        if not isinstance(number, int | None):
            raise TypeError
        paths = tuple(files[number_in(place, len(files))] for place in places)
        series.append(SeriesFiles(paths, word(uid), number, word(modality), frozenset(map(word, instances))))
    return Sorted(series, counts_of(values["set_aside"]))


def told(set_aside: Counter[str]) -> str:
    """Return the account in words, such as ``"2 localizers, 1 report"``."""
    return ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in sorted(set_aside.items()))


def warn_of(set_aside: Counter[str], name: str) -> None:
    """Log how many files were passed over, if any were."""
    if set_aside:
        logging.getLogger("monai_ext").warning(f"{name}: set aside {told(set_aside)}")


def _head(item: DicomSlice) -> _Head:
    number = item.value("SeriesNumber")
    return _Head(
        path=item.path,
        place=item.place,
        uid=str(item.value("SeriesInstanceUID") or ""),
        number=None if number is None else int(item.number("SeriesNumber", 0)),
        modality="".join(item.words("Modality")[:1]),
        instance=str(item.value("SOPInstanceUID") or ""),
        set_aside=_set_aside(item),
        whole=item.whole,
    )


def _set_aside(item: DicomSlice) -> str | None:
    """Return what a file is, if it is no slice."""
    kind = str(item.value("SOPClassUID") or item.header.file_meta.get("MediaStorageSOPClassUID", ""))
    for pattern, kind_told in _CLASSES.items():
        if re.match(pattern, kind.removeprefix(_DICOM)):
            return kind_told
    if kind and not kind.startswith(_DICOM) and not item.whole and item.value("SeriesInstanceUID"):
        return "other object"  # of a vendor's own class, without pixels, and not cut within the class
    if "LOCALIZER" in item.words("ImageType"):
        return "localizer"
    if _CAPTURE.match(kind) and item.value("ImageOrientationPatient") is None:
        return "screen capture"
    return None if kind else _MODALITIES.get("".join(item.words("Modality")[:1]))
