"""DICOM files out of a zip: looked at before anything is written, and written under names of our own.

What a zip announces is binding: Python's reader stops at the announced size and compares the checksum. So its
directory alone tells whether there is room, and no name in it ever becomes a path.
"""

import os
import re
import shutil
import stat
import tempfile
import weakref
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path, PurePosixPath

from monai_ext.base import ScanError
from monai_ext.volumes.dicom_folder import is_slice_name, starts_as_dicom
from monai_ext.volumes.refusals import refuse, refuse_damaged

MAX_FILES = 100_000  # slices of some hundred scans
MAX_BYTES = 32 * 2**30
# Slices shrink to a half or a third, empty ones to a hundredth; a bomb to a thousandth and less.
MAX_RATIO, RATIO_FROM_BYTES = 200, 2**28
_HEAD = 132  # the preamble and "DICM"
_KNOWN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)  # LZMA may demand gigabytes for one byte


class Unpacked:
    """A temporary folder of slices, removed with ``remove`` or when nothing refers to this any more.

    Attributes:
        folders: the files of each folder in the zip, in the order of their names there.
    """

    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="monai_ext-"))
        self.remove = weakref.finalize(self, shutil.rmtree, self._root, ignore_errors=True)
        self.folders: list[list[Path]] = []

    def add(self, archive: zipfile.ZipFile, members: list[zipfile.ZipInfo]) -> None:
        """Write the members of one folder; names in a zip may identify a patient, so they are numbered."""
        folder = self._root / f"{len(self.folders):05d}"
        folder.mkdir()
        files = []
        for number, member in enumerate(members):
            path = folder / f"{number:06d}"
            with archive.open(member) as packed, path.open("wb") as handle:
                shutil.copyfileobj(packed, handle, 1 << 20)
            files.append(path)
        self.folders.append(files)


def is_zip(path: Path) -> bool:
    """Return whether a path is a zip by its name."""
    return path.name.lower().endswith(".zip") and os.path.isfile(path)


def may_hold_scans(path: Path) -> bool:
    """Return whether a zip, which may be of anything, holds DICOM, or other zips, which are not looked into.

    So does what cannot be opened, for it must not vanish; an encrypted file counts by its name.
    """
    try:
        with _opened(path, path.stem) as archive:
            if any(map(_is_zip, archive.infolist())):
                return True
            members = (member for members in _folders(archive).values() for member in members)
            return any(_is_dicom(archive, member) for member in islice(members, MAX_FILES))
    except (ScanError, OSError):
        return True


def unpack(path: Path, case: str) -> Unpacked:
    """Write the DICOM folders of a zip to a temporary folder; other content stays packed.

    Args:
        path: the zip.
        case: the id for messages.

    Raises:
        ScanError: damaged, encrypted, too large, with links or paths that leave it, or without DICOM.
    """
    with _opened(path, case) as archive:
        _check_members(archive.infolist(), case)
        folders = [
            members
            for _, members in sorted(_folders(archive).items())
            if any(_is_dicom(archive, member) for member in members)
        ]
        if not folders:
            if any(map(_is_zip, archive.infolist())):
                refuse(case, "the zip holds no DICOM files but other zips", "unpack it first", "zip.nested")
            what, way_out = "the zip holds no DICOM files", "give the folder or zip of a DICOM series"
            refuse(case, what, f"{way_out}, and unpack scans of other formats", "scan.empty")
        _check_size([member for members in folders for member in members], case)
        unpacked = Unpacked()
        try:
            for members in folders:
                unpacked.add(archive, members)
        except BaseException:
            unpacked.remove()
            raise
    return unpacked


def _is_zip(member: zipfile.ZipInfo) -> bool:
    return member.filename.lower().endswith(".zip")


@contextmanager
def _opened(path: Path, case: str) -> Iterator[zipfile.ZipFile]:
    # Decompressors raise errors of many types, some of which quote names of members.
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (ScanError, OSError):
        raise
    except Exception:
        refuse_damaged(case, "it is no whole zip")


def _check_members(members: list[zipfile.ZipInfo], case: str) -> None:
    if len(members) > MAX_FILES:
        what = f"the zip holds {len(members)} files, more than the {MAX_FILES} unpacked here"
        refuse(case, what, "unpack it yourself", "zip.size")
    for member in members:
        kind = stat.S_IFMT(member.external_attr >> 16)
        parts = member.filename.replace("\\", "/").split("/")
        if ".." in parts or not parts[0] or re.match("[A-Za-z]:", member.filename):
            refuse(case, "the zip holds a path that leads out of it", "have it packed again", "zip.path")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            refuse(case, "the zip holds a link or a device", "have it packed again, without links", "zip.link")
        if member.flag_bits & 0x41:  # the usual encryption, and the strong one
            refuse(case, "the zip is encrypted", "decrypt it first", "zip.encrypted")
        if member.compress_type not in _KNOWN:
            refuse(case, "the zip is compressed in a way not read here", "pack it again with deflate", "zip.method")


def _check_size(members: list[zipfile.ZipInfo], case: str) -> None:
    size, packed = sum(member.file_size for member in members), sum(member.compress_size for member in members)
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if size > MAX_BYTES:
        what = f"the zip holds {size / 2**30:.1f} GiB of slices, more than the {MAX_BYTES / 2**30:g} GiB unpacked here"
        refuse(case, what, "unpack it yourself", "zip.size")
    if size > RATIO_FROM_BYTES and size > MAX_RATIO * packed:
        what = f"the zip would grow {size / max(packed, 1):.0f} times in unpacking, as no scan does"
        refuse(case, what, "have it packed again", "zip.bomb")
    if size > free:
        what = f"the zip needs {size / 2**30:.1f} GiB, but {free / 2**30:.1f} GiB are free for temporary files"
        refuse(case, what, "free space or set TMPDIR to another disk", "zip.space")


def _folders(archive: zipfile.ZipFile) -> dict[PurePosixPath, list[zipfile.ZipInfo]]:
    """Return what may be slices, by folder: the same files as in a folder on disk."""
    folders = defaultdict(list)
    for member in sorted(archive.infolist(), key=lambda member: member.filename):
        path = PurePosixPath(member.filename.replace("\\", "/"))
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
        if not member.is_dir() and not hidden and is_slice_name(path.name):
            folders[path.parent].append(member)
    return folders


def _is_dicom(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    if member.filename.lower().endswith(".dcm"):
        return True
    if member.flag_bits & 0x41 or member.compress_type not in _KNOWN:
        return False
    with archive.open(member) as packed:
        return starts_as_dicom(packed.read(_HEAD))
