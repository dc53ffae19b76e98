"""Adding volumes to a store: whole or not at all, and side by side with other writers."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from monai_ext.base import StoreError, WriteError, replacing
from monai_ext.base.writing import flush
from monai_ext.volumes.body import Body
from monai_ext.volumes.source_places import told_place
from monai_ext.volumes.store_chunks import ChunkReader, describe_chunks, write_chunks
from monai_ext.volumes.store_lock import locked
from monai_ext.volumes.store_record import ChunkedData, LabelSource, Origin, StoreRecord, Triple, pack_voxels
from monai_ext.volumes.store_sidecar import data_path, read_record, record_text, sidecar_path


@dataclass(frozen=True, eq=False)
class NewVolume:
    """A prepared volume that is to be stored; the fields are those of :class:`StoreRecord`.

    Attributes:
        hu: ``(x, y, z)`` int16.
        label: ``(x, y, z)`` uint8 or uint16 on the same grid, or ``None``.
    """

    id: str
    hu: np.ndarray
    affine: np.ndarray
    spacing_mm: tuple[float, float, float]
    source: str
    source_root: str
    source_sha256: str
    source_shape: Triple
    source_affine: np.ndarray
    settings: Mapping[str, Any]
    body: Body
    label: np.ndarray | None = None
    label_source: LabelSource | None = None
    origin: Origin | None = None
    relaxed: tuple[str, ...] = ()


def write_volume(folder: Path, volume: NewVolume) -> StoreRecord:
    """Lock a volume's id and do as :func:`put_volume`."""
    with locked(folder, volume.id):
        return put_volume(folder, volume)


def put_volume(folder: Path, volume: NewVolume) -> StoreRecord:
    """Store a volume, in place of an older one of the same id, whose lock the caller holds.

    The new volume is whole on the disk, beside the old one, before that goes. Then the sidecar goes first and comes
    back last, so that data and sidecar of different runs are never taken for one another, whenever the process is
    killed.

    Raises:
        WriteError: the disk is full or the folder is read-only; an older volume stays as it was.
        StoreError: the id holds another scan, which a second run stored meanwhile.
    """
    _check_owner(folder, volume)
    with ExitStack() as taking_place:

        def beside(path: Path) -> Path:
            return taking_place.enter_context(replacing(path))

        # The first to be begun takes its place last.
        sidecar = beside(sidecar_path(folder, volume.id))
        image = _write_data(beside(data_path(folder, volume.id, "image")), volume.id, volume.hu)
        label = None
        if volume.label is not None:
            label = _write_data(beside(data_path(folder, volume.id, "label")), volume.id, volume.label)
        record = _record(volume, image, label)
        sidecar.write_text(record_text(record), encoding="utf-8")
        flush(sidecar)
        sidecar_path(folder, volume.id).unlink(missing_ok=True)
        if label is None:
            data_path(folder, volume.id, "label").unlink(missing_ok=True)
    return record


def put_origin(folder: Path, record: StoreRecord, origin: Origin) -> StoreRecord:
    """Write anew what the manifest says of a stored volume, whose lock the caller holds; no voxel is touched.

    Raises:
        WriteError: the disk is full or the folder is read-only; the volume then stays as it was.
    """
    record = replace(record, origin=origin)
    with replacing(sidecar_path(folder, record.id)) as temporary:
        temporary.write_text(record_text(record), encoding="utf-8")
    return record


def _check_owner(folder: Path, volume: NewVolume) -> None:
    try:
        there = read_record(sidecar_path(folder, volume.id))
    except StoreError:
        return  # nothing there, or nothing whole
    # A sidecar of an earlier version holds its path in the clear.
    same = volume.source in (there.source, told_place(there.source))
    if there.source_root != volume.source_root or not same:
        raise StoreError(
            f"{volume.id}: another run has stored another scan of that name meanwhile; run again, and it gets "
            "a name of its own",
            code="store.id_taken",
            case=volume.id,
        )


def _record(volume: NewVolume, image: ChunkedData, label: ChunkedData | None) -> StoreRecord:
    shape = _triple(volume.hu.shape)
    return StoreRecord(
        id=volume.id,
        shape=shape,
        affine=volume.affine,
        spacing_mm=volume.spacing_mm,
        source=volume.source,
        source_root=volume.source_root,
        source_sha256=volume.source_sha256,
        source_shape=volume.source_shape,
        source_affine=volume.source_affine,
        settings=volume.settings,
        body_box=volume.body.box,
        packed_body=pack_voxels(volume.body.voxels, shape),
        image=image,
        label=label,
        label_source=volume.label_source,
        origin=volume.origin,
        relaxed=volume.relaxed,
    )


def _write_data(path: Path, volume_id: str, voxels: np.ndarray) -> ChunkedData:
    """Write voxels, see that they are on the disk and are read back as they were, and describe the file."""
    write_chunks(path, voxels)
    flush(path)
    shape = _triple(voxels.shape)
    try:
        data = describe_chunks(path)
        same = np.array_equal(ChunkReader(path, data, shape, volume_id).read((0, 0, 0), shape), voxels)
    except (StoreError, RuntimeError):
        same = False
    if not same:
        raise WriteError(
            f"{volume_id}: read back other voxels than were written; check the disk, then run again",
            code="write.differs",
            case=volume_id,
        )
    return data


def _triple(values: tuple[int, ...]) -> Triple:
    x, y, z = values
    return x, y, z
