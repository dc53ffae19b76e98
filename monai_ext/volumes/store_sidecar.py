"""Reading and writing sidecars: JSON that carries its own checksum.

The sidecar is written last, so a volume without one does not exist. Arrays are packed as base64 of
little-endian integers; everything else is plain, readable by eye. Keys that this version does not know are
passed over, so that a later one may add some.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from math import ceil, isfinite, prod
from pathlib import Path
from typing import Any

import numpy as np

from monai_ext.base import StoreError
from monai_ext.volumes.store_record import ChunkedData, LabelSource, Origin, StoreRecord, Triple, chunk_grid

FORMAT = "monai-ext volume store"
VERSION = 1
DTYPES = ("int16", "uint8", "uint16")


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
    except OSError as error:
        raise StoreError(
            f"{name}: its sidecar cannot be read ({error.strerror}); make {name}.json readable",
            code="store.closed",
            case=name,
        ) from None
    except (ValueError, RecursionError):
        raise _torn(name) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise StoreError(
            f"{path.name}: not a sidecar of a volume store; move it out, or choose another store folder",
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
        "origin": record.origin and asdict(record.origin),
    }


def _data_to_json(data: ChunkedData) -> dict[str, Any]:
    return {
        "dtype": data.dtype,
        "chunk": list(data.chunk),
        "bytes": data.size,
        "sha256": data.sha256,
        "first_chunk": data.start,
        "chunk_bytes": data.packed_sizes,
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
        origin=_origin(content.get("origin")),  # sidecars of before there were manifests have none
    )


def _data_from_json(content: dict[str, Any], shape: Triple) -> ChunkedData:
    data = ChunkedData(
        dtype=content["dtype"],
        chunk=_triple(content["chunk"]),
        size=int(content["bytes"]),
        sha256=content["sha256"],
        start=int(content["first_chunk"]),
        packed_sizes=content["chunk_bytes"],
        packed_sums=content["chunk_crc32"],
    )
    # Base64 takes four letters for three bytes; decoding waits until the volume is read.
    packed = 4 * ceil(4 * prod(chunk_grid(shape, data.chunk)) / 3)
    if data.dtype not in DTYPES or {len(data.packed_sizes), len(data.packed_sums)} != {packed}:
        raise ValueError("data that do not fit the shape")
    return data


def _origin(content: dict[str, Any] | None) -> Origin | None:
    if content is None:
        return None
    origin = Origin(
        content["dataset"], content["licence"], content["group"], content["split"], float(content["weight"])
    )
    words = (origin.dataset, origin.licence, origin.group, origin.split)
    if not all(isinstance(word, str) for word in words) or not isfinite(origin.weight) or origin.weight < 0:
        raise ValueError("not an origin")
    return origin


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
