"""Crops per second of four recipes: the volume store, the published one, and two data sets of MONAI.

    python tests/benchmarks/feeding.py [--volumes 8] [--edge 300] [--seconds 20] [--rounds 3] [--out feeding.json]
    python tests/benchmarks/feeding.py --ct CT_FOLDER

A crop is a float32 tensor of 1x96x96x96 in the window, in a batch of eight, as a `DataLoader` hands it over; an
epoch is eight crops of each volume. Every figure comes from a process of its own, recipe by recipe in turns, and is
the median of the rounds. Warm: an epoch goes before. Cold: before each epoch the kernel drops its pages of the
recipe's files (``posix_fadvise``; what a host below a virtual machine keeps, it keeps). Bytes read are those that the
process asks of the system, and, cold, those that come from the disk.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from feeding_loaders import BATCH, CROP, CROPS_A_LOAD, FOLDERS, RECIPES, loader, write_files
from tqdm import tqdm

from monai_ext.volumes import VolumeStore


def drop_pages(folder: Path) -> None:
    """Let the kernel forget what it holds of the files in a folder."""
    for path in folder.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.fsync(file)  # pages that wait for the disk stay
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def bytes_read() -> tuple[int, int]:
    """Return the bytes that this process has asked for, and those that came from a disk."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text(encoding="ascii").splitlines())
    return int(lines["rchar"]), int(lines["read_bytes"])


