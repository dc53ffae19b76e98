"""The fields of a sidecar: arrays packed as base64 of little-endian integers, everything else readable by eye."""

from dataclasses import asdict
from math import ceil, isfinite, prod
from typing import Any

import numpy as np

from monai_ext.volumes.store_record import ChunkedData, LabelSource, Origin, StoreRecord, Triple, chunk_grid

DTYPES = ("int16", "uint8", "uint16")


def to_json(record: StoreRecord) -> dict[str, Any]:
    """Return a record as JSON holds it."""
    label = record.label_source
    return {
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
        **({"relaxed": list(record.relaxed)} if record.relaxed else {}),
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
        **({} if data.frame_crc32 is None else {"frame_crc32": data.frame_crc32}),
    }


def from_json(content: dict[str, Any]) -> StoreRecord:
    """Undo :func:`to_json`.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: a field is missing or holds what it cannot.
    """
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
        relaxed=tuple(map(str, content.get("relaxed", ()))),
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
        frame_crc32=content.get("frame_crc32"),
    )
    # Base64 takes four letters for three bytes; decoding waits until the volume is read.
    packed = 4 * ceil(4 * prod(chunk_grid(shape, data.chunk)) / 3)
    if not isinstance(data.frame_crc32, int | None):
        raise TypeError("a checksum that is no number")
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
