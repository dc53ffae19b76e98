"""Which scans there are to prepare: in a folder, in a datalist, or one alone."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from monai_ext.base import ManifestError, ScanError, case_id, inside
from monai_ext.manifests import DatalistEntry, load_datalist, read_datalist
from monai_ext.volumes.read_itk import ITK_ENDINGS
from monai_ext.volumes.read_nifti import NIFTI_ENDINGS

SCAN_ENDINGS = NIFTI_ENDINGS + ITK_ENDINGS
# How label files and folders are named in public data sets; a folder alone cannot tell whose labels they are.
LABEL_NAME = re.compile(r"(^|[-_. ])(segs?|segmentations?|labels?|masks?|gt|seg_?mask)$", re.IGNORECASE)
LABEL_FOLDERS = ("labelstr", "labelsts", "labels", "masks", "segmentations")


@dataclass(frozen=True)
class Source:
    """One scan to prepare.

    Attributes:
        image: the scan, a file or a DICOM series folder; where a datalist names none that may be read, no file.
        relative: its path from the root, with ``/``.
        case: its id in the datalist, else its base name.
        label: its label volume, if a datalist names one.
        label_relative: the label's path from the root.
        problem: a sentence why it cannot be prepared, if that is known already.
        problem_code: the same as a word for programs.
    """

    image: Path
    relative: str
    case: str
    label: Path | None = None
    label_relative: str | None = None
    problem: str | None = None
    problem_code: str = ""


@dataclass(frozen=True)
class Found:
    """What there is to prepare.

    Attributes:
        root: the folder that relative paths start from.
        sources: the scans, each path once.
        left_out: relative paths of files that look like labels and that no datalist pairs with a scan.
        label_names: names of label ids, if the datalist gives them.
    """

    root: Path
    sources: list[Source]
    left_out: list[str] = field(default_factory=list)
    label_names: dict[int, str] = field(default_factory=dict)


def find_sources(
    source: Path, root: Path | None = None, sections: Sequence[str] | None = None, store: Path | None = None
) -> Found:
    """List the scans of a folder (with all folders below), of a MONAI datalist, or one scan.

    Args:
        source: the folder, the ``.json`` datalist, or the scan (a file or a DICOM series folder).
        root: where relative paths start: the folder itself, the folder of the datalist or scan by default.
        sections: lists of the datalist to take; all by default.
        store: a folder to pass over, be it inside ``source``: that of the store, or of results.

    Raises:
        ScanError: ``source`` does not exist or is of no known format.
        ManifestError: the datalist is malformed, or ``source`` lies outside ``root``.
    """
    source = Path(os.path.abspath(source))  # Path.resolve would rename what a link is called
    if source.name.lower().endswith(".json"):
        return _from_datalist(source, root, sections)
    if sections:
        raise ManifestError(
            f"{source.name}: sections are parts of a datalist; give the datalist's .json, or no section",
            code="manifest.section",
        )
    if not source.exists():
        raise ScanError(f"{source.name}: there is no such file or folder; check the path", code="scan.missing")
    folder = Path(os.path.abspath(root)) if root is not None else _own_root(source)
    if not source.is_relative_to(folder):
        raise ManifestError(
            f"{source.name}: it lies outside the root folder {folder.name}; give a root that holds it",
            code="manifest.outside_root",
        )
    if source.is_dir():
        return _from_folder(source, folder, store)
    if not source.name.lower().endswith(SCAN_ENDINGS):
        raise ScanError(
            f"{source.name}: not a scan or datalist; give a folder, a .json datalist, or a file ending in "
            f"{', '.join(SCAN_ENDINGS)}",
            code="scan.format",
        )
    return Found(folder, [_checked(source, folder)])


def listed(names: Sequence[str]) -> str:
    """Return the first base names, and how many more there are."""
    return ", ".join(Path(name).name for name in names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def but_labels(left_out: Sequence[str]) -> str:
    """Return what to add to "no scan" where files were left out for their names."""
    return f" ({listed(left_out)}: named like labels)" if left_out else ""


def _own_root(source: Path) -> Path:
    # A series alone is called by its folder's name, as it is when the folder above is prepared.
    return source if source.is_dir() and not any(map(_is_dicom, _visible_files(source))) else source.parent


def _visible_files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise ScanError(
            f"{folder.name}: the folder cannot be listed ({error.strerror}); make it readable", code="scan.closed"
        ) from None


def _from_datalist(path: Path, root: Path | None, sections: Sequence[str] | None) -> Found:
    entries = read_datalist(path, root, sections)
    folder = (Path(root) if root is not None else path.parent).resolve()
    sources: dict[str, Source] = {}
    for entry in entries:
        new = _listed(entry, folder, f"{entry.section}: scan {len(sources)}")
        known = sources.setdefault(new.relative, new)
        if known.label_relative != new.label_relative:
            problem = (
                f"{entry.case}: it is listed twice with different labels; list each scan with one label, "
                "or prepare one section at a time"
            )
            sources[new.relative] = replace(known, problem=problem, problem_code="manifest.two_labels")
    return Found(folder, list(sources.values()), label_names=_label_names(path))


def _listed(entry: DatalistEntry, root: Path, place: str) -> Source:
    if entry.image is None:
        code = entry.problem.code if entry.problem else ""
        return Source(root / place, place, entry.case, problem=str(entry.problem), problem_code=code)
    label = None if entry.label is None else entry.label.relative_to(root).as_posix()
    return Source(entry.image, entry.image.relative_to(root).as_posix(), entry.case, entry.label, label)


def _label_names(path: Path) -> dict[int, str]:
    # {"1": "liver"} in the decathlon's files, {"liver": 1} in nnU-Net's.
    labels = load_datalist(path).get("labels")
    pairs = labels.items() if isinstance(labels, dict) else ()
    if all(isinstance(name, str) and key.isdigit() for key, name in pairs):
        return {int(key): name for key, name in pairs}
    if all(isinstance(number, int) for _, number in pairs):
        return {number: name for name, number in pairs}
    return {}


def _from_folder(source: Path, root: Path, store: Path | None) -> Found:
    sources, left_out, closed = list[Source](), list[str](), list[OSError]()
    for folder, files, linked in _walk(source, store, closed):
        sources += [_checked(link, root) for link in linked if not _stays_inside(link, root)]
        slices = []
        for path in files:
            if not path.name.lower().endswith(SCAN_ENDINGS):
                slices.append(path)
            elif LABEL_NAME.search(case_id(path)) or folder.name.lower() in LABEL_FOLDERS:
                left_out.append(path.relative_to(root).as_posix())
            else:
                sources.append(_checked(path, root))
        if any(_is_dicom(path) for path in slices):
            sources.append(_checked(folder, root, slices))
    sources += [_closed(Path(error.filename), root, error) for error in closed]
    return Found(root, sorted(sources, key=lambda item: item.relative), sorted(left_out))


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


def _is_dicom(path: Path) -> bool:
    if path.name == "DICOMDIR" or not path.is_file():  # to open a pipe would wait for its writer
        return False
    if path.name.lower().endswith(".dcm"):
        return True
    try:
        with path.open("rb") as handle:
            return handle.read(132)[128:] == b"DICM"
    except OSError:
        return False  # a file of somebody else's: no slice