def peak_mb() -> float:
    """Return the most memory that this process has had; getrusage would count what its parent had."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1e3


def measure(recipe: str, folder: Path, workers: int, cold: bool, seconds: float) -> dict[str, float]:
    """Time whole epochs, for at least so many seconds."""
    torch.set_num_threads(1)
    batches, plan = loader(recipe, folder, workers)
    crops, wall, processor, asked, disk = 0, 0.0, 0.0, 0, 0
    epoch = 0
    while wall < seconds:
        if plan is not None:
            plan.epoch = epoch
        if cold:
            drop_pages(folder / FOLDERS[recipe])
        before, clocks = bytes_read(), (time.perf_counter(), time.process_time())
        seen = 0
        for batch in batches:
            if tuple(batch["image"].shape) != (BATCH, 1, *CROP):
                raise RuntimeError(f"{recipe}: a batch of {tuple(batch['image'].shape)}")
            seen += len(batch["image"])
        if cold or epoch:  # an epoch to warm up
            wall, processor = wall + time.perf_counter() - clocks[0], processor + time.process_time() - clocks[1]
            after = bytes_read()
            crops, asked, disk = crops + seen, asked + after[0] - before[0], disk + after[1] - before[1]
        epoch += 1
    found = {"crops_a_second": crops / wall, "peak_mb": peak_mb()}
    if not workers:
        found |= {
            "processor_ms_a_crop": processor / crops * 1e3,
            "asked_mb_a_crop": asked / crops / 1e6,
            "disk_mb_a_crop": disk / crops / 1e6,
        }
    return found


def touched(folder: Path) -> dict[str, float]:
    """Weigh the chunks that the store's crops touch in an epoch, beside the bytes that the process asks for."""
    sizes: list[int] = []
    crop = VolumeStore.crop

    def watch(self: VolumeStore, volume_id: str, start: Sequence[int], size: Sequence[int], *rest: Any) -> np.ndarray:
        data = self.record(volume_id).image
        grid = -(-np.array(self.record(volume_id).shape) // data.chunk)
        box = tuple(
            slice(first // edge, (first + extent - 1) // edge + 1)
            for first, extent, edge in zip(start, size, data.chunk, strict=True)
        )
        sizes.append(int(np.diff(data.ends).reshape(grid)[box].sum()))
        return crop(self, volume_id, start, size, *rest)

    with mock.patch.object(VolumeStore, "crop", watch):
        batches, _ = loader("store", folder, 0)
        before = bytes_read()
        crops = sum(len(batch["image"]) for batch in batches)
    return {
        "touched_mb_a_crop": sum(sizes) / crops / 1e6,
        "asked_beside_touched": (bytes_read()[0] - before[0]) / sum(sizes),
    }


def where_the_published_time_goes(folder: Path) -> dict[str, float]:
    """Time the parts of one load of the published recipe, in milliseconds a crop."""
    from feeding_loaders import Published
    from monai.transforms import map_binary_to_indices

    data, spent = Published(folder), {"load": [], "list all voxels": [], "whole": []}
    for path in data.paths * 2:
        start = time.perf_counter()
        image = torch.load(path, weights_only=True)
        loaded = time.perf_counter()
        map_binary_to_indices(image, image, 0.0)  # what the transform does for every load, the image being its label
        listed = time.perf_counter()
        data.cut({"image": image})
        spent["load"].append(loaded - start)
        spent["list all voxels"].append(listed - loaded)
        spent["whole"].append(loaded - start + time.perf_counter() - listed)
    return {name: statistics.median(times) * 1e3 / CROPS_A_LOAD for name, times in spent.items()}


def alone(*arguments: object) -> dict[str, float]:
    """Run one measurement in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, "--one", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def bench(folder: Path, seconds: float, rounds: int) -> dict[str, Any]:
    """Measure all recipes, in turns."""
    cases = [(recipe, workers, cold) for cold in (0, 1) for workers in (0, 2) for recipe in RECIPES]
    cases = [case for case in cases if not (case[2] and case[0].startswith("cache"))]  # memory knows no cold
    found: dict[tuple[str, int, int], list[dict[str, float]]] = {case: [] for case in cases}
    for recipe, workers, cold in tqdm(cases * rounds, desc="measurements"):
        found[recipe, workers, cold].append(alone(recipe, folder, workers, cold, seconds))
    rows = [
        {
            "recipe": recipe,
            "workers": workers,
            "pages": "cold" if cold else "warm",
            **{name: statistics.median(one[name] for one in many) for name in many[0]},
        }
        for (recipe, workers, cold), many in found.items()
    ]
    weights = {
        recipe: sum(path.stat().st_size for path in (folder / FOLDERS[recipe]).rglob("*") if path.is_file()) / 1e6
        for recipe in RECIPES
    }
    for row in rows:
        row["files_mb"] = weights[row["recipe"]]
        base = next(
            r for r in rows if (r["recipe"], r["workers"], r["pages"]) == ("published", row["workers"], row["pages"])
        )
        row["times_the_published"] = row["crops_a_second"] / base["crops_a_second"]
    return {"rows": rows, "store": alone("touched", folder), "published_ms_a_crop": alone("parts", folder)}


def table(result: dict[str, Any]) -> str:
    """Return the rows as a Markdown table."""
    head = ["recipe", "pages", "workers", "crops/s", "x published", "CPU ms/crop", "MB asked/crop", "MB from disk/crop"]
    lines = [" | ".join(["", *head, "files MB", "peak MB", ""]).strip(), "|" + "---|" * (len(head) + 2)]
    for row in result["rows"]:
        number = {name: f"{value:.3g}" for name, value in row.items() if isinstance(value, float)}
        columns = ["crops_a_second", "times_the_published", "processor_ms_a_crop", "asked_mb_a_crop", "disk_mb_a_crop"]
        numbers = [number.get(name, "-") for name in [*columns, "files_mb", "peak_mb"]]
        lines.append("| " + " | ".join([row["recipe"], row["pages"], str(row["workers"]), *numbers]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print a table, and write JSON where asked."""
    if sys.argv[1:2] == ["--one"]:
        what, folder, *rest = sys.argv[2:]
        special = {"touched": touched, "parts": where_the_published_time_goes}
        if what in special:
            print(json.dumps(special[what](Path(folder))))
        else:
            print(json.dumps(measure(what, Path(folder), int(rest[0]), rest[1] == "1", float(rest[2]))))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--volumes", type=int, default=8, help="how many; cache_indices takes 0.4 GB for each of 300^3")
    parser.add_argument("--edge", type=int, default=300, help="voxels along each axis of a volume")
    parser.add_argument("--ct", type=Path, help="a folder with torso_3mm.nii.gz, to use instead of phantoms")
    parser.add_argument("--seconds", type=float, default=20, help="the least time of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of which the median is told")
    parser.add_argument("--out", type=Path, help="where the figures go as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as name:
        folder = Path(name)
        write_files(folder, arguments.volumes, arguments.edge, arguments.ct)
        result = bench(folder, arguments.seconds, arguments.rounds)
    print(table(result))
    print(json.dumps({name: result[name] for name in ("store", "published_ms_a_crop")}))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
