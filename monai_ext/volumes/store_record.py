"""The sidecar of one stored volume: what it holds, where it came from, and the checksums of its files.

The sidecar is written last, so a volume without one does not exist. Arrays are packed as base64 of
little-endian integers; everything else is plain JSON, readable by eye.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np

from monai_ext.base import StoreError

FORMAT = "monai-ext volume store"
VERSION = 1

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class ChunkedData:
    """What a sidecar says about one data file.

    Attributes:
        dtype: ``"int16"`` for HU, ``"uint8"`` or ``"uint16"`` for labels.
        chunk: voxels of one chunk along x, y, z.
        size: bytes of the file.
        sha256: of the whole file.
        packed_sums: CRC-32 of every compressed chunk.
    """

    dtype: str
    chunk: Triple
    size: int
    sha256: str
    packed_sums: str

    @cached_property
    def sums(self) -> np.ndarray:
        """``(chunks,)`` uint32, the chunk along z varying fastest."""
        return np.frombuffer(base64.b64decode(self.packed_sums), "<u4")


@dataclass(frozen=True)
class LabelSource:
    """Where a label volume came from and what its ids mean.

    Attributes:
        source: path relative to the root.
        sha256: of the label's source.
        ids: the ids that occur, 0 included.
        names: names of ids, as far as they are known.
    """

    source: str
    sha256: str
    ids: tuple[int, ...]
    names: Mapping[int, str]


@dataclass(frozen=True, eq=False)
class StoreRecord:
    """One volume of a store.

    Attributes:
        id: the volume's name in the store.
        shape: voxels along x, y, z.
        affine: ``(4, 4)``, stored voxel to mm in RAS+.
        spacing_mm: voxel edges.
        source: path of the scan relative to its root folder, with ``/``.
        source_root: eight hexadecimal digits that tell root folders apart without naming them.
        source_sha256: of the file, or over the sorted checksums of a DICOM folder's files.
        source_shape: voxels of the scan as it was read.
        source_affine: ``(4, 4)``, its voxel to mm in RAS+.
        settings: how it was prepared.
        body_box: the patient's first voxel and one past the last, per axis.
        packed_body: body voxels; read :attr:`body_voxels`.
        image: the HU file.
        label: the label file, if there is one.
        label_source: its origin.
    """

    id: str
    shape: Triple
    affine: np.ndarray
    spacing_mm: tuple[float, float, float]
    source: str
    source_root: str
    source_sha256: str
    source_shape: Triple
    source_affine: np.ndarray
    settings: Mapping[str, Any]
    body_box: tuple[Triple, Triple]
    packed_body: str
    image: ChunkedData
    label: ChunkedData | None = None
    label_source: LabelSource | None = None

    @cached_property
    def body_voxels(self) -> np.ndarray:
        """``(k, 3)`` int64 indices of body voxels, spread evenly over the body."""
        return unpack_voxels(self.packed_body, self.shape)


def sidecar_path(folder: Path, volume_id: str) -> Path:
    """Return where the sidecar of a volume lies."""
    return folder / f"{volume_id}.json"


def data_path(folder: Path, volume_id: str, kind: str) -> Path:
    """Return where the data of a volume lie; ``kind`` is ``"image"`` or ``"label"``."""
    return folder / (f"{volume_id}.b2nd" if kind == "image" else f"{volume_id}.label.b2nd")


def read_record(path: Path) -> StoreRecord:
    """Read one sidecar.

    Raises:
        StoreError: absent, torn or altered, no sidecar of ours, or from a newer version.
    """
    name = path.name.removesuffix(".json")
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise StoreError(
            f"{name}: the store has no such volume; list its .ids or prepare the scan",
            code="store.missing",
            case=name,
        ) from None
    except (ValueError, RecursionError):
        raise _torn(name) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise StoreError(
            f"{path.name}: not a sidecar of a volume store; move it out, or choose another folder for the store",
            code="store.foreign",
            case=name,
        )
    if content.get("version") != VERSION:
        raise StoreError(
            f"{name}: store format {content.get('version')!r}, while this monai-ext reads {VERSION}; "
            "upgrade monai-ext, or prepare into another folder",
            code="store.version",
            case=name,
        )
    try:
        if content.pop("checksum") != _checksum(content) or content["id"] != name:
            raise _torn(name)
        return _from_json(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, StoreError):
            raise
        raise _torn(name) from error


def record_text(record: StoreRecord) -> str:
    """Return the sidecar's text; the same record always gives the same text."""
    content = _to_json(record)
    return json.dumps({**content, "checksum": _checksum(content)}, indent=1) + "\n"


