"""Ten thousand batches out of a store with worker processes: does memory, shared memory or the open files grow?

    python tests/benchmarks/feeding_leak.py [--batches 10000] [--workers 2] [--volumes 40]

Epochs follow one another, each with new workers, as training without persistent ones has them. Printed at ten points:
the memory that this process and its workers have written to (proportional set size: what they share is counted in
parts; without the pages of files, whose part depends on who else on the machine has loaded the same libraries), the
open files of both, and the shared memory that this process maps, in pieces and megabytes. Batches on their way hold
some files and pieces. The exit code is 1 if the last point is above the second by more than they explain.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from feeding_loaders import new_volume
from monai.data import DataLoader
from tqdm import tqdm

from monai_ext.engines import DrawDataset, VisitPlan
from monai_ext.transforms import PlacedSamples, RandStoreCropd, collate_placed
from monai_ext.volumes import VolumeStore
from monai_ext.volumes.store_write import write_volume

EDGE, CROP, BATCH, CROPS_A_VISIT = 48, 24, 4, 8
ON_THE_WAY = 16  # files; a leak of one a batch would be ten thousand, one an epoch more than a hundred


def write_store(folder: Path, volumes: int) -> VolumeStore:
    """Fill a store with small volumes of noise around a body."""
    random = np.random.default_rng(0)
    for number in range(volumes):
        hu = random.normal(40, 20, (EDGE, EDGE, EDGE)).astype(np.int16)
        hu[:4] = -1000
        write_volume(folder, new_volume(f"volume_{number:03}", hu))
    return VolumeStore(folder)


def children() -> list[int]:
    """Return the processes that this one has started and not ended."""
    return [int(n) for path in Path("/proc/self/task").glob("*/children") for n in path.read_text().split()]


def memory_mb(process: int) -> float:
    """Return a process's memory but for the pages of files, what it shares counted in parts."""
    rollup = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii")
    kinds = dict(line.split(":") for line in rollup.splitlines() if line.startswith("Pss_"))
    return sum(int(kinds[kind].split()[0]) for kind in ("Pss_Anon", "Pss_Shmem")) / 1e3


def state(batch: int) -> dict[str, float]:
    """Return what may leak, now."""
    maps = [line for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines() if "/torch_" in line]
    ends = [[int(number, 16) for number in line.split()[0].split("-")] for line in maps]
    return {
        "batch": batch,
        "main_mb": round(memory_mb(os.getpid()), 1),
        "workers_mb": round(sum(map(memory_mb, children())), 1),
        "open_files": len(os.listdir("/proc/self/fd")),
        "workers_files": sum(len(os.listdir(f"/proc/{process}/fd")) for process in children()),
        "shared_pieces": len(maps),
        "shared_mb": round(sum(end - start for start, end in ends) / 1e6, 3),
    }


def run(store: VolumeStore, batches: int, workers: int, points: int = 10) -> list[dict[str, float]]:
    """Draw so many batches, and return the state at so many points, each in the middle of an epoch."""
    data = DrawDataset([{"image": name} for name in store], RandStoreCropd("image", store, (CROP,) * 3))
    plan = VisitPlan([1] * len(store), len(store) * CROPS_A_VISIT, 0, CROPS_A_VISIT, 4 * BATCH)
    loader = DataLoader(
        PlacedSamples(data), sampler=plan, batch_size=BATCH, num_workers=workers, collate_fn=collate_placed
    )
    epochs = -(-batches // len(loader))
    watched = {round(epoch) for epoch in np.linspace(0, epochs - 1, points)}
    states = []
    for epoch in tqdm(range(epochs), desc="epochs"):
        plan.epoch = epoch
        for number, _ in enumerate(loader):
            if epoch in watched and number == len(loader) // 2:
                states.append(state(epoch * len(loader) + number))
    return states


def grown(first: dict[str, float], last: dict[str, float]) -> list[str]:
    """Return the names of what is more at the end, by more than a batch that is on its way holds."""
    things = [name for name in first if name.endswith(("files", "pieces")) and last[name] > first[name] + ON_THE_WAY]
    memory = [name for name in first if name.endswith("mb") and last[name] > 1.1 * first[name] + 1]
    return things + memory


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--volumes", type=int, default=40)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        states = run(write_store(Path(folder), arguments.volumes), arguments.batches, arguments.workers)
    print("| " + " | ".join(states[0]) + " |\n|" + "---|" * len(states[0]))
    for row in states:
        print("| " + " | ".join(f"{value:g}" for value in row.values()) + " |")
    more = grown(states[1], states[-1])
    print(f"grown: {', '.join(more) or 'nothing'}")
    sys.exit(1 if more else 0)


if __name__ == "__main__":
    main()
