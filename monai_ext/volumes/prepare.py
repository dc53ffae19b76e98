"""From raw scans to a volume store: a folder, a manifest, a MONAI datalist or one scan."""

import errno
import os
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

from monai_ext.base import ScanError, SettingError, StoreError, WriteError, remove_leftovers
from monai_ext.volumes.checks import SPACING_MM
from monai_ext.volumes.prepare_cluster import check_scheduler
from monai_ext.volumes.prepare_ids import assign_ids, called_apart, root_mark
from monai_ext.volumes.prepare_job import Job
from monai_ext.volumes.prepare_run import run_all
from monai_ext.volumes.prepare_source import Source
from monai_ext.volumes.prepare_sources import but_labels, find_sources
from monai_ext.volumes.prepare_summary import PrepareSummary, summary_of
from monai_ext.volumes.relaxing import check_relax
from monai_ext.volumes.store_heads import has_whole_sidecar, stored_sources


def prepare(
    source: str | os.PathLike[str],
    store: str | os.PathLike[str],
    *,
    spacing_mm: Sequence[float] = (1.5, 1.5, 1.5),
    assume_hu: bool = False,
    relax: str | Collection[str] = (),
    workers: int | None = None,
    root: str | os.PathLike[str] | None = None,
    sections: Sequence[str] | None = None,
    label_names: Mapping[int, str] | None = None,
    scheduler: str | None = None,
    progress: bool = False,
) -> PrepareSummary:
    """Read scans, bring them to RAS and one spacing, and store them as int16 HU in small chunks.

    Scans that the store holds already, unchanged and by the same settings, are skipped; their source and
    their stored files are compared by SHA-256, not by date. A scan that cannot be prepared is reported and
    the others go on. The run may be killed at any time and started again, and several may fill one store.

    A manifest also says of each scan its data set, licence, patient, split and weight, which the store keeps, and
    perhaps its SHA-256, which is then compared with the file's. Where only such words change, no scan is read.

    Labels are prepared from manifests and datalists, which name them. In plain folders, files named like labels
    (``..._seg``, ``..._label``, ``..._mask``, or in a folder such as ``labelsTr``) are left out and listed.

    Args:
        source: a folder (searched with all folders below for NIfTI, NRRD, MetaImage files and folders and
            zips of DICOM series, each series a scan), a manifest or MONAI datalist (``.json``), or one scan.
        store: the store's folder; made when absent, added to when not.
        spacing_mm: voxel edges along x, y, z.
        assume_hu: take values for HU although modality, rescale or range do not say so.
        relax: rules of reading to relax, of ``RELAXABLE``; the sidecar and the summary tell of which scans which were.
        workers: processes; as many as cores by default, 0 to work in this process.
        root: the folder that sources are named from: ``source`` itself, or the folder of a list or scan.
            Links that lead out of it are refused.
        sections: lists of a manifest or datalist to take, such as ``["training"]``; all by default.
        label_names: names of label ids; other ids are then refused. By default the ``labels`` of a datalist, and
            the label names of each scan's data set in a manifest.
        scheduler: work on ``dask.distributed`` instead of a pool of processes: the address of a scheduler, such as
            ``"tcp://10.0.0.5:8786"``, whose workers see scans and store under the same paths; or ``"local"``, which
            starts one here. A script that does so needs ``if __name__ == "__main__":`` around its work.
        progress: show a progress bar on stderr.

    Raises:
        ScanError: ``source`` does not exist or holds no scan.
        ManifestError: the manifest or datalist is malformed.
        SettingError: ``relax`` names no rule; the spacing or the number of workers is out of range; or the scheduler
            is not there or was lost, or its workers have no monai-ext of this version.
        StoreError: ``store`` is no folder, or holds foreign files or those of a newer version.
        WriteError: the store's folder cannot be made.
    """
    spacing, workers, rules = _spacing(spacing_mm), _workers(workers, scheduler), check_relax(relax)
    if scheduler is not None:
        check_scheduler(scheduler)
    folder = Path(store).absolute()
    found = find_sources(Path(source), None if root is None else Path(root), sections, folder)
    if not found.sources:
        raise ScanError(
            f"{Path(source).absolute().name}: no scan found{but_labels(found.left_out)}; give a folder with "
            "NIfTI, NRRD or MetaImage files or DICOM series, a manifest or a MONAI datalist",
            code="prepare.nothing_found",
        )
    stored = _open_for_writing(folder)
    mark, ids = root_mark(found.root), assign_ids(found.sources, found.root, stored, partial(has_whole_sidecar, folder))
    sources = called_apart(found.sources, [volume_id for volume_id, _ in ids])
    del stored  # not needed while the scans are prepared

    def job(item: Source, volume_id: str, moved: tuple[str, ...]) -> Job:
        names = item.label_names if label_names is None else label_names
        names = found.label_names if names is None else names
        return Job(item, volume_id, moved, folder, mark, spacing, assume_hu, dict(names), rules)

    jobs = [job(item, *its_ids) for item, its_ids in zip(sources, ids, strict=True)]
    summary = summary_of(run_all(jobs, folder, workers, scheduler, progress), found)
    remove_leftovers(folder)  # of workers that died
    return summary


def _open_for_writing(folder: Path) -> dict[str, tuple[str, str]]:
    """Make the folder if need be, clear what killed runs left, and return the sources of its volumes."""
    if folder.exists() and not folder.is_dir():
        raise StoreError(
            f"{folder.name}: a store is a folder, and this is a file; name another", code="store.not_a_folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):  # else every scan would be read before its writing fails
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        remove_leftovers(folder)
    except OSError as error:
        raise WriteError(
            f"{folder.name}: the store cannot be written ({error.strerror}); choose a writable folder",
            code="write.failed",
        ) from error
    return stored_sources(folder)


def _spacing(spacing_mm: Sequence[float]) -> tuple[float, float, float]:
    low, high = SPACING_MM
    values = [float(value) for value in spacing_mm]
    if len(values) != 3 or not all(low <= value <= high for value in values):
        raise SettingError(
            f"spacing_mm: {values} is not three numbers from {low:g} to {high:g}; give mm along x, y, z, "
            "for example 1.5 1.5 1.5",
            code="setting.spacing",
        )
    return values[0], values[1], values[2]


def _workers(workers: int | None, scheduler: str | None) -> int | None:
    if scheduler not in (None, "local") and workers is not None:
        raise SettingError(
            "workers: a scheduler has workers of its own; leave the number out, or start more of them there",
            code="setting.workers",
        )
    lowest = 0 if scheduler is None else 1
    if workers is not None and workers < lowest:
        raise SettingError(
            f"workers: {workers} is negative; give a number of processes, or 0 for none"
            if lowest == 0
            else f"workers: {workers} can run nothing; give a local scheduler 1 or more",
            code="setting.workers",
        )
    if workers is None and scheduler in (None, "local"):
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return workers