def pack_voxels(voxels: np.ndarray, shape: Triple) -> str:
    """Pack ``(k, 3)`` indices, sorted in C order, into a short text."""
    flat = np.ravel_multi_index(tuple(voxels.T), shape).astype("<i8")
    steps = np.diff(flat, prepend=np.zeros(1, "<i8"))  # small numbers, so that they compress
    return base64.b64encode(zlib.compress(steps.astype("<u4").tobytes(), 6)).decode()


def unpack_voxels(packed: str, shape: Triple) -> np.ndarray:
    """Undo :func:`pack_voxels`."""
    steps = np.frombuffer(zlib.decompress(base64.b64decode(packed)), "<u4")
    return np.stack(np.unravel_index(np.cumsum(steps, dtype=np.int64), shape), axis=1)


def chunk_grid(shape: Triple, chunk: Triple) -> Triple:
    """Return how many chunks lie along x, y, z."""
    x, y, z = (ceil(size / edge) for size, edge in zip(shape, chunk, strict=True))
    return x, y, z


def _torn(name: str) -> StoreError:
    return StoreError(
        f"{name}: its sidecar is torn or was altered; prepare the scan again, or delete {name}.json",
        code="store.torn",
        case=name,
    )


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _to_json(record: StoreRecord) -> dict[str, Any]:
    label = record.label_source
    return {
        "format": FORMAT,
        "version": VERSION,
        "id": record.id,
        "shape": list(record.shape),
        "spacing_mm": list(record.spacing_mm),
        "affine": record.affine.tolist(),
        "source": record.source,
        "source_root": record.source_root,
        "source_sha256": record.source_sha256,
        "source_shape": list(record.source_shape),
        "source_affine": record.source_affine.tolist(),
        "settings": dict(record.settings),
        "body_box": [list(corner) for corner in record.body_box],
        "body_voxels": record.packed_body,
        "image": _data_to_json(record.image),
        "label": record.label and _data_to_json(record.label),
        "label_source": label
        and {
            "source": label.source,
            "sha256": label.sha256,
            "ids": list(label.ids),
            "names": {str(number): name for number, name in sorted(label.names.items())},
        },
    }


def _data_to_json(data: ChunkedData) -> dict[str, Any]:
    return {
        "dtype": data.dtype,
        "chunk": list(data.chunk),
        "bytes": data.size,
        "sha256": data.sha256,
        "chunk_crc32": data.packed_sums,
    }


def _from_json(content: dict[str, Any]) -> StoreRecord:
    shape = _triple(content["shape"])
    label, label_source = content["label"], content["label_source"]
    x_mm, y_mm, z_mm = map(float, content["spacing_mm"])
    first, end = content["body_box"]
    return StoreRecord(
        id=content["id"],
        shape=shape,
        affine=_affine(content["affine"]),
        spacing_mm=(x_mm, y_mm, z_mm),
        source=content["source"],
        source_root=content["source_root"],
        source_sha256=content["source_sha256"],
        source_shape=_triple(content["source_shape"]),
        source_affine=_affine(content["source_affine"]),
        settings=dict(content["settings"]),
        body_box=(_triple(first, least=0), _triple(end)),
        packed_body=content["body_voxels"],
        image=_data_from_json(content["image"], shape),
        label=None if label is None else _data_from_json(label, shape),
        label_source=None
        if label_source is None
        else LabelSource(
            label_source["source"],
            label_source["sha256"],
            tuple(map(int, label_source["ids"])),
            {int(number): name for number, name in label_source["names"].items()},
        ),
    )


def _data_from_json(content: dict[str, Any], shape: Triple) -> ChunkedData:
    data = ChunkedData(
        content["dtype"],
        _triple(content["chunk"]),
        int(content["bytes"]),
        content["sha256"],
        content["chunk_crc32"],
    )
    if data.dtype not in ("int16", "uint8", "uint16") or len(data.packed_sums) != 4 * ceil(
        4 * prod(chunk_grid(shape, data.chunk)) / 3
    ):
        raise ValueError("data that do not fit the shape")
    return data


def _affine(rows: list[list[float]]) -> np.ndarray:
    affine = np.array(rows, dtype=np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise ValueError("not an affine")
    return affine


def _triple(values: list[int], least: int = 1) -> Triple:
    x, y, z = map(int, values)
    if min(x, y, z) < least:
        raise ValueError("not three sizes")
    return x, y, z
