"""A simulated corpus through every step from download to training: time and memory of each.

    python tests/benchmarks/corpus.py [--entries 10000] [--jobs 2] [--output FILE.json] [--folder KEEP]

Small phantoms lie in folders as five public data sets keep theirs. Each step is one command, or one small program,
in a process of its own; a tenth of the corpus goes through the same steps, so that memory can be compared: where it
does not grow with the entries, the ratio is near 1. Damage is planted before ``verify``, which has to find just that.

``tests/benchmarks/leakage.py`` plants duplicates, and reports what ``manifest leakage`` finds.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import repeat
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK
from rich.console import Console
from rich.table import Table

from monai_ext.base import derive_seed
from monai_ext.volumes import Phantom, VolumeStore, phantom_torso

SHAPE, SPACING_MM = (24, 24, 24), (15.0, 12.0, 16.0)
BASES = 16  # different patients; noise of its own tells each scan apart
DAMAGED = 3
MIX_WEIGHTS = {"spleen": "2", "stoic": "0.5"}


def corpus(entries: int) -> Iterator[tuple[str, str, str | None]]:
    """Yield folder, image and label of each entry: a fifth is spleens, two fifths whole bodies, ..."""
    for number in range(entries):
        turn = number % 10
        if turn < 2:
            split = "Ts" if number % 3 == 2 else "Tr"
            label = None if split == "Ts" else f"labelsTr/spleen_{number}.nii.gz"
            yield "spleen", f"images{split}/spleen_{number}.nii.gz", label
        elif turn < 6:
            yield "totalsegmentator", f"s{number:05d}/ct.nii.gz", None
        elif turn < 7:
            split = ("Tr", "Tr", "Val", "Ts")[number // 10 % 4]
            yield "word", f"images{split}/word_{number:05d}.nii.gz", f"labels{split}/word_{number:05d}.nii.gz"
        elif turn < 9:
            case = f"dataset/case_{number:05d}"
            yield "kits23", f"{case}/imaging.nii.gz", f"{case}/segmentation.nii.gz"
        else:
            yield "stoic", f"data/mha/{number}.mha", None


def write_entry(root: Path, item: tuple[str, str, str | None]) -> None:
    """Write one scan and its label."""
    folder, image, label = item
    seed = derive_seed(folder, image)
    base = phantom(seed % BASES)
    noise = np.random.default_rng(seed).normal(0, 25, SHAPE)
    hu = np.clip(base.hu + noise, -1024, 3071).astype(np.int16)
    path = root / folder / image
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".mha":
        picture = SimpleITK.GetImageFromArray(np.ascontiguousarray(hu.transpose(2, 1, 0)))
        picture.SetSpacing(SPACING_MM)
        SimpleITK.WriteImage(picture, str(path))
    else:
        nib.Nifti1Image(hu, base.affine).to_filename(path)
    if label:
        (root / folder / label).parent.mkdir(parents=True, exist_ok=True)
        nib.Nifti1Image((base.labels > 0).astype(np.uint8), base.affine).to_filename(root / folder / label)


@cache
def phantom(number: int) -> Phantom:
    """Return one of a few phantoms, made once in each process."""
    return phantom_torso(number, SHAPE, SPACING_MM)


def damage(root: Path) -> list[tuple[Path, bytes]]:
    """Change a few files of the first folder, and return what they were."""
    kept = []
    for path in sorted((root / "totalsegmentator").rglob("*.nii.gz"))[:DAMAGED]:
        kept.append((path, path.read_bytes()))
        path.write_bytes(kept[-1][1][:-9])
    return kept


def steps(root: Path, jobs: int) -> Iterator[tuple[str, list[list[str]]]]:
    """Yield each step's name and commands."""
    verb = [sys.executable, "-m", "monai_ext"]
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    yield "build", [[*verb, "manifest", "build", str(folder), "--jobs", str(jobs)] for folder in folders]
    yield "build again", [[*verb, "manifest", "build", str(folder), "--jobs", str(jobs)] for folder in folders]
    weights = [f"{f}/manifest.json" + (f"={MIX_WEIGHTS[f.name]}" if f.name in MIX_WEIGHTS else "") for f in folders]
    yield "mix", [[*verb, "manifest", "mix", *weights, "--out", str(root / "mix.json")]]
    report = ["--report", str(root / "problems.jsonl")]
    yield "verify", [[*verb, "manifest", "verify", str(root / "mix.json"), "--jobs", str(jobs), *report]]
    share = ["--percent", "10", "--out", str(root / "tenth.json")]
    yield "kshot 10 %", [[*verb, "manifest", "kshot", str(root / "mix.json"), *share]]
    spacing = ["--spacing", "12", "12", "12", "--workers", str(jobs)]
    yield "prepare", [[*verb, "prepare", str(root / "mix.json"), str(root / "store"), *spacing]]
    own = [sys.executable, __file__, "--step"]
    yield "open index, new", [[*own, "index", "--folder", str(root / "store")]]
    yield "open index", [[*own, "index", "--folder", str(root / "store")]]
    yield "one epoch", [[*own, "epoch", "--folder", str(root / "store")]]


