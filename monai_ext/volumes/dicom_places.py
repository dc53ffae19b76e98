"""Where series lie, and paths that name one of several: ``folder#3`` or ``scans.zip#3-1f2e3d4c``."""

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from monai_ext.base import ScanError, case_id
from monai_ext.volumes.dicom_folder import folders_of_dicom, slices_in
from monai_ext.volumes.dicom_sort import SeriesFiles, sort_files
from monai_ext.volumes.dicom_zip import Unpacked, is_zip, unpack


@dataclass(frozen=True)
class SeriesPlace:
    """One series of a folder or zip.

    Attributes:
        path: opens this series and no other; only where there are several has it a ``#`` and the key.
        home: the folder or zip.
        key: tells it from the other series of its home.
        series: its files.
    """

    path: Path
    home: Path
    key: str
    series: SeriesFiles

    @property
    def case(self) -> str:
        """The base name of the home, with the key where it is needed."""
        return case_of(self.home) + (f"-{self.key}" if self.path != self.home else "")


@dataclass(frozen=True)
class Places:
    """The series of several folders.

    Attributes:
        found: the series.
        set_aside: how many files of each kind are no slices.
        refused: folders that cannot be sorted, because a file of theirs is damaged or no DICOM.
    """

    found: list[SeriesPlace]
    set_aside: Counter[str]
    refused: dict[Path, ScanError]


def picked(path: Path) -> tuple[Path, str | None]:
    """Split ``folder#3`` into the folder or zip and the pick; what exists by that very name has no pick."""
    home, mark, pick = path.name.rpartition("#")
    if mark and home and pick and not os.path.exists(path):
        place = path.with_name(home)
        if os.path.isdir(place) or is_zip(place):
            return place, pick
    return path, None


def is_series(path: Path) -> bool:
    """Return whether a path is read as DICOM: a folder, a zip, or one series of either."""
    place, _ = picked(path)
    return os.path.isdir(place) or is_zip(place)  # of os, which has no error for names that are too long


def case_of(home: Path) -> str:
    """Return the base name of a folder, which may hold points, or of a zip without its ending."""
    return home.name if home.is_dir() else case_id(home)


def places_on_disk(folders: Mapping[Path, Sequence[Path]]) -> Places:
    """Sort the files of folders into series.

    Parts of one series in several folders are one series; copies of one are as many.

    Args:
        folders: of each folder the files that must be slices.
    """
    groups, set_aside, refused = list[tuple[Path, SeriesFiles]](), Counter[str](), dict[Path, ScanError]()
    for folder, files in folders.items():
        try:
            found = sort_files(files, folder.name)
        except ScanError as error:
            refused[folder] = error
            continue
        set_aside += found.set_aside
        groups += [(folder, series) for series in found.series]
    by_home = defaultdict(list)
    for home, series in _joined(groups):
        by_home[home].append(series)
    places = []
    for home, several in by_home.items():
        alone = len(several) == 1 and several[0].files[0].parent == several[0].files[-1].parent == home
        places += named_places(home, several, plain=alone and not _has_folders(home))
    return Places(places, set_aside, refused)


def places_below(top: Path) -> Places:
    """Find the series of a folder and all folders below it."""
    return places_on_disk({folder: slices_in(folder) for folder in folders_of_dicom(top)})


def places_in_zip(path: Path, case: str) -> tuple[Unpacked, Places]:
    """Unpack a zip and sort its files; ``remove`` what was unpacked when done.

    Raises:
        ScanError: see `unpack`; or a file is damaged or no DICOM.
    """
    unpacked = unpack(path, case)
    try:
        found = [sort_files(files, case) for files in unpacked.folders]
        groups = [
            (files[0].parent, series)
            for files, one in zip(unpacked.folders, found, strict=True)
            for series in one.series
        ]
        joined = [series for _, series in _joined(groups)]
    except BaseException:
        unpacked.remove()
        raise
    set_aside = sum((one.set_aside for one in found), Counter[str]())
    return unpacked, Places(named_places(path, joined, plain=len(joined) == 1), set_aside, {})


def _joined(groups: list[tuple[Path, SeriesFiles]]) -> list[tuple[Path, SeriesFiles]]:
    """Join the parts of a series that lie in several folders, told by instances that no two of them share."""
    by_uid = defaultdict(list)
    for group in groups:
        by_uid[group[1].uid].append(group)
    parted = {
        uid
        for uid, parts in by_uid.items()
        if uid
        and len(parts) > 1
        and all("" not in part.instances for _, part in parts)
        and sum(len(part.instances) for _, part in parts) == len(frozenset().union(*(p.instances for _, p in parts)))
    }
    joined = [group for group in groups if group[1].uid not in parted]
    for uid in sorted(parted):
        parts = [part for _, part in by_uid[uid]]
        files = tuple(path for part in parts for path in part.files)
        instances = frozenset().union(*(part.instances for part in parts))
        home = Path(os.path.commonpath([folder for folder, _ in by_uid[uid]]))
        joined.append((home, SeriesFiles(files, uid, parts[0].number, parts[0].modality, instances)))
    return joined


def named_places(home: Path, several: list[SeriesFiles], *, plain: bool) -> list[SeriesPlace]:
    """Give each series of one home a path, the only one the home's own if ``plain``."""
    seen, places = Counter[str](), []
    for series in sorted(several, key=lambda one: (one.number is None, one.number or 0, one.key, one.files)):
        seen[series.key] += 1
        key = series.key + (f"-{seen[series.key]}" if seen[series.key] > 1 else "")
        path = home if plain else home.with_name(f"{home.name}#{key}")
        places.append(SeriesPlace(path, home, key, series))
    return places


def _has_folders(folder: Path) -> bool:
    return any(entry.is_dir() and not entry.name.startswith(".") for entry in folder.iterdir())
