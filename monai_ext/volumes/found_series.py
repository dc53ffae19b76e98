"""The DICOM series of a folder or zip, each to be opened on its own."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from monai_ext.base import told_apart
from monai_ext.volumes.dicom import DicomSeries, open_series
from monai_ext.volumes.dicom_places import Places, case_of, places_below, places_in_zip
from monai_ext.volumes.dicom_sort import told, warn_of
from monai_ext.volumes.dicom_zip import is_zip
from monai_ext.volumes.refusals import refuse, refusing_closed_files


@dataclass(frozen=True)
class FoundSeries:
    """One series, its slices not yet checked.

    Attributes:
        path: what `open_series`, ``read_scan`` and every command take for this series alone: its folder or zip,
            with a ``#`` and its mark where that holds several.
        case: the base name, with the mark where there is one.
        number: its series number, if it has one.
        modality: as its first file says, such as ``"CT"``; empty if it says none.
        slices: how many files it has.
        problem: why a folder cannot be sorted into series, which then stands for all of them.
    """

    path: Path
    case: str
    number: int | None
    modality: str
    slices: int
    problem: str | None = None

    def open(self, *, assume_hu: bool = False) -> DicomSeries:
        """Open the series, see `open_series`."""
        return open_series(self.path, self.case, assume_hu=assume_hu)


def find_series(path: str | os.PathLike[str], case: str | None = None) -> list[FoundSeries]:
    """List the series of a folder, of all folders below it, or of a zip.

    Parts of one series in several folders are one series. Localizers, reports, segmentations and the like are
    set aside, with a warning that counts them.

    Args:
        path: the folder or the zip; zips in a folder are passed over here.
        case: the name that cases start with; by default that of each series' own folder or zip.

    Raises:
        ScanError: there is nothing there, no series in it, or the zip cannot be used, see `open_series`.
    """
    home = Path(os.path.abspath(path))
    name = case or case_of(home)
    with refusing_closed_files(name):
        if is_zip(home):
            unpacked, places = places_in_zip(home, name)
            unpacked.remove()
        elif home.is_dir():
            places = places_below(home)
        else:
            refuse(name, "there is no such folder or zip", "check the path", "scan.missing")
    warn_of(places.set_aside, name)
    if not places.found and not places.refused:
        account = f" beside {told(places.set_aside)}" if places.set_aside else ""
        refuse(name, f"no DICOM series was found{account}", "give the folder or zip of one", "scan.none")
    return _found(places, home, case)


def _found(places: Places, home: Path, case: str | None) -> list[FoundSeries]:
    several = len(places.found) + len(places.refused) > 1
    found = []
    for place in places.found:
        name = place.case if case is None else f"{case}-{place.key}" if several else case
        series = place.series
        found.append(FoundSeries(place.path, name, series.number, series.modality, len(series.files)))
    for folder, error in places.refused.items():
        name = folder.name if case is None else case
        reason = str(error).removeprefix(f"{folder.name}: ")
        found.append(FoundSeries(folder, name, None, "", 0, f"{name}: {reason}"))
    found.sort(key=lambda one: one.path)
    names = told_apart([(one.case, one.path.relative_to(home.parent).as_posix()) for one in found])
    return [replace(one, case=name) for one, name in zip(found, names, strict=True)]
