"""Fingerprints: what tells one scan or picture from all others, small enough to keep for ten thousand."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monai_ext.base import InputError, inside, replacing
from monai_ext.curation.problems import Problem, problem_of
from monai_ext.curation.scan_files import unforeseen
from monai_ext.curation.signatures import signature
from monai_ext.curation.thumbnails import CELLS, Thumbnail, picture_thumbnail, volume_thumbnail
from monai_ext.curation.turns import voxel_digest
from monai_ext.volumes import PICTURE_ENDINGS, read_scan, source_checksum
from monai_ext.volumes.prepare_grid import to_ras
from monai_ext.volumes.read_picture import picture_pixels
from monai_ext.volumes.refusals import refusing_closed_files

VERSION = 1  # of everything that a fingerprint depends on; raised, old ones are made anew


@dataclass(frozen=True)
class Fingerprint:
    """One scan or picture, as far as comparing needs it.

    Attributes:
        voxels: SHA-256 of the values as whole numbers, the same however the array is turned.
        thumbnail: its coarse look; 32 KB of a volume.
    """

    voxels: str
    thumbnail: Thumbnail


@dataclass(frozen=True)
class FingerprintJob:
    """One scan or picture to take the fingerprint of.

    Attributes:
        number: its place in the list of all.
        case: the id for messages.
        root: the folder that its path starts from.
        image: its path, relative.
        folder: where fingerprints are kept.
    """

    number: int
    case: str
    root: Path
    image: str
    folder: Path


@dataclass(frozen=True)
class FingerprintResult:
    """What was found, or why nothing was.

    Attributes:
        number: of the job.
        file: SHA-256 of the file as it lies there.
        voxels: of the `Fingerprint`.
        signature: ``(waves,)`` float32, see `monai_ext.curation.signatures`.
        axes: 3 of a volume, 2 of a picture.
        problem: what is wrong, if something is.
    """

    number: int
    file: str = ""
    voxels: str = ""
    signature: np.ndarray | None = None
    axes: int = 0
    problem: Problem | None = None


def take_fingerprint(job: FingerprintJob) -> FingerprintResult:
    """Take a fingerprint, or find it where the same file had one taken; what is wrong is a problem, not an error."""
    try:
        path = inside(job.root, job.image)
        with refusing_closed_files(job.case):
            file = source_checksum(path, job.case)
        axes = 2 if job.image.lower().endswith(PICTURE_ENDINGS) else 3
        place = fingerprint_path(job.folder, file, axes)
        found = load_fingerprint(place, axes)
        if found is None:
            found = _taken(path, job.case, axes)
            save_fingerprint(place, found)
        return FingerprintResult(job.number, file, found.voxels, signature(found.thumbnail.cells), axes)
    except InputError as error:
        return FingerprintResult(job.number, problem=problem_of(error, job.case))
    except Exception as error:
        # The message of an unforeseen error may show a path or a DICOM tag; its type does not.
        return FingerprintResult(job.number, problem=unforeseen(error, job.case))


def died(job: FingerprintJob) -> FingerprintResult:
    """Return what stands for a job whose process died twice."""
    sentence = f"{job.case}: its worker process died, most likely for lack of memory; use fewer jobs, or leave it out"
    return FingerprintResult(job.number, problem=Problem("leakage.worker_died", job.case, sentence))


def fingerprint_path(folder: Path, file: str, axes: int) -> Path:
    """Return where the fingerprint of a file of that checksum is kept; no name of the file is in it."""
    return folder / f"v{VERSION}-{axes}d" / file[:2] / f"{file}.npz"


def save_fingerprint(path: Path, fingerprint: Fingerprint) -> None:
    """Write a fingerprint.

    Raises:
        WriteError: it could not be written.
    """
    with replacing(path) as temporary:
        np.savez(
            temporary,
            voxels=np.frombuffer(bytes.fromhex(fingerprint.voxels), np.uint8),
            cells=fingerprint.thumbnail.cells,
            reach=fingerprint.thumbnail.reach,
        )


def load_fingerprint(path: Path, axes: int) -> Fingerprint | None:
    """Read a fingerprint; ``None`` where there is none, or none that can be used: it is then taken anew."""
    try:
        # Opened here, for np.load leaves a damaged file open.
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as content:
            voxels, cells, reach = (content[name] for name in ("voxels", "cells", "reach"))
    except Exception:  # numpy and zipfile raise many types for a damaged file
        return None
    sound = voxels.shape == (32,) and cells.shape == (CELLS[axes],) * axes and reach.shape == (axes, 2)
    if not sound or (voxels.dtype, cells.dtype, reach.dtype) != (np.uint8, np.uint8, np.float32):
        return None
    return Fingerprint(voxels.tobytes().hex(), Thumbnail(cells, reach)) if np.isfinite(reach).all() else None


def _taken(path: Path, case: str, axes: int) -> Fingerprint:
    if axes == 2:
        pixels = picture_pixels(path, case)
        return Fingerprint(voxel_digest(pixels, axes=2), picture_thumbnail(pixels))
    # Comparing needs no HU: neither the checksum nor the thumbnail asks what the values mean.
    scan = read_scan(path, assume_hu=True, case=case)
    # As the affine has it, for most are right: then scans of one region lie alike.
    voxels, _ = to_ras(scan.voxels, scan.affine)
    return Fingerprint(voxel_digest(voxels), volume_thumbnail(voxels))
