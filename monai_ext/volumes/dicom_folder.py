"""Which files of a folder may be DICOM, by their names and first bytes."""

import os
from collections.abc import Iterator
from pathlib import Path

from monai_ext.volumes.earlier_results import results_in

# What people and programs leave beside slices.
_BESIDE_SLICES = (
    ".txt",
    ".md",
    ".json",
    ".xml",
    ".csv",
    ".html",
    ".htm",
    ".pdf",
    ".png",
    ".jpg",
    ".ini",
    ".zip",
    ".db",
)
_HEAD = 132


def is_slice_name(name: str) -> bool:
    """Return whether a visible file of a series must be a slice: anything but notes, pictures and a DICOMDIR."""
    return name != "DICOMDIR" and not name.lower().endswith(_BESIDE_SLICES)


def starts_as_dicom(content: bytes) -> bool:
    """Return whether a file starts with the preamble of PS3.10."""
    return content[128:_HEAD] == b"DICM"


def is_dicom(path: Path) -> bool:
    """Return whether a file on disk is DICOM, by its ending or its first bytes."""
    if path.name == "DICOMDIR" or not path.is_file():  # to open a pipe would wait for its writer
        return False
    if path.name.lower().endswith(".dcm"):
        return True
    try:
        with path.open("rb") as handle:
            return starts_as_dicom(handle.read(_HEAD))
    except OSError:
        return False  # a file of somebody else's: no slice


def slices_in(folder: Path) -> list[Path]:
    """List what must be slices if the folder holds a series, sorted by name; results of ours are none."""
    results = results_in(folder)
    return sorted(
        entry
        for entry in folder.iterdir()
        if not entry.name.startswith(".")
        and not entry.is_dir()
        and is_slice_name(entry.name)
        and entry.name not in results
    )


def folders_of_dicom(top: Path) -> Iterator[Path]:
    """Walk through the visible folders below ``top``, itself among them, that hold DICOM files."""
    for name, folders, files in os.walk(top, followlinks=False):
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        if any(is_dicom(Path(name, file)) for file in sorted(files) if not file.startswith(".")):
            yield Path(name)
