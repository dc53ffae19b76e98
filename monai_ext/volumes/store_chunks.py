"""One data file of the store: a blosc2 array of small chunks, each with its own checksum."""

import hashlib
import os
import weakref
import zlib
from contextlib import suppress
from itertools import product
from pathlib import Path

import blosc2
import numpy as np

from monai_ext.base import StoreError, sha256_of
from monai_ext.volumes.store_record import ChunkedData, StoreRecord, Triple, chunk_grid, pack
from monai_ext.volumes.store_sidecar import data_path

# Measured on 305x252x302 voxels, crops of 96^3, checksums included: LZ4 with bit shuffle 2.6 ms and 24 MB,
# ZSTD 5.9 ms and 21 MB; 32^3 reads 2.4 times the crop's voxels, 64^3 takes 4.2 ms and reads 4.6 times.
CHUNK: Triple = (32, 32, 32)


def write_chunks(path: Path, voxels: np.ndarray) -> None:
    """Write ``(x, y, z)`` integers; the same voxels always give the same bytes."""
    array = blosc2.asarray(
        np.ascontiguousarray(voxels),
        chunks=CHUNK,
        blocks=CHUNK,  # one block a chunk, so that a decompressed chunk lies in C order
        contiguous=True,
        cparams={
            "codec": blosc2.Codec.LZ4,
            "clevel": 5,
            "filters": [blosc2.Filter.BITSHUFFLE],
            "typesize": voxels.dtype.itemsize,
            "nthreads": 1,  # the frame's bytes must not depend on the machine's cores
        },
    )
    path.write_bytes(array.to_cframe())  # not through blosc2, which does not say that the disk is full


def describe_chunks(path: Path) -> ChunkedData:
    """Return what the sidecar keeps about a data file, from the file itself.

    Raises:
        RuntimeError: blosc2 cannot read the file, or its chunks do not follow one another.
    """
    array, content = blosc2.open(str(path), mode="r"), path.read_bytes()
    # A chunk of zeros has no bytes in the file, only a mark in the table at its end.
    stored = [
        b"" if chunk.special is blosc2.SpecialValue.ZERO else array.schunk.get_chunk(chunk.nchunk)
        for chunk in array.schunk.iterchunks_info()
    ]
    start = content.find(b"".join(stored))
    if start < 0:
        raise RuntimeError("chunks that are not in a row")
    x, y, z = array.chunks
    return ChunkedData(
        dtype=array.dtype.name,
        chunk=(x, y, z),
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        start=start,
        packed_sizes=pack(list(map(len, stored))),
        packed_sums=pack(list(map(zlib.crc32, stored))),
    )


def verify_files(folder: Path, record: StoreRecord) -> None:
    """Compare every byte of a volume's files with the checksums in its sidecar.

    Raises:
        StoreError: a file is missing, torn or altered.
    """
    for kind, data in (("image", record.image), ("label", record.label)):
        path = data_path(folder, record.id, kind)
        if data is not None and (not path.is_file() or sha256_of(path) != data.sha256):
            raise StoreError(
                f"{record.id}: {path.name} is missing, torn or altered; prepare the scan again",
                code="store.altered",
                case=record.id,
            )


class ChunkReader:
    """Read boxes of one data file, checking every chunk that they touch.

    Chunks are found by the sidecar and checked before blosc2 sees them, for it trusts what it is given. The file
    stays open, and is the same one when another is renamed over it; it may be used after a fork.

    Args:
        path: the file.
        data: what the sidecar says about it.
        shape: voxels of the volume.
        case: the id for messages.

    Raises:
        StoreError: the file is missing, or of another size than the sidecar says.
    """

    def __init__(self, path: Path, data: ChunkedData, shape: Triple, case: str) -> None:
        self.case, self.chunk, self.dtype = case, data.chunk, np.dtype(data.dtype)
        self.grid = chunk_grid(shape, data.chunk)
        self.ends, self.sums = data.ends.tolist(), data.sums.tolist()
        try:
            self._file = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise self._altered() from error
        self.close = weakref.finalize(self, os.close, self._file)  # or when nobody uses the reader any more
        if os.fstat(self._file).st_size != data.size:
            raise self._altered()
        with suppress(OSError):  # a hint only: reading ahead of one crop would read what no crop asks for
            os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_RANDOM)

    def read(self, start: Triple, size: Triple) -> np.ndarray:
        """Return the box of ``size`` voxels from ``start`` on, which lies inside the volume."""
        box = np.empty(size, self.dtype)
        chunk = np.empty(self.chunk, self.dtype)
        x_parts, y_parts, z_parts = (_parts(*numbers) for numbers in zip(start, size, self.chunk, strict=True))
        # Chunks along z follow one another in the file, so that one call to the system reads a row of them.
        rows = [(x * self.grid[1] + y) * self.grid[2] for (x, _, _), (y, _, _) in product(x_parts, y_parts)]
        spans = [(self.ends[row + z_parts[0][0]], self.ends[row + z_parts[-1][0] + 1]) for row in rows]
        with suppress(OSError):  # a hint only: a cold disk then works on all rows at once
            for first, after in spans:
                os.posix_fadvise(self._file, first, after - first, os.POSIX_FADV_WILLNEED)
        places = product(x_parts, y_parts)
        for row, (first, after), ((_, in_x, out_x), (_, in_y, out_y)) in zip(rows, spans, places, strict=True):
            packed = memoryview(os.pread(self._file, after - first, first))
            for z, in_z, out_z in z_parts:
                begin, end = self.ends[row + z] - first, self.ends[row + z + 1] - first
                self._unpack(packed[begin:end], end - begin, self.sums[row + z], chunk)
                box[out_x, out_y, out_z] = chunk[in_x, in_y, in_z]
        return box

    def _unpack(self, packed: memoryview, size: int, crc32: int, chunk: np.ndarray) -> None:
        if len(packed) != size or zlib.crc32(packed) != crc32:
            raise self._altered()
        if size:
            # One thread: loaders read in many processes, and blosc2's own threads do not survive a fork.
            blosc2.decompress2(packed, dst=chunk, nthreads=1)
        else:
            chunk.fill(0)

    def _altered(self) -> StoreError:
        return StoreError(
            f"{self.case}: its voxels are missing, torn, or not those that its sidecar describes; open "
            "the store again if it was prepared anew meanwhile, else prepare the scan again",
            code="store.altered",
            case=self.case,
        )


def _parts(start: int, size: int, edge: int) -> list[tuple[int, slice, slice]]:
    """Return, along one axis, the chunks that a box touches: number, where in the chunk, where in the box."""
    parts = []
    for number in range(start // edge, (start + size - 1) // edge + 1):
        origin = number * edge
        low, high = max(origin, start), min(origin + edge, start + size)
        parts.append((number, slice(low - origin, high - origin), slice(low - start, high - start)))
    return parts
