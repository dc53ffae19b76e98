"""From raw scans to a volume store: a folder, a MONAI datalist or one scan."""

import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from monai_ext.base import ScanError, SettingError, StoreError, WriteError
from monai_ext.volumes.checks import SPACING_MM
from monai_ext.volumes.prepare_ids import assign_ids, called_apart, root_mark
from monai_ext.volumes.prepare_pool import run_jobs
from monai_ext.volumes.prepare_scan import Job, Outcome, prepare_scan
from monai_ext.volumes.prepare_source import Found
from monai_ext.volumes.prepare_sources import but_labels, find_sources, listed
from monai_ext.volumes.store_record import StoreRecord
from monai_ext.volumes.store_sidecar import read_record
from monai_ext.volumes.store_write import remove_leftovers


@dataclass(frozen=True)
class PrepareSummary:
    """What became of the scans.

    Attributes:
        done: ids prepared in this run, sorted.
        skipped: ids that the store held already, whole and by the same settings.
        failed: for each scan that could not be prepared its id, a sentence why, and the code of the error.
        left_out: relative paths that look like labels, which only a datalist can pair with their scans.
    """

    done: list[str]
    skipped: list[str]
    failed: list[Outcome]
    left_out: list[str]

    @property
    def exit_code(self) -> int:
        """1 if a scan failed, else 0."""
        return 1 if self.failed else 0

    def table(self) -> Table:
        """Return the summary for a terminal."""
        table = Table("outcome", "scans", Column("what and why", overflow="fold"))  # a long name is shown whole
        table.add_row("done", str(len(self.done)), escape(listed(self.done)))
        table.add_row("skipped", str(len(self.skipped)), "in the store already" if self.skipped else "")
        if self.left_out:
            why = f"{listed(self.left_out)}: named like labels; pair them with their scans in a datalist"
            table.add_row("left out", str(len(self.left_out)), escape(why))
        table.add_row("failed", str(len(self.failed)), "")
        for outcome in self.failed:
            table.add_row("", "", escape(outcome.reason), style="red")
        return table


def prepare(
    source: str | os.PathLike[str],
    store: str | os.PathLike[str],
    *,
    spacing_mm: Sequence[float] = (1.5, 1.5, 1.5),
    assume_hu: bool = False,
    workers: int | None = None,
    root: str | os.PathLike[str] | None = None,
    sections: Sequence[str] | None = None,
    label_names: Mapping[int, str] | None = None,
    progress: bool = False,
) -> PrepareSummary:
    """Read scans, bring them to RAS and one spacing, and store them as int16 HU in small chunks.

    Scans that the store holds already, unchanged and by the same settings, are skipped; their source and
    their stored files are compared by SHA-256, not by date. A scan that cannot be prepared is reported and
    the others go on. The run may be killed at any time and started again, and two may fill one store.

    Labels are prepared from datalists, which name them. In plain folders, files named like labels
    (``..._seg``, ``..._label``, ``..._mask``, or in a folder such as ``labelsTr``) are left out and listed.

    Args:
        source: a folder (searched with all folders below for NIfTI, NRRD, MetaImage files and folders and
            zips of DICOM series, each series a scan), a MONAI datalist (``.json``), or one scan.
        store: the store's folder; made when absent, added to when not.
        spacing_mm: voxel edges along x, y, z.
        assume_hu: take values for HU although modality, rescale or range do not say so.
        workers: processes; as many as cores by default, 0 to work in this process.
        root: the folder that sources are named from: ``source`` itself, or the folder of a datalist or scan.
            Links that lead out of it are refused.
        sections: lists of a datalist to take, such as ``["training"]``; all by default.
        label_names: names of label ids; other ids are then refused. The datalist's ``labels`` by default.
        progress: show a progress bar on stderr.

    Raises:
        ScanError: ``source`` does not exist or holds no scan.
        ManifestError: the datalist is malformed or names paths outside its root.
        SettingError: the spacing or the number of workers is out of range.
        StoreError: ``store`` is no folder, or holds foreign files or those of a newer version.
        WriteError: the store's folder cannot be made.
    """
    spacing, workers = _spacing(spacing_mm), _workers(workers)
    folder = Path(store).absolute()
    found = find_sources(Path(source), None if root is None else Path(root), sections, folder)
    if not found.sources:
        raise ScanError(
            f"{Path(source).absolute().name}: no scan found{but_labels(found.left_out)}; give a folder with "
            "NIfTI, NRRD or MetaImage files or DICOM series, or a MONAI datalist",
            code="prepare.nothing_found",
        )
    stored = _open_for_writing(folder)
    names = dict(found.label_names if label_names is None else label_names)
    ids = assign_ids(found.sources, found.root, stored)
    sources = called_apart(found.sources, [volume_id for volume_id, _ in ids])
    jobs = [
        Job(item, volume_id, moved, folder, root_mark(found.root), spacing, assume_hu, names)
        for item, (volume_id, moved) in zip(sources, ids, strict=True)
    ]
    outcomes = list(_shown(run_jobs(prepare_scan, jobs, workers, _died), len(jobs), progress))
    return _summary(outcomes, found)


def _shown(outcomes: Iterable[Outcome], total: int, progress: bool) -> Iterator[Outcome]:
    bar = Progress(
        TextColumn("preparing"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]} failed"),
        console=Console(stderr=True),
        disable=not progress,
    )
    with bar:
        task, failed = bar.add_task("", total=total, failed=0), 0
        for outcome in outcomes:
            failed += outcome.state == "failed"
            bar.update(task, advance=1, failed=failed)
            yield outcome


def _summary(outcomes: Sequence[Outcome], found: Found) -> PrepareSummary:
    return PrepareSummary(
        done=sorted(outcome.id for outcome in outcomes if outcome.state == "done"),
        skipped=sorted(outcome.id for outcome in outcomes if outcome.state == "skipped"),
        failed=sorted((item for item in outcomes if item.state == "failed"), key=lambda item: item.id),
        left_out=found.left_out,
    )


def _died(job: Job) -> Outcome:
    reason = (
        f"{job.source.case}: its worker process died, most likely for lack of memory; "
        "prepare it with fewer workers, or leave it out"
    )
    return Outcome(job.id, "failed", reason, "prepare.worker_died")


def _open_for_writing(folder: Path) -> dict[str, StoreRecord]:
    """Make the folder if need be, clear what killed runs left, and return its whole records."""
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
    records = {}
    for path in folder.glob("[!.]*.json"):
        try:
            record = read_record(path)
        except StoreError as error:
            if error.code != "store.torn":  # torn ones are prepared again, but nobody else's file is touched
                raise
        else:
            records[record.id] = record
    return records


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


def _workers(workers: int | None) -> int:
    if workers is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers < 0:
        raise SettingError(
            f"workers: {workers} is negative; give a number of processes, or 0 for none",
            code="setting.workers",
        )
    return workers
