"""How large the scans of a manifest are: from the headers of their files, or from a store's sidecars."""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np

from monai_ext.base import InputError, StoreError, inside
from monai_ext.curation.problems import Problem, problem_of
from monai_ext.curation.progress import processes, shown
from monai_ext.manifests import Manifest, ManifestEntry
from monai_ext.volumes import PICTURE_ENDINGS, VolumeStore, read_header
from monai_ext.volumes.prepare_pool import run_jobs


@dataclass(frozen=True)
class ScanSize:
    """Voxels and their edges in mm, both along right-left, back-front and feet-head."""

    dataset: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]


@dataclass
class Sizes:
    """What was measured.

    Attributes:
        sizes: of the scans that were looked at.
        source: where from, in words.
        looked_at: how many scans that is, of ``total``.
        total: how many could have been looked at.
        problems: scans of which no header can be read.
    """

    sizes: list[ScanSize] = field(default_factory=list)
    source: str = ""
    looked_at: int = 0
    total: int = 0
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class _HeaderJob:
    entry: ManifestEntry
    root: Path


def sizes_from_headers(
    manifest: Manifest, root: Path, most: int, jobs: int | None = None, progress: bool = False
) -> Sizes:
    """Read headers, voxels never.

    Args:
        manifest: its pictures are passed over.
        root: the folder that its paths start from.
        most: how many headers to read; with more scans, as many of each data set as its share is, evenly spread.
        jobs: processes; as many as cores by default, 0 to work in this process.
        progress: show a progress bar on stderr.

    Raises:
        SettingError: an impossible number of jobs.
    """
    count = processes(jobs)
    scans = [entry for entry in manifest.entries if not entry.image.lower().endswith(PICTURE_ENDINGS)]
    chosen = _spread(scans, most)
    sizes = Sizes(source="headers of the files", looked_at=len(chosen), total=len(scans))
    work = [_HeaderJob(entry, root) for entry in chosen]
    results = run_jobs(_read, work, min(count, len(work)), _died)
    for result in shown(results, len(work), "reading headers", progress):
        if isinstance(result, Problem):
            sizes.problems.append(result)
        else:
            sizes.sizes.append(result)
    sizes.problems.sort()
    return sizes


def sizes_from_store(manifest: Manifest, folder: str | os.PathLike[str], most: int) -> Sizes:
    """Read what a store knows of the scans before they were resampled.

    Args:
        manifest: only volumes of its data sets count.
        folder: the store, prepared from this manifest or one of the same data sets.
        most: how many sidecars to read, evenly spread.

    Raises:
        StoreError: it is no store, or holds no volume of these data sets.
    """
    store = VolumeStore(folder)
    rows = zip(store.ids, store.index.datasets.tolist(), strict=True)
    ids = [name for name, dataset in rows if dataset in manifest.datasets]
    if not ids:
        raise StoreError(
            f"{store.folder.name}: the store holds no volume of the data sets of this manifest; give the one that "
            "was prepared from it",
            code="summary.other_store",
        )
    chosen = [ids[place] for place in _places(len(ids), most)]
    sizes = Sizes(source=f"sidecars of the store {store.folder.name}", looked_at=len(chosen), total=len(ids))
    for name in chosen:
        record = store.record(name)
        dataset = record.origin.dataset if record.origin else ""
        sizes.sizes.append(_size(dataset, record.source_shape, record.source_affine))
    return sizes


def _read(job: _HeaderJob) -> ScanSize | Problem:
    try:
        header = read_header(inside(job.root, job.entry.image), assume_hu=True, case=job.entry.id)
    except InputError as error:
        return problem_of(error, job.entry.id)
    return _size(job.entry.dataset, header.shape, header.affine)


def _died(job: _HeaderJob) -> Problem:
    case = job.entry.id
    return Problem("summary.worker_died", case, f"{case}: its worker process died; summarize with fewer jobs")


def _size(dataset: str, shape: Sequence[int], affine: np.ndarray) -> ScanSize:
    # Scans are stored along any axes; only along those of the patient can they be compared.
    order = np.argsort(nib.orientations.io_orientation(affine)[:, 0])
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    x, y, z = (int(axis) for axis in order)
    return ScanSize(
        dataset,
        (int(shape[x]), int(shape[y]), int(shape[z])),
        (float(spacing[x]), float(spacing[y]), float(spacing[z])),
    )


def _spread(entries: Sequence[ManifestEntry], most: int) -> list[ManifestEntry]:
    if len(entries) <= most:
        return list(entries)
    by_set: dict[str, list[ManifestEntry]] = defaultdict(list)
    for entry in entries:
        by_set[entry.dataset].append(entry)
    chosen = []
    for some in by_set.values():
        share = max(1, most * len(some) // len(entries))
        chosen += [some[place] for place in _places(len(some), share)]
    return chosen


def _places(count: int, most: int) -> list[int]:
    return sorted({int(place) for place in np.linspace(0, count - 1, min(count, most))}) if count else []
