"""What the store knows about one volume: what it holds, where it came from, the checksums of its files."""

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Any

import numpy as np

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class ChunkedData:
    """What a sidecar says about one data file.

    Attributes:
        dtype: ``"int16"`` for HU, ``"uint8"`` or ``"uint16"`` for labels.
        chunk: voxels of one chunk along x, y, z.
        size: bytes of the file.
        sha256: of the whole file.
        start: where the first chunk begins; the others follow without a gap.
        packed_sizes: bytes of every compressed chunk, 0 for one of zeros; read :attr:`ends`.
        packed_sums: CRC-32 of every compressed chunk; read :attr:`sums`.
        frame_crc32: CRC-32 of the rest of the file; ``None`` in stores of before there was one.
    """

    dtype: str
    chunk: Triple
    size: int
    sha256: str
    start: int
    packed_sizes: str
    packed_sums: str
    frame_crc32: int | None = None

    @cached_property
    def ends(self) -> np.ndarray:
        """``(chunks + 1,)`` int64: chunk ``i`` lies from ``ends[i]`` to ``ends[i + 1]``."""
        return self.start + np.append(0, np.cumsum(unpack(self.packed_sizes), dtype=np.int64))

    @cached_property
    def sums(self) -> np.ndarray:
        """``(chunks,)`` uint32, the chunk along z varying fastest."""
        return unpack(self.packed_sums)


@dataclass(frozen=True)
class LabelSource:
    """Where a label volume came from and what its ids mean.

    Attributes:
        source: base name, behind digits for its folders.
        sha256: of the label's source.
        ids: the ids that occur, 0 included.
        names: names of ids, as far as they are known.
    """

    source: str
    sha256: str
    ids: tuple[int, ...]
    names: Mapping[int, str]


@dataclass(frozen=True)
class Origin:
    """What a manifest says of a scan, which sampling and splitting need.

    Attributes:
        dataset: the data set's key in the manifest.
        licence: SPDX identifier, or the name of its terms.
        group: the patient; scans of one group never stand on both sides of a split.
        split: the list that the scan stands in, such as ``"training"``.
        weight: how often it is drawn beside the others, 0 or more.
    """

    dataset: str
    licence: str
    group: str
    split: str
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class StoreRecord:
    """One volume of a store.

    Attributes:
        id: the volume's name in the store.
        shape: voxels along x, y, z.
        affine: ``(4, 4)``, stored voxel to mm in RAS+.
        spacing_mm: voxel edges.
        source: base name of the scan, behind digits that stand for its folders below the root; see `told_place`.
        source_root: eight hexadecimal digits that tell root folders apart without naming them.
        source_sha256: of the file, or over the sorted checksums of a DICOM folder's files.
        source_shape: voxels of the scan as it was read.
        source_affine: ``(4, 4)``, its voxel to mm in RAS+.
        settings: how it was prepared.
        body_box: the patient's first voxel and one past the last, per axis.
        packed_body: body voxels; read :attr:`body_voxels`.
        image: the HU file.
        label: the label file, if there is one.
        label_source: where the labels came from.
        origin: what the manifest says of the scan; ``None`` when it was prepared without one.
        relaxed: rules that were relaxed to read the scan or its labels.
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
    origin: Origin | None = None
    relaxed: tuple[str, ...] = ()

    @cached_property
    def body_voxels(self) -> np.ndarray:
        """``(k, 3)`` int32 indices of body voxels, spread evenly over the body."""
        return unpack_voxels(self.packed_body, self.shape)


def pack(numbers: Sequence[int]) -> str:
    """Pack numbers below 2^32 into base64 of little-endian uint32."""
    return base64.b64encode(np.array(numbers, "<u4").tobytes()).decode()


def unpack(packed: str) -> np.ndarray:
    """Undo :func:`pack`."""
    return np.frombuffer(base64.b64decode(packed), "<u4")


def pack_voxels(voxels: np.ndarray, shape: Triple) -> str:
    """Pack ``(k, 3)`` indices, sorted in C order, into a short text."""
    flat = np.ravel_multi_index(tuple(voxels.T), shape).astype("<i8")
    steps = np.diff(flat, prepend=np.zeros(1, "<i8"))  # small numbers, so that they compress
    return base64.b64encode(zlib.compress(steps.astype("<u4").tobytes(), 6)).decode()


def unpack_voxels(packed: str, shape: Triple) -> np.ndarray:
    """Undo :func:`pack_voxels`."""
    steps = np.frombuffer(zlib.decompress(base64.b64decode(packed)), "<u4")
    return np.stack(np.unravel_index(np.cumsum(steps, dtype=np.int64), shape), axis=1).astype(np.int32)


def chunk_grid(shape: Triple, chunk: Triple) -> Triple:
    """Return how many chunks lie along x, y, z."""
    x, y, z = (ceil(size / edge) for size, edge in zip(shape, chunk, strict=True))
    return x, y, z