def open_index(store: Path) -> dict[str, float]:
    """Open the index of a store."""
    start = time.perf_counter()
    index = VolumeStore(store).index
    return {"volumes": len(index), "opening_s": round(time.perf_counter() - start, 3)}


def epoch(store: Path) -> dict[str, float]:
    """Draw one epoch of small crops, eight of each visit, by weight."""
    from torch.utils.data import DataLoader

    from monai_ext.engines import DrawDataset, VisitPlan, store_items, store_weights
    from monai_ext.transforms import RandStoreCropd

    items = store_items(str(store), "train", 0.05)
    plan = VisitPlan(store_weights(str(store), items), 8 * len(items))
    data = DrawDataset(items, RandStoreCropd("image", store, (16, 16, 16)))
    start, early, crops = time.perf_counter(), 0, 0
    for batch in DataLoader(data, batch_size=8, sampler=plan):
        crops += len(batch["image"])
        early = early or (resident_kib("self") if crops >= len(plan) // 10 else 0)
    seconds = time.perf_counter() - start
    grown = resident_kib("self") / early
    return {"crops": crops, "crops_per_s": round(crops / seconds), "memory_end_to_tenth": round(grown, 3)}


def measure(commands: Sequence[Sequence[str]], allowed: Sequence[int]) -> dict[str, object]:
    """Run commands one after another; wall time, peak memory of the first process and of all together, last output."""
    peaks, output, start = [0, 0], "", time.perf_counter()
    for command in commands:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
        watch = threading.Thread(target=_watch, args=(process, peaks))
        watch.start()
        output, errors = process.communicate()
        watch.join()
        if process.returncode not in allowed:
            raise RuntimeError(f"{' '.join(command[2:])} ended with {process.returncode}:\n{output}{errors}")
    seconds = time.perf_counter() - start
    found: dict[str, object] = {"wall_s": round(seconds, 2)}
    found |= {"main_mib": peaks[0] // 1024, "all_mib": peaks[1] // 1024}
    last = output.strip().rpartition("\n")[2]
    return found | (json.loads(last) if last.startswith("{") else {})


def _watch(process: subprocess.Popen[str], peaks: list[int]) -> None:
    while process.poll() is None:
        tree = [process.pid, *_below(process.pid)]
        sizes = [resident_kib(pid) for pid in tree]
        peaks[:] = max(peaks[0], sizes[0]), max(peaks[1], sum(sizes))
        time.sleep(0.05)


def _below(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    except OSError:
        return []
    return [one for child in map(int, children) for one in (child, *_below(child))]


def resident_kib(pid: int | str) -> int:
    """Return the memory that a process holds now, from Linux's /proc."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0)


def run(root: Path, entries: int, jobs: int) -> dict[str, dict[str, object]]:
    """Write a corpus and take it through all steps."""
    start = time.perf_counter()
    with ProcessPoolExecutor(jobs) as pool:
        list(pool.map(write_entry, repeat(root), corpus(entries), chunksize=50))
    found: dict[str, dict[str, object]] = {"write": {"wall_s": round(time.perf_counter() - start, 2)}}
    for name, commands in steps(root, jobs):
        kept = damage(root) if name == "verify" else []
        found[name] = measure(commands, (1,) if kept else (0,))
        for path, content in kept:
            path.write_bytes(content)
        if kept:
            lines = (root / "problems.jsonl").read_text(encoding="utf-8").splitlines()
            found[name]["problems"] = len({json.loads(line)["case"] for line in lines})
        print(json.dumps({"entries": entries, "step": name, **found[name]}), file=sys.stderr)
    return found


def table(small: dict[str, dict[str, object]], large: dict[str, dict[str, object]], entries: int) -> Table:
    """Return what each step took, and its memory beside that of a tenth of the entries."""
    shown = Table("step", "wall s", "ms an entry", "MiB", "times that of a tenth", "MiB of all processes", "also")
    for name, row in large.items():
        wall, main, every = (float(str(row.get(key, 0))) for key in ("wall_s", "main_mib", "all_mib"))
        tenth = float(str(small[name].get("main_mib", 0)))
        rest = {key: value for key, value in row.items() if key not in ("wall_s", "main_mib", "all_mib")}
        ratio = f"{main / tenth:.2f}" if tenth else ""
        also = ", ".join(f"{key} {value}" for key, value in rest.items())
        shown.add_row(name, f"{wall:.1f}", f"{1000 * wall / entries:.2f}", f"{main:.0f}", ratio, f"{every:.0f}", also)
    return shown


def main() -> None:
    """Print the table, and write everything as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--folder", type=Path, help="where the corpus is written and kept; temporary by default")
    parser.add_argument("--step", choices=("index", "epoch"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps({"index": open_index, "epoch": epoch}[arguments.step](arguments.folder)))
        return
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="corpus-"))
    try:
        small = run(folder / "tenth", max(arguments.entries // 10, 20), arguments.jobs)
        large = run(folder / "whole", arguments.entries, arguments.jobs)
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder)
    Console(width=160).print(table(small, large, arguments.entries))
    if arguments.output:
        arguments.output.write_text(json.dumps({"tenth": small, "whole": large}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
