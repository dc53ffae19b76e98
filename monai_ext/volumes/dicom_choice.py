"""The one series that a path means, or a sentence that lists those it could mean."""

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from monai_ext.volumes.dicom_folder import slices_in
from monai_ext.volumes.dicom_places import Places, SeriesPlace, named_places, picked, places_below, places_in_zip
from monai_ext.volumes.dicom_slice import DicomSlice, open_slice
from monai_ext.volumes.dicom_sort import sort_files, sort_slices, told
from monai_ext.volumes.dicom_zip import Unpacked, is_zip
from monai_ext.volumes.reading_limits import allow, reads_inside
from monai_ext.volumes.reading_pool import ask
from monai_ext.volumes.reading_values import paths_below, trusting_nothing
from monai_ext.volumes.refusals import refuse

_LISTED = 10


def choose_series(
    home: Path, pick: str | None, case: str
) -> tuple[SeriesPlace, list[DicomSlice], Places, Unpacked | None]:
    """Open the headers of one series.

    Args:
        home: a folder or a zip.
        pick: its key or its number, if ``home`` may hold several.
        case: the id for messages.

    Returns:
        The series, its slices in the order of their files' names, everything beside it, and what was unpacked.

    Raises:
        ScanError: no such series, or several; a file that cannot be opened; a zip that cannot be used.
    """
    known: dict[Path, DicomSlice] = {}
    unpacked = None
    if is_zip(home):
        unpacked, places = places_in_zip(home, case)
    elif pick is None:
        files = _files(home, case)
        known = {path: open_slice(path, _place(number, files), case) for number, path in enumerate(files)}
        found = sort_slices(known.values(), case)
        places = Places(named_places(home, found.series, plain=len(found.series) == 1), found.set_aside, {})
    else:
        places = places_below(home)
        if home in places.refused:
            sort_files(slices_in(home), case)  # refuses once more, by the name of this case
    try:
        chosen = _one_of(places, home, pick, case)
        files = list(chosen.series.files)
        slices = [known.get(path) or open_slice(path, _place(number, files), case) for number, path in enumerate(files)]
    except BaseException:
        if unpacked is not None:
            unpacked.remove()
        raise
    return chosen, slices, places, unpacked


def files_of(path: Path, case: str) -> list[Path]:
    """Return the files that decide what a path with a mark reads: those of the series, or the zip.

    Raises:
        ScanError: see `choose_series`.
    """
    home, pick = picked(path)
    if is_zip(home):
        return [home]
    if reads_inside():
        return list(choose_series(home, pick, case)[0].series.files)
    values, _ = ask("files_of", case, {"path": str(path), "case": case})
    with trusting_nothing(case):
        return list(paths_below(values, home))


def _place(number: int, files: Sequence[Path]) -> str:
    return f"file {number + 1} of {len(files)}"


def _files(folder: Path, case: str) -> list[Path]:
    if not folder.is_dir():
        refuse(case, "there is no such folder or zip", "check the path", "scan.missing")
    folders = sum(entry.is_dir() and not entry.name.startswith(".") for entry in folder.iterdir())
    if folders:
        what = f"the folder holds {folders} folder{'s' if folders > 1 else ''}"
        refuse(case, what, "give the folder of one DICOM series", "dicom.folders")
    files = slices_in(folder)
    allow(files=len(files))
    if not files:
        refuse(case, "the folder holds no scan", "give the folder of one DICOM series", "scan.empty")
    return files


def _one_of(places: Places, home: Path, pick: str | None, case: str) -> SeriesPlace:
    found = places.found
    if pick is not None:
        # What has this home was named for it; a user may also give a folder far above the series.
        here = [place for place in found if place.home == home]
        found = _matching(here, pick) or _matching(found, pick)
    if len(found) == 1:
        return found[0]
    kind = "folder" if home.is_dir() else "zip"
    if not places.found:
        what = f"the {kind} holds no slices of a volume, only {told(places.set_aside) or 'other files'}"
        code = "dicom.localizer" if set(places.set_aside) == {"localizer"} else "dicom.no_series"
        refuse(case, what, "give the folder of one DICOM series", code)
    if pick is None:
        sizes = sorted((len(place.series.files) for place in found), reverse=True)[:_LISTED]
        what = f"the {kind} mixes {len(found)} series (of {', '.join(map(str, sizes))} files)"
        _refuse_with_list(found, case, what, "sort them into one folder a series, or pick one")
    what = "has no such series" if not found else f"has {len(found)} series of that number"
    _refuse_with_list(found or places.found, case, f"the {kind} {what}", "pick one")


def _matching(places: Sequence[SeriesPlace], pick: str) -> list[SeriesPlace]:
    # A key is unique in its home, a number need not be.
    by_key = [place for place in places if place.key == pick]
    return by_key or [place for place in places if str(place.series.number) == pick]


def _refuse_with_list(places: Sequence[SeriesPlace], case: str, what: str, way_out: str) -> NoReturn:
    names = [f"#{place.key} ({len(place.series.files)} files)" for place in places[:_LISTED]]
    more = f" and {len(places) - _LISTED} more" if len(places) > _LISTED else ""
    refuse(case, what, f"{way_out} by adding its mark to the path: {', '.join(names)}{more}", "dicom.series")
