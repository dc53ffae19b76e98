"""The volume store: a folder of prepared CT volumes that are read crop by crop."""

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from monai_ext.base import StoreError
from monai_ext.volumes.store_chunks import ChunkReader, verify_files
from monai_ext.volumes.store_index import StoreIndex
from monai_ext.volumes.store_index_file import open_index
from monai_ext.volumes.store_record import StoreRecord, Triple
from monai_ext.volumes.store_sidecar import data_path, read_marked, sidecar_path

Kind = Literal["image", "label"]

KEPT = 64  # volumes kept open, and sidecars kept in mind; either takes 0.2 ms to come by again


class VolumeStore:
    """Read volumes prepared by :func:`monai_ext.volumes.prepare`.

    A volume ``ID`` is ``ID.b2nd`` (int16 HU in RAS+, 32^3 chunks), perhaps ``ID.label.b2nd``, and the sidecar
    ``ID.json``; volumes may be added while the store is open, and are seen when it is opened again. Opening
    reads the index, which takes up the sidecars that changed; a volume's own sidecar is read when it is first
    cropped. Copies sent to other processes carry the folder only and open files for themselves.

    Args:
        folder: the store.

    Raises:
        StoreError: the folder is missing, or a sidecar is torn, foreign or from a newer version.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = check_folder(folder)
        self._reset()
        _ = self.index

    def _reset(self) -> None:
        self._records: OrderedDict[str, StoreRecord] = OrderedDict()
        self._readers: OrderedDict[tuple[str, str], ChunkReader] = OrderedDict()

    @cached_property
    def index(self) -> StoreIndex:
        """What is known of every volume without reading its sidecar, as the store was when it was opened."""
        return open_index(self.folder)

    @cached_property
    def ids(self) -> list[str]:
        """Names of the volumes, sorted."""
        names: list[str] = self.index.ids.tolist()
        return names

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __contains__(self, volume_id: object) -> bool:
        return volume_id in self.index.rows

    def record(self, volume_id: str) -> StoreRecord:
        """Return what the sidecar of a volume says.

        Raises:
            StoreError: there is no such volume, its sidecar cannot be used, or it changed since the store was opened.
        """
        if volume_id not in self._records:
            if Path(volume_id).name != volume_id:
                raise StoreError(
                    f"{Path(volume_id).name}: a volume's id is a plain name; list the store's .ids",
                    code="store.missing",
                )
            record, mark = read_marked(sidecar_path(self.folder, volume_id))
            # A copy in another process has no index, and needs none to crop.
            if "index" in self.__dict__ and mark != (self.index.mark(volume_id) or mark):
                raise StoreError(
                    f"{volume_id}: it was prepared anew since the store was opened; open the store again",
                    code="store.changed",
                    case=volume_id,
                )
            self._records[volume_id] = record
            if len(self._records) > KEPT:
                self._records.popitem(last=False)
        self._records.move_to_end(volume_id)
        return self._records[volume_id]

    def has_label(self, volume_id: str) -> bool:
        """Tell whether a volume has labels."""
        row = self.index.rows.get(volume_id)
        return self.record(volume_id).label is not None if row is None else bool(self.index.has_label[row])

    def crop(
        self,
        volume_id: str,
        start: Sequence[int],
        size: Sequence[int],
        kind: Kind = "image",
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Read a box; only the chunks that it touches are read, and each is checked.

        Args:
            volume_id: the volume.
            start: the box's first voxel along x, y, z.
            size: its voxels along x, y, z.
            kind: ``"image"`` for HU, ``"label"`` for label ids.
            out: where the voxels go, of the size and type that are returned and in one piece; new memory by default.

        Returns:
            ``size`` voxels: int16, or uint8 or uint16 for labels.

        Raises:
            StoreError: the box leaves the volume, there are no labels, ``out`` does not fit, or the data are torn or
                altered.
        """
        if kind not in ("image", "label"):
            raise StoreError(
                f"{volume_id}: kind {kind!r} is not stored; ask for 'image' or 'label'",
                code="store.kind",
                case=volume_id,
            )
        record = self.record(volume_id)
        begin, extent = _three(start, "start", volume_id), _three(size, "size", volume_id)
        for axis in range(3):
            low, high = begin[axis], begin[axis] + extent[axis]
            if low < 0 or extent[axis] < 1 or high > record.shape[axis]:
                raise StoreError(
                    f"{volume_id}: the crop [{low}, {high}) along {'xyz'[axis]} leaves the volume's "
                    f"{record.shape[axis]} voxels; stay inside, or let RandStoreCropd pad it",
                    code="store.bounds",
                    case=volume_id,
                )
        return self._reader(record, kind).read(begin, extent, out)

    def volume(self, volume_id: str, kind: Kind = "image") -> np.ndarray:
        """Read a whole volume; otherwise like :meth:`crop`."""
        return self.crop(volume_id, (0, 0, 0), self.record(volume_id).shape, kind)

    def verify(self, volume_id: str) -> None:
        """Compare every byte of a volume's files with the checksums in its sidecar.

        Raises:
            StoreError: a file is missing, torn or altered.
        """
        verify_files(self.folder, self.record(volume_id))

    def _reader(self, record: StoreRecord, kind: Kind) -> ChunkReader:
        key = (record.id, kind)
        if key not in self._readers:
            data = record.image if kind == "image" else record.label
            if data is None:
                raise StoreError(
                    f"{record.id}: the store has no labels of it; prepare it from a datalist that names them",
                    code="store.no_label",
                    case=record.id,
                )
            path = data_path(self.folder, record.id, kind)
            self._readers[key] = ChunkReader(path, data, record.shape, record.id)
            if len(self._readers) > KEPT:
                self._readers.popitem(last=False)[1].close()
        self._readers.move_to_end(key)
        return self._readers[key]

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.folder = state["folder"]
        self._reset()


def check_folder(folder: str | os.PathLike[str]) -> Path:
    """Return where a store is, absolute, for a worker may run elsewhere.

    Raises:
        StoreError: there is no such folder.
    """
    place = Path(folder).absolute()
    if not place.is_dir():
        raise StoreError(
            f"{place.name}: there is no such store; make it with: python -m monai_ext prepare SOURCE STORE",
            code="store.missing",
        )
    return place


def _three(values: Sequence[int], name: str, case: str) -> Triple:
    if len(values) != 3 or any(int(value) != value for value in values):
        raise StoreError(
            f"{case}: {name} {list(values)} is not three whole numbers; give voxels along x, y, z",
            code="store.bounds",
            case=case,
        )
    x, y, z = map(int, values)
    return x, y, z
