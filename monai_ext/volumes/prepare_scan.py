"""Preparing one scan, unless the store has it or another run is at it; nothing it does raises."""

from dataclasses import replace

from monai_ext.base import InputError, ManifestError, StoreError
from monai_ext.volumes.checksums import source_checksum
from monai_ext.volumes.prepare_job import Job, Outcome
from monai_ext.volumes.prepare_volume import read_volume
from monai_ext.volumes.source_places import is_place
from monai_ext.volumes.store_chunks import verify_files
from monai_ext.volumes.store_lock import locked
from monai_ext.volumes.store_record import Origin, StoreRecord
from monai_ext.volumes.store_sidecar import read_record, sidecar_path
from monai_ext.volumes.store_write import put_origin, put_volume


def prepare_scan(job: Job) -> Outcome:
    """Prepare one scan unless the store has it already; a scan that cannot be prepared does not raise."""
    case = job.source.case
    try:
        if job.source.problem:
            return Outcome(job.id, "failed", job.source.problem, job.source.problem_code)
        # Locked from the first look on: a second run at the same scan would do all the work for nothing.
        with locked(job.store, job.id, wait=job.wait) as free:
            return Outcome(job.id, "busy") if free is False else _prepare(job)
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


def _prepare(job: Job) -> Outcome:
    image_sha256, label_sha256 = _checksums(job)
    for volume_id in (job.id, *job.moved):
        record = _stored(job, volume_id, image_sha256, label_sha256)
        if record is None:
            continue
        if job.source.origin in (None, record.origin):  # a plain list knows of no origin, and takes none away
            return Outcome(volume_id, "skipped")
        put_origin(job.store, record, job.source.origin)
        return Outcome(volume_id, "done")
    volume = read_volume(job, image_sha256, label_sha256)
    if volume.origin is None:
        volume = replace(volume, origin=_known_origin(job, image_sha256))
    put_volume(job.store, volume)
    return Outcome(job.id, "done", relaxed=volume.relaxed)


def _known_origin(job: Job, image_sha256: str) -> Origin | None:
    """Return what a manifest said of this very scan, which other settings, labels or lost data do not change."""
    try:
        record = read_record(sidecar_path(job.store, job.id))
    except StoreError:
        return None
    same = (record.source_root, record.source_sha256) == (job.root_mark, image_sha256)
    return record.origin if same and is_place(record.source, job.source.relative) else None


def _checksums(job: Job) -> tuple[str, str | None]:
    """Return the checksums of the scan and of its labels.

    Raises:
        ManifestError: one is not what the manifest declares.
    """
    source = job.source
    found = [source_checksum(source.image, source.case)]
    if source.label is not None:
        found.append(source_checksum(source.label, f"labels of {source.case}"))
    for name, value, declared in zip(
        (source.case, f"labels of {source.case}"), found, (source.sha256, source.label_sha256), strict=False
    ):
        if declared is not None and value != declared:
            raise ManifestError(
                f"{name}: the SHA-256 is {value[:12]}..., while the manifest declares {declared[:12]}...; "
                "get the file again, or build the manifest anew if it was changed on purpose",
                code="manifest.checksum",
                case=source.case,
            )
    return found[0], found[1] if len(found) > 1 else None


def _stored(job: Job, volume_id: str, image_sha256: str, label_sha256: str | None) -> StoreRecord | None:
    """Return the record of a volume that holds this scan by these settings and is whole, else nothing."""
    try:
        record = read_record(sidecar_path(job.store, volume_id))
        label = record.label_source
        if (
            not is_place(record.source, job.source.relative)
            or record.source_sha256 != image_sha256
            or (label and label.sha256) != label_sha256
            or (label and dict(label.names)) != (label_sha256 and dict(job.label_names))
            or dict(record.settings) != job.settings
        ):
            return None
        verify_files(job.store, record)
    except StoreError:
        return None
    return record
