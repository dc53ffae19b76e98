"""Preparing beside a plain MONAI script that does the same steps: volumes per minute and core, memory, results.

    python tests/benchmarks/preparing.py [--shape 512 512 256] [--scans 6] [--rounds 3]

Synthetic scans of 0.8 x 0.8 x 1.25 mm (noise in tissue, gzipped NIfTI, int16) are brought to 1.5 mm in RAS:

- MONAI: LoadImage, EnsureChannelFirst, Orientation, Spacing (bilinear), cast to int16, torch.save; one process;
- ours: ``prepare`` in one process, which also hashes the source, finds the body, compresses, flushes to disk and
  reads back what it wrote.

Both run with one thread, alternating, each round in new processes; imports and the first scan are not counted. The
scaling is that of the process pool: the time that twice the scans take more, so that its start does not count. Memory
is the highest resident size of the whole process over the bytes of the scan's voxels as float32, as it is read.
Prints one JSON line; the ratios are of medians in this one run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

SPACING_MM = (1.5, 1.5, 1.5)


def write_scan(path: Path, shape: Sequence[int], seed: int) -> None:
    """Write a body of smooth tissue with noise, in air, lying as LPS."""
    rng = np.random.default_rng(seed)
    tissue = ndimage.zoom(rng.normal(40, 60, [-(-size // 32) for size in shape]).astype(np.float32), 32, order=1)
    tissue = tissue[: shape[0], : shape[1], : shape[2]]
    x, y = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape[:2]), indexing="ij")
    body = ((x / 0.85) ** 2 + (y / 0.65) ** 2 < 1)[:, :, None]
    hu = np.where(body, tissue, -1000) + 12 * rng.standard_normal(tissue.shape, dtype=np.float32)
    image = nib.Nifti1Image(np.clip(np.rint(hu), -1024, 3071).astype(np.int16), np.diag([-0.8, -0.8, 1.25, 1]))
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def ours(folder: Path, out: Path) -> Callable[[Path], object]:
    """Return what prepares one scan."""
    from monai_ext.volumes import prepare

    return lambda path: prepare(path, out / "store", spacing_mm=SPACING_MM, workers=0, root=folder)


def monais(folder: Path, out: Path) -> Callable[[Path], object]:
    """Return what a plain script does with one scan."""
    import torch
    from monai.transforms import CastToTyped, Compose, EnsureChannelFirstd, LoadImaged, Orientationd, Spacingd

    torch.set_num_threads(1)
    steps = Compose(
        [
            LoadImaged("image"),
            EnsureChannelFirstd("image"),
            Orientationd("image", "RAS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
            Spacingd("image", SPACING_MM, mode="bilinear"),
            CastToTyped("image", torch.int16),
        ]
    )
    return lambda path: torch.save(steps({"image": path})["image"].as_tensor(), out / f"{path.name}.pt")


def child(kind: str, folder: Path, out: Path) -> dict[str, Any]:
    """Prepare every scan once in this process; the seconds of each but the first, and the highest memory."""
    work = {"ours": ours, "monai": monais}[kind](folder, out)
    seen = []
    for path in sorted(folder.glob("*.nii.gz")):
        start = time.perf_counter(), time.process_time()
        work(path)
        seen.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak_kb = int(status.split("VmHWM:")[1].split()[0])
    return {"wall_s": [one[0] for one in seen[1:]], "cpu_s": [one[1] for one in seen[1:]], "peak_mb": peak_kb / 1024}


def in_new_process(kind: str, folder: Path, out: Path) -> dict[str, Any]:
    """Run :func:`child` in a process of its own."""
    out.mkdir(exist_ok=True)
    command = [sys.executable, "-W", "ignore", __file__, "--child", kind, str(folder), str(out)]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return json.loads(found.stdout.splitlines()[-1])


def pool_seconds(scans: Path, store: Path, count: int, workers: int) -> float:
    """Return how long ``count`` scans take in a pool."""
    from monai_ext.volumes import prepare

    folder = scans.parent / f"list_{count}"
    if not folder.is_dir():
        folder.mkdir()
        paths = sorted(scans.glob("*.nii.gz"))
        for number in range(count):
            os.link(paths[number % len(paths)], folder / f"ct_{number:03}.nii.gz")
    start = time.perf_counter()
    summary = prepare(folder, store, spacing_mm=SPACING_MM, workers=workers)
    if len(summary.done) != count:
        raise SystemExit("a scan could not be prepared")
    return time.perf_counter() - start


def difference(scans: Path, store: Path, theirs: Path) -> dict[str, float]:
    """Compare what both stored of every scan, voxel by voxel."""
    import torch

    from monai_ext.volumes import VolumeStore

    opened, largest, beyond = VolumeStore(store), 0, list[float]()
    for path in sorted(scans.glob("*.nii.gz")):
        mine = opened.volume(path.name.removesuffix(".nii.gz")).astype(int)
        other = torch.load(theirs / f"{path.name}.pt", weights_only=True)[0].numpy()
        if mine.shape != other.shape:
            raise SystemExit("the grids differ")
        apart = np.abs(mine - other)
        largest, beyond = max(largest, int(apart.max())), [*beyond, float((apart > 1).mean())]
    return {"largest_hu": largest, "share_beyond_1_hu": max(beyond)}


def measure(shape: Sequence[int], scans: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Time both, and weigh them."""
    (folder / "scans").mkdir()
    for number in range(scans):
        write_scan(folder / "scans" / f"ct_{number}.nii.gz", shape, number)
    seen: dict[str, list[dict[str, Any]]] = {"ours": [], "monai": []}
    for turn in range(rounds):
        for kind, runs in seen.items():
            runs.append(in_new_process(kind, folder / "scans", folder / f"{kind}_{turn}"))
    wall, cpu = (
        {kind: statistics.median(one for run in runs for one in run[what]) for kind, runs in seen.items()}
        for what in ("wall_s", "cpu_s")
    )
    volume_mb = 4 * np.prod(shape) / 2**20
    more = {
        workers: pool_seconds(folder / "scans", folder / f"pool_{workers}_long", 4 * scans, workers)
        - pool_seconds(folder / "scans", folder / f"pool_{workers}_short", 2 * scans, workers)
        for workers in (1, 2)
    }
    return {
        "shape": list(shape),
        "volumes_a_minute_and_core": {kind: round(60 / seconds, 1) for kind, seconds in wall.items()},
        "times_monai": {"wall": round(wall["monai"] / wall["ours"], 2), "cpu": round(cpu["monai"] / cpu["ours"], 2)},
        "of_linear_with_2_workers": round(more[1] / more[2] / 2, 2),
        "peak_over_volume": {
            kind: round(max(run["peak_mb"] for run in runs) / volume_mb, 2) for kind, runs in seen.items()
        },
        "difference": difference(folder / "scans", folder / "ours_0" / "store", folder / "monai_0"),
    }


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(512, 512, 256), help="voxels of a scan along x, y, z")
    parser.add_argument("--scans", type=int, default=6, help="scans of a round, 2 or more")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is timed, in new processes")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        kind, folder, out = arguments.child
        print(json.dumps(child(kind, Path(folder), Path(out))))
        return
    with tempfile.TemporaryDirectory() as place:
        print(json.dumps(measure(arguments.shape, arguments.scans, arguments.rounds, Path(place))))


if __name__ == "__main__":
    main()
