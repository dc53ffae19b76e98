"""How the readers refuse a scan: the case, what is wrong with it, and the way out, in one sentence."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from monai_ext.base import GeometryError, ScanError


def refuse(case: str, what: str, way_out: str, code: str) -> NoReturn:
    """Raise a ``ScanError``, without its cause: messages of the libraries below show paths and DICOM tags."""
    raise ScanError(f"{case}: {what}; {way_out}", code=code, case=case) from None


def refuse_geometry(case: str, what: str, way_out: str, code: str) -> NoReturn:
    """Raise a ``GeometryError``, without its cause for the same reason."""
    raise GeometryError(f"{case}: {what}; {way_out}", code=code, case=case) from None


def refuse_missing(case: str, path: Path, sought: str = "file or folder") -> NoReturn:
    """Raise a ``ScanError`` for what is not there, or is a pipe or a device, whose reading would not end."""
    if os.path.exists(path):
        refuse(case, "it is no regular file, but a pipe, a device or a socket", "save it as a file", "scan.not_a_file")
    refuse(case, f"there is no such {sought}", "check the path", "scan.missing")


@contextmanager
def refusing_closed_files(case: str) -> Iterator[None]:
    """Refuse a scan whose file the system does not let us read, or can not; its message would show the path.

    One that needs more memory than there is cannot be read either: a small gzip file may hold gigabytes.
    """
    try:
        yield
    except MemoryError:
        what = "it needs more memory than there is"
        refuse(case, what, "crop or resample it, or read it where there is more", "scan.memory")
    except OSError as error:
        what = f"it cannot be read ({error.strerror or 'system error'})"
        refuse(case, what, "check its permissions and the disk", "scan.unreadable")


def refuse_damaged(case: str, what: str) -> NoReturn:
    """Raise a ``ScanError`` for a file that is not whole or not of its format."""
    refuse(case, f"the file cannot be used, {what}", "copy or export it again", "scan.damaged")
