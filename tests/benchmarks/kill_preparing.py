"""SIGKILL for a preparing run and all its workers, at random moments: does the next run complete the store?

    python tests/benchmarks/kill_preparing.py 50 [--scans 40] [--seed 0] [--scheduler local]

Small phantom scans with labels are prepared from a datalist once without interruption. Then N times a store is
begun, everything is killed at a moment drawn evenly from the time that preparing takes, whatever is in the store is
verified, and the run is repeated to its end. Each time the store must equal the uninterrupted one file by file
(SHA-256), with nothing beside it. Prints one JSON line; exit code 1 if a store differed.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from monai_ext.base import StoreError, sha256_of
from monai_ext.volumes import VolumeStore, prepare, write_phantoms

# What belongs to no run: the lock file, and the index, which whoever opens the store makes anew.
NOT_COMPARED = (".lock", ".index")
SPACING_MM = (5, 5, 5)  # about that of the phantoms, so that volumes stay small and writing is much of the work


def start(datalist: Path, store: Path, *options: str) -> subprocess.Popen[bytes]:
    """Start a run in a process group of its own."""
    command = [sys.executable, "-m", "monai_ext", "prepare", str(datalist), str(store), "--workers", "2", *options]
    command += ["--spacing", *map(str, SPACING_MM)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def sums(store: Path) -> dict[str, str]:
    """Return the SHA-256 of every file, hidden ones among them."""
    return {path.name: sha256_of(path) for path in store.iterdir() if path.name not in NOT_COMPARED}


def begun(store: Path, run: subprocess.Popen[bytes]) -> float:
    """Wait until the first file is being written, and return how long that took."""
    before = time.monotonic()
    while run.poll() is None and not any(path.name != ".lock" for path in store.glob("*")):
        time.sleep(0.005)
    return time.monotonic() - before


def damaged(store: Path) -> int:
    """Count volumes that the store offers although they are not whole."""
    count = 0
    opened = VolumeStore(store) if store.is_dir() else ()
    for volume_id in opened:
        try:
            opened.verify(volume_id)  # type: ignore[union-attr]
        except StoreError:
            count += 1
    return count


def kill_once(datalist: Path, store: Path, whole: dict[str, str], after_s: float, options: list[str]) -> dict[str, int]:
    """Begin a store, kill the run some time after its first file, complete the store, and tell what became of it."""
    shutil.rmtree(store, ignore_errors=True)
    run = start(datalist, store, *options)
    begun(store, run)
    time.sleep(after_s)
    in_time = run.poll() is None
    if in_time:
        os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    kept = len(list(store.glob("*.json")))
    torn = damaged(store)
    again = prepare(datalist, store, spacing_mm=SPACING_MM, workers=0)
    differs = sums(store) != whole or again.failed
    return {"killed": int(in_time), "kept": kept, "torn": torn, "differ": int(bool(differs))}


def measure(kills: int, scans: int, seed: int, options: list[str], folder: Path) -> dict[str, object]:
    """Kill that often, and count."""
    datalist = write_phantoms(
        folder / "scans", {"training": scans}, seed=seed, shape=(64, 48, 56), spacing_mm=(6, 6, 6)
    )
    run = start(datalist, folder / "whole", *options)
    begun(folder / "whole", run)
    before = time.monotonic()
    if run.wait() != 0:
        raise SystemExit("the uninterrupted run failed")
    lasts, whole = time.monotonic() - before, sums(folder / "whole")
    moments, seen = random.Random(seed), []
    while sum(one["killed"] for one in seen) < kills and len(seen) < 3 * kills:
        seen.append(kill_once(datalist, folder / "store", whole, moments.uniform(0, lasts), options))
    return {
        "kills": sum(one["killed"] for one in seen),
        "ended_before": sum(not one["killed"] for one in seen),
        "scans": scans,
        "files": len(whole),
        "kept_at_the_kill": sorted(one["kept"] for one in seen if one["killed"]),
        "torn_volumes_offered": sum(one["torn"] for one in seen),
        "stores_that_differ": sum(one["differ"] for one in seen),
    }


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kills", type=int, help="how often a run is killed")
    parser.add_argument("--scans", type=int, default=40, help="phantoms of a store")
    parser.add_argument("--seed", type=int, default=0, help="chooses phantoms and moments")
    parser.add_argument("--scheduler", help="kill runs on dask.distributed: local")
    arguments = parser.parse_args()
    options = ["--scheduler", arguments.scheduler] if arguments.scheduler else []
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments.kills, arguments.scans, arguments.seed, options, Path(folder))
    print(json.dumps(result))
    sys.exit(1 if result["stores_that_differ"] or result["torn_volumes_offered"] else 0)


if __name__ == "__main__":
    main()
