"""Preparing one scan: read it, bring it to RAS and the store's spacing, find the body, store it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from monai_ext.base import InputError, LabelError, ScanError, StoreError
from monai_ext.volumes.body import BODY_HU, find_body
from monai_ext.volumes.checksums import source_checksum
from monai_ext.volumes.prepare_grid import to_ras, to_spacing
from monai_ext.volumes.prepare_source import Source
from monai_ext.volumes.read_scan import read_labels, read_scan
from monai_ext.volumes.scan import Scan
from monai_ext.volumes.store_chunks import verify_files
from monai_ext.volumes.store_record import LabelSource
from monai_ext.volumes.store_sidecar import read_record, sidecar_path
from monai_ext.volumes.store_write import NewVolume, write_volume


@dataclass(frozen=True)
class Job:
    """One scan to prepare, complete enough to be sent to another process or machine.

    Attributes:
        source: the scan.
        id: its id in the store.
        moved: ids under which the store may have it from another root folder.
        store: the store's folder.
        root_mark: tells the root folder apart from others.
        spacing_mm: voxel edges of the store.
        assume_hu: take values for HU that do not look so.
        label_names: names of the label ids that may occur; any id when empty.
    """

    source: Source
    id: str
    moved: tuple[str, ...]
    store: Path
    root_mark: str
    spacing_mm: tuple[float, float, float]
    assume_hu: bool
    label_names: Mapping[int, str]


@dataclass(frozen=True)
class Outcome:
    """What became of one scan; ``reason`` is a sentence and ``code`` a word for programs when it failed."""

    id: str
    state: Literal["done", "skipped", "failed"]
    reason: str = ""
    code: str = ""


def prepare_scan(job: Job) -> Outcome:
    """Prepare one scan unless the store has it already; a scan that cannot be prepared does not raise."""
    case = job.source.case
    try:
        if job.source.problem:
            return Outcome(job.id, "failed", job.source.problem, job.source.problem_code)
        label = job.source.label
        checksums = (
            source_checksum(job.source.image, case),
            None if label is None else source_checksum(label, f"labels of {case}"),
        )
        for volume_id in (job.id, *job.moved):
            if _is_done(job, volume_id, *checksums):
                return Outcome(volume_id, "skipped")
        write_volume(job.store, _volume(job, *checksums))
    except InputError as error:
        return Outcome(job.id, "failed", str(error), error.code)
    except MemoryError:
        reason = f"{case}: too large for the memory; prepare it with fewer workers, or crop it"
        return Outcome(job.id, "failed", reason, "prepare.memory")
    except OSError as error:
        reason = f"{case}: {error.strerror or 'system error'}; check the disk and the permissions, then run again"
        return Outcome(job.id, "failed", reason, "prepare.system")
    except Exception as error:
        # The message of an unforeseen error may show a path or a DICOM tag; its type does not.
        reason = f"{case}: {type(error).__name__} while preparing it; leave it out and please report this"
        return Outcome(job.id, "failed", reason, "prepare.unforeseen")
    return Outcome(job.id, "done")


def settings_of(job: Job) -> dict[str, Any]:
    """Return what, beside the source, decides the stored voxels; the sidecar keeps it."""
    return {
        "orientation": "RAS",
        "spacing_mm": list(job.spacing_mm),
        "interpolation": "linear",
        "body_hu": BODY_HU,
        "assume_hu": job.assume_hu,
    }


def _is_done(job: Job, volume_id: str, image_sha256: str, label_sha256: str | None) -> bool:
    try:
        record = read_record(sidecar_path(job.store, volume_id))
        label = record.label_source
        if (
            record.source != job.source.relative
            or record.source_sha256 != image_sha256
            or (label and label.sha256) != label_sha256
            or (label and dict(label.names)) != (label_sha256 and dict(job.label_names))
            or dict(record.settings) != settings_of(job)
        ):
            return False
        verify_files(job.store, record)
    except StoreError:
        return False
    return True


def _volume(job: Job, image_sha256: str, label_sha256: str | None) -> NewVolume:
    case = job.source.case
    scan = read_scan(job.source.image, assume_hu=job.assume_hu, case=case)
    label, label_source = _label(job, scan, label_sha256)
    hu, affine = _stored_grid(scan, job.spacing_mm)
    if min(hu.shape) < 2:
        raise ScanError(
            f"{case}: only {'x'.join(map(str, hu.shape))} voxels are left at the spacing of the store; "
            "leave it out, or choose a finer spacing",
            code="scan.too_small",
            case=case,
        )
    x, y, z = scan.voxels.shape
    return NewVolume(
        id=job.id,
        hu=hu,
        affine=affine,
        spacing_mm=job.spacing_mm,
        source=job.source.relative,
        source_root=job.root_mark,
        source_sha256=image_sha256,
        source_shape=(x, y, z),
        source_affine=scan.affine,
        settings=settings_of(job),
        body=find_body(hu, job.spacing_mm, case),
        label=label,
        label_source=label_source,
    )


def _stored_grid(scan: Scan, spacing_mm: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    voxels, affine = to_spacing(*to_ras(scan.voxels, scan.affine), spacing_mm)
    hu = np.empty(voxels.shape, np.int16)
    # Reading refused what int16 cannot hold, and interpolation stays between its neighbours. Plane by plane,
    # for a rounded copy would be as large as the volume.
    for plane, stored in zip(voxels, hu, strict=True):
        stored[:] = np.rint(plane)
    return hu, affine


def _label(job: Job, scan: Scan, sha256: str | None) -> tuple[np.ndarray | None, LabelSource | None]:
    if job.source.label is None or job.source.label_relative is None or sha256 is None:
        return None, None
    case = job.source.case
    labels = read_labels(job.source.label, like=scan, classes=job.label_names or None, case=case)
    # The type follows the label set where it is known, so that all volumes of a data set have the same.
    highest = max(int(labels.voxels.max()), *job.label_names, 0)
    if highest > np.iinfo(np.uint16).max:
        raise LabelError(
            f"{case}: label id {highest} is above {np.iinfo(np.uint16).max}; renumber the labels",
            code="label.range",
            case=case,
        )
    small = labels.voxels.astype(np.uint8 if highest <= np.iinfo(np.uint8).max else np.uint16)
    # On the image's affine, which the labels' own may differ from by rounding.
    voxels, _ = to_spacing(*to_ras(small, scan.affine), job.spacing_mm, nearest=True)
    ids = tuple(map(int, np.unique(voxels)))
    return voxels, LabelSource(job.source.label_relative, sha256, ids, dict(job.label_names))
