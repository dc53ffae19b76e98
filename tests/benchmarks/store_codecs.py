"""Codec, filter and chunk shape of the store: compression beside the time and the bytes of a random crop.

    python tests/benchmarks/store_codecs.py [--ct CT_FOLDER] [--edge 256] [--crops 40]

Each form holds the same volume and is read at the same places, 96^3 voxels, with the store's own reader and its
checksums; forms take turns, so that whatever else the machine does slows each alike. A chunk is checked as a whole,
and its blocks, where it has several, are unpacked as far as a crop needs them. Warm: the kernel holds the file. Cold:
it is told to drop the file before each crop (``posix_fadvise``; what a host below a virtual machine keeps, it keeps).
Medians, in milliseconds of wall and of processor time; "read" are the bytes that come from the disk for a cold crop,
beside the compressed bytes of the chunks that it touches.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import blosc2
import numpy as np
from bench_store import synthetic
from feeding import bytes_read
from tqdm import tqdm

from monai_ext.volumes import VolumeStore, prepare
from monai_ext.volumes.store_chunks import ChunkReader, describe_chunks

CROP = (96, 96, 96)
FORMS = [
    *[
        (codec, name, (32, 32, 32), None)
        for codec in ("LZ4", "LZ4HC", "ZSTD", "BLOSCLZ")
        for name in ("BITSHUFFLE", "SHUFFLE")
    ],
    *[("LZ4", "BITSHUFFLE", chunk, None) for chunk in [(16,) * 3, (24,) * 3, (48,) * 3, (64,) * 3]],
    *[("LZ4", "BITSHUFFLE", chunk, None) for chunk in [(32, 32, 64), (64, 64, 16), (16, 32, 32)]],
    *[("LZ4", "BITSHUFFLE", (32, 32, 32), block) for block in [(16,) * 3, (16, 16, 32), (8, 16, 32)]],
    *[("LZ4", "SHUFFLE", (32, 32, 32), (16,) * 3), ("LZ4HC", "BITSHUFFLE", (32, 32, 32), (16,) * 3)],
    *[("LZ4", "BITSHUFFLE", (64, 64, 64), block) for block in [(16,) * 3, (32,) * 3]],
]


@dataclass
class Form:
    """One way to store the volume, and what was seen of it."""

    name: str
    path: Path
    read: Callable[[tuple[int, ...]], np.ndarray]
    touched: Callable[[tuple[int, ...]], int]
    written_s: float
    seen: list[list[float]]


def write(
    folder: Path, hu: np.ndarray, codec: str, filter_name: str, chunk: tuple[int, ...], block: tuple[int, ...] | None
) -> Form:
    """Write the volume in one form."""
    start = time.perf_counter()
    name = f"{codec} {filter_name.lower()} {'x'.join(map(str, chunk))}" + (
        f", blocks {'x'.join(map(str, block))}" if block else ""
    )
    path = folder / f"{name}.b2nd"
    array = blosc2.asarray(
        hu,
        chunks=chunk,
        blocks=block or chunk,
        contiguous=True,
        cparams={
            "codec": getattr(blosc2.Codec, codec),
            "clevel": 5,
            "filters": [getattr(blosc2.Filter, filter_name)],
            "typesize": 2,
            "nthreads": 1,
        },
    )
    path.write_bytes(array.to_cframe())
    seconds = time.perf_counter() - start
    data = describe_chunks(path)
    sizes = np.diff(data.ends).reshape([-(-size // edge) for size, edge in zip(hu.shape, chunk, strict=True)])

    def touched(start: tuple[int, ...]) -> int:
        box = [slice(a // c, (a + n - 1) // c + 1) for a, n, c in zip(start, CROP, chunk, strict=True)]
        return int(sizes[tuple(box)].sum())

    reader = ChunkReader(path, data, hu.shape, "volume")
    return Form(name, path, lambda start: reader.read(start, CROP), touched, seconds, [])


def drop(path: Path) -> None:
    """Let the kernel forget what it holds of a file."""
    file = os.open(path, os.O_RDONLY)
    os.fsync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)


def look(form: Form, hu: np.ndarray, start: tuple[int, ...]) -> list[float]:
    """Read one crop cold and warm: milliseconds of wall and processor time, bytes from the disk, bytes touched."""
    row: list[float] = []
    for cold in (True, False):
        if cold:
            drop(form.path)
        else:
            form.read(start)
        disk, wall, processor = bytes_read()[1], time.perf_counter(), time.process_time()
        crop = form.read(start)
        row += [(time.perf_counter() - wall) * 1e3, (time.process_time() - processor) * 1e3, bytes_read()[1] - disk]
        if not np.array_equal(crop, hu[tuple(slice(a, a + n) for a, n in zip(start, CROP, strict=True))]):
            raise RuntimeError(f"{form.name}: other voxels than were written")
    return [*row, form.touched(start)]


def bench(name: str, hu: np.ndarray, crops: int, folder: Path) -> str:
    """Return the table of one volume."""
    forms = [write(folder, hu, *form) for form in tqdm(FORMS, desc=f"{name}: writing")]
    random = np.random.default_rng(0)
    for _ in tqdm(range(crops), desc=f"{name}: reading"):
        start = tuple(random.integers(0, np.subtract(hu.shape, CROP) + 1).tolist())
        for form in forms:
            form.seen.append(look(form, hu, start))
    lines = [
        f"{name}, {'x'.join(map(str, hu.shape))} voxels, {crops} crops:",
        "",
        "| form | int16 : file | written in s | warm ms | warm CPU ms | cold ms | touched MB | read / touched |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for form in forms:
        cold, _, disk, warm, processor, _, touched = np.median(form.seen, axis=0)
        ratio = hu.nbytes / form.path.stat().st_size
        lines.append(
            f"| {form.name} | {ratio:.2f} | {form.written_s:.2f} | {warm:.1f} | {processor:.1f} | {cold:.1f} "
            f"| {touched / 1e6:.2f} | {disk / touched:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print a Markdown table for each volume."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ct", type=Path, help="a folder with torso_3mm.nii.gz and heart_1p5mm.nii.gz")
    parser.add_argument("--edge", type=int, default=256, help="voxels along each axis of the phantom")
    parser.add_argument("--crops", type=int, default=40, help="how many places are read")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as place:
        volumes = {"phantom": synthetic(arguments.edge)}
        for name in ("torso_3mm", "heart_1p5mm") if arguments.ct else ():
            prepare(arguments.ct / f"{name}.nii.gz", Path(place) / "real", workers=0)
            volumes[f"{name} at 1.5 mm"] = VolumeStore(Path(place) / "real").volume(name)
        for name, hu in volumes.items():
            folder = Path(place) / name
            folder.mkdir()
            print(bench(name, hu, arguments.crops, folder), end="\n\n")


if __name__ == "__main__":
    main()
