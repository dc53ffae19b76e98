"""One data file of the store: a blosc2 array of small chunks, each with its own checksum."""

import hashlib
import mmap
import os
import weakref
from contextlib import suppress
from pathlib import Path

import blosc2
import numpy as np
from zlib_ng.zlib_ng import crc32

from monai_ext.base import StoreError, sha256_of
from monai_ext.volumes.store_record import ChunkedData, StoreRecord, Triple, chunk_grid, pack
from monai_ext.volumes.store_sidecar import data_path

# A chunk is what is read and checked, a block what is unpacked. Crops of 96^3 at random places touch 2.3 times their
# voxels in chunks of 32^3, 4.6 times in those of 64^3, and unpack 1.6 times in blocks of 16^3.
CHUNK: Triple = (32, 32, 32)
BLOCK: Triple = (16, 16, 16)


def write_chunks(path: Path, voxels: np.ndarray) -> None:
    """Write ``(x, y, z)`` integers; the same voxels always give the same bytes."""
    array = blosc2.asarray(
        np.ascontiguousarray(voxels),
        chunks=CHUNK,
        blocks=BLOCK,
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
    sizes = list(map(len, stored))
    return ChunkedData(
        dtype=array.dtype.name,
        chunk=(x, y, z),
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        start=start,
        packed_sizes=pack(sizes),
        packed_sums=pack(list(map(crc32, stored))),
        frame_crc32=frame_crc32(memoryview(content), start, start + sum(sizes)),
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

    The bytes of each chunk are found by the sidecar and checked before blosc2 sees them, and so is, when the file is
    opened, the rest of the file, for blosc2 trusts what it is given. The file stays open, and is the same one when
    another is renamed over it; it may be used after a fork.

    Args:
        path: the file.
        data: what the sidecar says about it.
        shape: voxels of the volume.
        case: the id for messages.

    Raises:
        StoreError: the file is missing, or another one than the sidecar describes.
    """

    def __init__(self, path: Path, data: ChunkedData, shape: Triple, case: str) -> None:
        self.case, self.chunk = case, data.chunk
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
        self._array = self._open(data, shape)

    def _open(self, data: ChunkedData, shape: Triple) -> blosc2.NDArray:
        pages = mmap.mmap(self._file, data.size, prot=mmap.PROT_READ)
        pages.madvise(mmap.MADV_RANDOM)
        content = memoryview(pages)
        if data.frame_crc32 is None:  # written before there was one
            same = hashlib.sha256(content).hexdigest() == data.sha256
        else:
            same = frame_crc32(content, self.ends[0], self.ends[-1]) == data.frame_crc32
        # blosc2 looks at the head of the first chunk too.
        if not same or crc32(content[self.ends[0] : self.ends[1]]) != self.sums[0]:
            raise self._altered()
        array = blosc2.ndarray_from_cframe(content)
        # One thread: loaders read in many processes, and blosc2's own threads do not survive a fork.
        array.schunk.dparams = blosc2.DParams(nthreads=1)
        if (array.shape, array.chunks, array.dtype.name) != (shape, data.chunk, data.dtype):
            raise self._altered()
        return array

    def read(self, start: Triple, size: Triple, out: np.ndarray | None = None) -> np.ndarray:
        """Return the box of ``size`` voxels from ``start`` on, which lies inside the volume.

        Args:
            start: its first voxel along x, y, z.
            size: its voxels along x, y, z.
            out: where the voxels go, instead of into new memory.
        """
        box = np.empty(size, self._array.dtype) if out is None else out
        flags = box.flags
        if (box.shape, box.dtype) != (size, self._array.dtype) or not (flags.c_contiguous and flags.writeable):
            raise StoreError(
                f"{self.case}: out is {box.dtype} of {box.shape}; give {self._array.dtype} of {size}, in one piece",
                code="store.out",
                case=self.case,
            )
        self._check(start, size)
        stop = tuple(first + extent for first, extent in zip(start, size, strict=True))
        # Out of the mapped pages that were read just now; blosc2 unpacks only those blocks that the box needs. This is
        # what its indexing comes to, without 0.1 ms of looking at the index.
        try:
            self._array.get_slice_numpy(box, (start, stop))
        except RuntimeError as error:  # changed since, in the same file
            raise self._altered() from error
        return box

    def _check(self, start: Triple, size: Triple) -> None:
        """Read the chunks that a box touches, and compare each with its checksum."""
        x_chunks, y_chunks, z_chunks = (
            range(first // edge, (first + extent - 1) // edge + 1)
            for first, extent, edge in zip(start, size, self.chunk, strict=True)
        )
        # Chunks along z follow one another in the file, so that one call to the system reads a row of them.
        firsts = [(x * self.grid[1] + y) * self.grid[2] for x in x_chunks for y in y_chunks]
        rows = [range(first + z_chunks.start, first + z_chunks.stop) for first in firsts]
        spans = [(self.ends[row.start], self.ends[row.stop]) for row in rows]
        with suppress(OSError):  # a hint only: a cold disk then works on all rows at once
            for first, after in spans:
                os.posix_fadvise(self._file, first, after - first, os.POSIX_FADV_WILLNEED)
        # Not from the mapped pages: a disk that fails, or a file that was cut, is an error here and a crash there.
        packed = memoryview(bytearray(max(after - first for first, after in spans)))
        for row, (first, after) in zip(rows, spans, strict=True):
            if os.preadv(self._file, [packed[: after - first]], first) != after - first:
                raise self._altered()
            for chunk in row:
                begin, end = self.ends[chunk] - first, self.ends[chunk + 1] - first
                if crc32(packed[begin:end]) != self.sums[chunk]:
                    raise self._altered()

    def _altered(self) -> StoreError:
        return StoreError(
            f"{self.case}: its voxels are missing, torn, or not those that its sidecar describes; open "
            "the store again if it was prepared anew meanwhile, else prepare the scan again",
            code="store.altered",
            case=self.case,
        )


def frame_crc32(content: memoryview, start: int, end: int) -> int:
    """Return the CRC-32 of what stands before a file's first chunk and after its last: how to find and read them."""
    return crc32(content[end:], crc32(content[:start]))
