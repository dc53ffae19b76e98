"""What lies in a downloaded folder: scans, pictures, DICOM folders, and what is none of these."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from monai_ext.base import ManifestError, case_id, inside, plain_name
from monai_ext.curation.problems import Problem
from monai_ext.volumes import PICTURE_ENDINGS
from monai_ext.volumes.dicom_folder import is_dicom
from monai_ext.volumes.prepare_sources import SCAN_ENDINGS

FILE_ENDINGS = (*SCAN_ENDINGS, *PICTURE_ENDINGS)
# What systems and archivers leave behind; other hidden files and folders are passed over likewise.
_JUNK = ("Thumbs.db", "desktop.ini", "__MACOSX")
_DETACHED = (".raw", ".zraw", ".raw.gz", ".img")  # data of a header beside them
_NO_SLICES = (*FILE_ENDINGS, *_DETACHED, ".json", ".csv", ".txt", ".xlsx", ".xml", ".md", ".pdf", ".zip", ".gz", ".pt")


@dataclass
class DatasetFiles:
    """The files of a folder and of all folders below it.

    Attributes:
        root: the folder.
        paths: of scans and pictures, relative to the root with ``/``, sorted; a folder of DICOM files ends in ``/``.
        other: how many other files there are, by their ending.
        junk: how many hidden files and leftovers of systems were passed over.
        problems: files and folders that cannot be used.
    """

    root: Path
    paths: list[str] = field(default_factory=list)
    other: Counter[str] = field(default_factory=Counter)
    junk: int = 0
    problems: list[Problem] = field(default_factory=list)


def list_files(root: str | os.PathLike[str], avoid: Path | None = None) -> DatasetFiles:
    """List a folder; links are never followed out of it, nor any link to a folder.

    Args:
        root: the folder.
        avoid: a file to pass over, such as the manifest that is to be written.

    Raises:
        ManifestError: it is no folder, cannot be listed, or is itself a DICOM series.
    """
    top = Path(root).absolute()
    if not top.is_dir():
        what = "a file" if top.is_file() else "not there"
        raise ManifestError(
            f"{top.name}: the folder of the data set is {what}; give the folder that the download was unpacked into",
            code="build.no_folder",
        )
    found = DatasetFiles(top)
    for folder, names in _walk(top, found):
        dicom = False
        for name in names:
            path = folder / name
            if path == avoid or _is_junk(name):
                found.junk += _is_junk(name)
            elif name.lower().endswith(FILE_ENDINGS):
                _take(path, found)
            elif not dicom and not name.lower().endswith(_NO_SLICES) and is_dicom(path):
                dicom = True
            elif not (dicom and is_dicom(path)):
                found.other[_ending(name)] += 1
        if dicom and folder == top:
            raise ManifestError(
                f"{top.name}: the folder itself is a DICOM series; give the folder above it", code="build.series"
            )
        if dicom:
            _take(folder, found)
    found.paths.sort()
    return found


def _walk(top: Path, found: DatasetFiles) -> Iterator[tuple[Path, list[str]]]:
    closed: list[OSError] = []
    for place, folders, files in os.walk(top, onerror=closed.append, followlinks=False):
        folder = Path(place)
        for name in sorted(folders):
            if (folder / name).is_symlink():
                found.problems.append(_link(folder / name, top))
        found.junk += sum(map(_is_junk, folders))
        folders[:] = sorted(name for name in folders if not _is_junk(name) and not (folder / name).is_symlink())
        yield folder, sorted(files)
    for error in closed:
        folder = Path(error.filename)
        if folder == top:
            raise ManifestError(
                f"{top.name}: the folder cannot be listed ({error.strerror}); make it readable", code="build.closed"
            )
        name = _told(folder.name)
        found.problems.append(
            Problem("folder.closed", name, f"{name}: the folder cannot be listed ({error.strerror}); make it readable")
        )


def _take(path: Path, found: DatasetFiles) -> None:
    """Add a scan, or the reason why it cannot be one."""
    name, relative = _told(case_id(path)), path.relative_to(found.root).as_posix()
    if plain_name(relative) != relative or "\\" in relative or not relative.isprintable():
        sentence = f"{name}: its path holds a character that no list can hold; rename the file or its folder"
        found.problems.append(Problem("file.name", name, sentence))
        return
    try:
        inside(found.root, relative)
        size = path.stat().st_size
    except ManifestError:
        found.problems.append(_link(path, found.root))
    except OSError as error:
        sentence = f"{name}: it cannot be read ({error.strerror}); check the file or link and its permissions"
        found.problems.append(Problem("file.closed", name, sentence))
    else:
        if path.is_dir():
            found.paths.append(f"{relative}/")
        elif size:
            found.paths.append(relative)
        else:
            sentence = f"{name}: the file is empty; download it again, or remove it"
            found.problems.append(Problem("file.empty", name, sentence))


def _link(path: Path, root: Path) -> Problem:
    name = _told(case_id(path))
    try:
        inside(root, path.relative_to(root))
    except ManifestError:
        sentence = (
            f"{name}: a link leads out of the folder and is not followed; put the files themselves into it, or build "
            "from the folder that holds both"
        )
        return Problem("file.outside_root", name, sentence)
    return Problem("folder.link", name, f"{name}: a link to a folder is not followed; its target is listed anyway")


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name in _JUNK


def _ending(name: str) -> str:
    stem, ending = os.path.splitext(name)
    if ending == ".gz":
        ending = os.path.splitext(stem)[1] + ending
    return ending.lower() if 1 < len(ending) <= 10 and ending.isascii() and ending.isprintable() else "no ending"


def _told(name: str) -> str:
    """Return a name for sentences: what a terminal would obey, such as a line break or colours, becomes ``_``."""
    return "".join(character if character.isprintable() else "_" for character in plain_name(name))
