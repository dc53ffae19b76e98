"""Adding volumes to a store: whole or not at all, and side by side with other writers."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from monai_ext.base import StoreError, WriteError, replacing
from monai_ext.volumes.body import Body
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

    The sidecar goes first and comes back last, so that data and sidecar of different runs are never taken
    for one another, whenever the process is killed.

    Raises:
        WriteError: the disk is full or the folder is read-only; the volume is then not in the store.
        StoreError: the id holds another scan, which a second run stored meanwhile.
    """
    _check_owner(folder, volume)
    remove_volume(folder, volume.id)
    try:
        record = _record(folder, volume)
        _write_sidecar(folder, record)
    except BaseException:
        remove_volume(folder, volume.id)
        raise
    return record


def put_origin(folder: Path, record: StoreRecord, origin: Origin) -> StoreRecord:
    """Write anew what the manifest says of a stored volume, whose lock the caller holds; no voxel is touched.

    Raises:
        WriteError: the disk is full or the folder is read-only; the volume then stays as it was.
    """
    record = replace(record, origin=origin)
    _write_sidecar(folder, record)
    return record


def _write_sidecar(folder: Path, record: StoreRecord) -> None:
    with replacing(sidecar_path(folder, record.id)) as temporary:
        temporary.write_text(record_text(record), encoding="utf-8")


def _check_owner(folder: Path, volume: NewVolume) -> None:
    try:
        there = read_record(sidecar_path(folder, volume.id))
    except StoreError:
        return  # nothing there, or nothing whole
    if (there.source_root, there.source) != (volume.source_root, volume.source):
        raise StoreError(
            f"{volume.id}: another run has stored another scan of that name meanwhile; run again, and it gets "
            "a name of its own",
            code="store.id_taken",
            case=volume.id,
        )


def _record(folder: Path, volume: NewVolume) -> StoreRecord:
    # Writes the data, for the record holds their checksums.
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
        image=_write_data(folder, volume.id, "image", volume.hu),
        label=None if volume.label is None else _write_data(folder, volume.id, "label", volume.label),
        label_source=volume.label_source,
        origin=volume.origin,
        relaxed=volume.relaxed,
    )


def remove_volume(folder: Path, volume_id: str) -> None:
    """Take a volume out of the store."""
    sidecar_path(folder, volume_id).unlink(missing_ok=True)
    for kind in ("image", "label"):
        data_path(folder, volume_id, kind).unlink(missing_ok=True)


def _write_data(folder: Path, volume_id: str, kind: str, voxels: np.ndarray) -> ChunkedData:
    described: list[ChunkedData] = []

    def verify(path: Path) -> None:
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
        described.append(data)

    with replacing(data_path(folder, volume_id, kind), verify) as temporary:
        write_chunks(temporary, voxels)
    return described[0]


def _triple(values: tuple[int, ...]) -> Triple:
    x, y, z = values
    return x, y, z
