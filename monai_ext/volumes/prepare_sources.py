"""Which scans there are to prepare: in a folder, in a manifest or datalist, or one alone."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from monai_ext.base import ManifestError, ScanError, case_id, inside
from monai_ext.manifests import is_manifest, load_datalist
from monai_ext.volumes.dicom_folder import is_dicom, slices_in
from monai_ext.volumes.dicom_places import SeriesPlace, case_of, is_series, picked, places_in_zip, places_on_disk
from monai_ext.volumes.dicom_sort import warn_of
from monai_ext.volumes.dicom_zip import is_zip, may_hold_scans
from monai_ext.volumes.earlier_results import KIND, is_note, results_in
from monai_ext.volumes.prepare_datalist import from_datalist
from monai_ext.volumes.prepare_manifest import from_manifest
from monai_ext.volumes.prepare_source import Found, Source
from monai_ext.volumes.read_itk import ITK_ENDINGS
from monai_ext.volumes.read_nifti import NIFTI_ENDINGS
from monai_ext.volumes.refusals import refusing_closed_files

SCAN_ENDINGS = NIFTI_ENDINGS + ITK_ENDINGS
# How label files and folders are named in public data sets; a folder alone cannot tell whose labels they are.
LABEL_NAME = re.compile(r"(^|[-_. ])(segs?|segmentations?|labels?|masks?|gt|seg_?mask)$", re.IGNORECASE)
LABEL_FOLDERS = ("labelstr", "labelsts", "labels", "masks", "segmentations")


def find_sources(
    source: Path, root: Path | None = None, sections: Sequence[str] | None = None, store: Path | None = None
) -> Found:
    """List the scans of a folder (with all folders below), of a manifest or MONAI datalist, or one scan.

    Args:
        source: the folder, the ``.json`` manifest or datalist, or the scan (a file, or a DICOM series folder or
            zip; where that holds several series, each is a scan, and a ``#`` with its number picks one).
        root: where relative paths start: the folder itself, the folder of the datalist or scan by default.
        sections: lists of the datalist to take; all by default.
        store: a folder to pass over, be it inside ``source``: that of the store, or of results.

    Raises:
        ScanError: ``source`` does not exist or is of no known format.
        ManifestError: the datalist is malformed, or ``source`` lies outside ``root``.
    """
    source = Path(os.path.abspath(source))  # Path.resolve would rename what a link is called
    if source.name.lower().endswith(".json"):
        return (from_manifest if is_manifest(load_datalist(source)) else from_datalist)(source, root, sections)
    if sections:
        raise ManifestError(
            f"{source.name}: sections are parts of a datalist; give the datalist's .json, or no section",
            code="manifest.section",
        )
    if not source.exists() and not is_series(source):
        raise ScanError(f"{source.name}: there is no such file or folder; check the path", code="scan.missing")
    folder = Path(os.path.abspath(root)) if root is not None else _own_root(source)
    if not source.is_relative_to(folder):
        raise ManifestError(
            f"{source.name}: it lies outside the root folder {folder.name}; give a root that holds it",
            code="manifest.outside_root",
        )
    if source.is_dir() or is_zip(source):
        found = _from_folder(source, folder, store) if source.is_dir() else _from_zip(source, folder)
        warn_of(found.set_aside, source.name)
        return found
    if is_series(source):
        return Found(folder, [_picked(source, folder)])
    if not source.name.lower().endswith(SCAN_ENDINGS):
        raise ScanError(
            f"{source.name}: not a scan or datalist; give a folder, a .json datalist, or a file ending in "
            f"{', '.join(SCAN_ENDINGS)}, .zip",
            code="scan.format",
        )
    return Found(folder, [_checked(source, folder)])


def listed(names: Sequence[str]) -> str:
    """Return the first base names, and how many more there are."""
    return ", ".join(Path(name).name for name in names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def but_labels(left_out: Sequence[str]) -> str:
    """Return what to add to "no scan" where files were left out for their names."""
    return f" ({listed(left_out)}: named like labels)" if left_out else ""


def refuse_results_alone(found: Found, name: str) -> None:
    """Refuse a folder in which there is nothing else than what earlier runs wrote.

    Raises:
        ScanError: nothing was found but results.
    """
    if not found.sources and not found.left_out and set(found.set_aside) == {KIND}:
        raise ScanError(
            f"{name}: holds nothing but results of earlier runs; give the pictures and scans themselves",
            code="scan.none",
        )


def _own_root(source: Path) -> Path:
    # A series alone is called by its folder's name, as it is when the folder above is prepared.
    return source if source.is_dir() and not any(map(is_dicom, _visible_files(source))) else source.parent


def _visible_files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise ScanError(
            f"{folder.name}: the folder cannot be listed ({error.strerror}); make it readable", code="scan.closed"
        ) from None


def _from_folder(source: Path, root: Path, store: Path | None) -> Found:
    sources, left_out, closed = list[Source](), list[str](), list[OSError]()
    of_dicom, set_aside = dict[Path, list[Path]](), Counter[str]()
    for folder, files, linked in _walk(source, store, closed):
        sources += [_checked(link, root) for link in linked if not _stays_inside(link, root)]
        slices, results = [], results_in(folder)
        for path in files:
            # What is named itself is taken, but for DICOM, which no series is read from.
            if path.name in results and (folder != source or is_dicom(path)):
                set_aside[KIND] += not is_note(path.name)
            elif path.name.lower().endswith(".zip"):
                # A zip beside a folder of its name is what that folder was unpacked from.
                if not path.with_name(case_id(path)).is_dir() and is_zip(path) and may_hold_scans(path):
                    found = _from_zip(path, root)
                    sources += found.sources
                    set_aside += found.set_aside
            elif not path.name.lower().endswith(SCAN_ENDINGS):
                slices.append(path)
            elif LABEL_NAME.search(case_id(path)) or folder.name.lower() in LABEL_FOLDERS:
                left_out.append(path.relative_to(root).as_posix())
            else:
                sources.append(_checked(path, root))
        if any(is_dicom(path) for path in slices):
            checked = _checked(folder, root, slices)
            if checked.problem:
                sources.append(checked)
            else:
                of_dicom[folder] = slices_in(folder)
    places = places_on_disk(of_dicom)
    sources += [_of_series(place, root) for place in places.found]
    sources += [_checked(folder, root) for folder in places.refused]  # reading will say what is wrong with it
    sources += [_closed(Path(error.filename), root, error) for error in closed]
    set_aside += places.set_aside
    set_aside = +set_aside  # without those of which there are none
    return Found(root, sorted(sources, key=lambda item: item.relative), sorted(left_out), set_aside=set_aside)


def _picked(path: Path, root: Path) -> Source:
    home, pick = picked(path)
    checked, case = _checked(home, root), f"{case_of(home)}-{pick}"
    return replace(checked, image=path, relative=path.relative_to(root).as_posix(), case=case)


def _from_zip(path: Path, root: Path) -> Found:
    checked = _checked(path, root)
    if checked.problem:
        return Found(root, [checked])
    try:
        with refusing_closed_files(checked.case):
            unpacked, places = places_in_zip(path, checked.case)
            unpacked.remove()
    except ScanError as error:
        return Found(root, [replace(checked, problem=str(error), problem_code=error.code)])
    sources = [_of_series(place, root) for place in places.found]
    return Found(root, sorted(sources, key=lambda item: item.relative), set_aside=places.set_aside)


def _of_series(place: SeriesPlace, root: Path) -> Source:
    mark = f"#{place.key}" if place.path != place.home else ""
    return Source(place.path, place.home.relative_to(root).as_posix() + mark, place.case)


def _walk(source: Path, store: Path | None, closed: list[OSError]) -> Iterator[tuple[Path, list[Path], list[Path]]]:
    # Folder, its visible files, and the links to folders in it, which are not followed; errors go to closed.
    avoid = store.resolve() if store is not None else None
    for name, folders, files in os.walk(source, onerror=closed.append, followlinks=False):
        folder = Path(name)
        linked = [folder / other for other in folders if (folder / other).is_symlink()]
        folders[:] = sorted(
            other for other in folders if not other.startswith(".") and (folder / other).resolve() != avoid
        )
        yield folder, sorted(folder / other for other in files if not other.startswith(".")), sorted(linked)


def _checked(path: Path, root: Path, slices: Sequence[Path] = ()) -> Source:
    relative = path.relative_to(root).as_posix()
    case = case_id(path)
    outside = [part for part in (path, *slices) if not _stays_inside(part, root)]
    problem = None
    if outside:
        problem = (
            f"{case}: a link leads out of the root folder; put the scan itself into the folder, "
            "or prepare from a root folder that holds both (--root)"
        )
    return Source(path, relative, case, problem=problem, problem_code="manifest.outside_root" if problem else "")


def _closed(folder: Path, root: Path, error: OSError) -> Source:
    problem = f"{folder.name}: the folder cannot be listed ({error.strerror}); make it readable, or leave it out"
    relative = folder.relative_to(root).as_posix()
    return Source(folder, relative, folder.name, problem=problem, problem_code="scan.closed")


def _stays_inside(path: Path, root: Path) -> bool:
    try:
        inside(root, path.relative_to(root))
    except ManifestError:
        return False
    return True
