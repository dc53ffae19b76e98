"""How long training waits for data: the pretraining bundle with its own loader, beside the same steps on one batch.

    python tests/benchmarks/loader_waits.py --workers 14 --batches 8 64 --compile blocks
    python tests/benchmarks/loader_waits.py --tiny --workers 1 --batches 4 --scans 2 --shape 96 80 96 --spacing 4

Phantoms are written, prepared to a store and trained on by the bundle's configuration and handlers (all but its
checkpoints and pictures). The share of waiting is the part of an iteration's time that goes when the same trainer takes
the same steps on one pinned batch. One JSON line a row.
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser

import monai_ext
from monai_ext.volumes import VolumeStore, prepare, write_phantoms

CONFIGS = Path(monai_ext.bundle_path("hi_end_mae_ct_pretrain")) / "configs"
LEFT_OUT = ("RunCheckpoints", "RunSummary", "ValidationHandler")
WARM_UP = 12  # iterations: compiling, and what the workers have ready


def _one_phantom(number: int, folder: Path, shape: tuple[int, int, int], spacing_mm: float) -> Path:
    return write_phantoms(folder / str(number), {f"s{number}": 1}, number, shape, (spacing_mm,) * 3).parent


def write_store(folder: Path, args: argparse.Namespace) -> Path:
    """Write and prepare phantoms, each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    make = partial(_one_phantom, folder=folder / "phantoms", shape=tuple(args.shape), spacing_mm=args.spacing)
    with concurrent.futures.ProcessPoolExecutor(args.writers, mp_context=context) as pool:
        list(pool.map(make, range(args.scans)))
    images = folder / "images"
    images.mkdir()
    for path in (folder / "phantoms").glob("*/images/*.nii.gz"):
        path.rename(images / path.name)
    summary = prepare(images, folder / "store", spacing_mm=(args.spacing,) * 3, workers=args.writers)
    if summary.exit_code:
        raise SystemExit(f"{summary.failed} could not be prepared")
    return folder / "store"


def trainer_of(store: Path, scans: int, folder: Path, batch: int, args: argparse.Namespace) -> ConfigParser:
    """Return the bundle's configuration, its parts built as they are asked for."""
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "train.json"), *([str(CONFIGS / "tiny.json")] if args.tiny else [])])
    draws = batch * (WARM_UP + args.iterations)
    settings = {
        "dataset_dir": str(store),
        "output_dir": str(folder / f"run_{batch}"),
        "epochs": 2,
        "warmup_epochs": 1,
        "crops_per_scan": -(-draws // (scans - 1)),
        "batch_size": batch,
        "num_workers": args.workers,
        "compile": args.compile,
    }
    parser.update(settings)
    kept = [one for one in parser["train#handlers"] if not str(one.get("_target_")).endswith(LEFT_OUT)]
    parser["train#handlers"] = kept
    return parser


class Clock:
    """Times the iterations of a trainer after its warm-up, and what the host waits for batches, then ends it."""

    def __init__(self, iterations: int) -> None:
        self.iterations, self.start, self.seconds = iterations, 0.0, 0.0
        self.asked, self.waited = 0.0, 0.0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._ask)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self._got)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._done)

    def _ask(self, _: Engine) -> None:
        self.asked = time.perf_counter()

    def _got(self, _: Engine) -> None:
        self.waited += time.perf_counter() - self.asked

    def _done(self, engine: Engine) -> None:
        if engine.state.iteration == WARM_UP:
            settled()
            self.start, self.waited = time.perf_counter(), 0.0
        if engine.state.iteration == WARM_UP + self.iterations:
            settled()
            self.seconds = (time.perf_counter() - self.start) / self.iterations
            engine.terminate()


def settled() -> None:
    """Wait for the card, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure(store: Path, scans: int, folder: Path, batch: int, args: argparse.Namespace) -> dict[str, Any]:
    """Train from the loader, then on one batch."""
    parser = trainer_of(store, scans, folder, batch, args)
    trainer = parser.get_parsed_content("train#trainer")
    loader, step = parser.get_parsed_content("train#dataloader"), parser.get_parsed_content("train#step")
    clock = Clock(args.iterations)
    clock.attach(trainer)
    kept: list[Any] = []
    trainer.add_event_handler(Events.GET_BATCH_COMPLETED(once=1), lambda engine: kept.append(engine.state.batch))
    trainer.run()
    settled()
    start = time.perf_counter()
    for _ in range(args.iterations):
        step(trainer, kept[0])
    settled()
    alone = (time.perf_counter() - start) / args.iterations
    image = kept[0]["image"]
    return {
        "batch": batch,
        "workers": loader.num_workers,
        "compile": args.compile,
        "iteration_ms": round(clock.seconds * 1e3, 2),
        "step_alone_ms": round(alone * 1e3, 2),
        "waiting_share": round(max(0.0, 1 - alone / clock.seconds), 4),
        "host_waits_ms": round(clock.waited / args.iterations * 1e3, 2),
        "samples_per_s": round(batch / clock.seconds, 1),
        "mb_a_sample": round(image[0].numel() * image.element_size() / 1e6, 2),
        "pinned": bool(torch.cuda.is_available() and image.is_pinned()),
    }


def main() -> None:
    """Print one JSON line a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", nargs="+", type=int, default=[8])
    parser.add_argument("--workers", type=int, default=14, help="of the loader")
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--compile", default="off", choices=["off", "blocks", "network", "graphs"])
    parser.add_argument("--tiny", action="store_true", help="the tiny network instead of large p12")
    parser.add_argument("--store", type=Path, default=None, help="a store that is there already, instead of phantoms")
    parser.add_argument("--scans", type=int, default=14, help="phantoms to make")
    parser.add_argument("--shape", nargs=3, type=int, default=[200, 160, 200], help="voxels of a phantom")
    parser.add_argument("--spacing", type=float, default=1.5, help="mm, of phantoms and store")
    parser.add_argument("--writers", type=int, default=14, help="processes that write and prepare phantoms")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        store = args.store or write_store(Path(folder), args)
        scans = len(VolumeStore(store))
        print(json.dumps({"scans": scans, "store_s": round(time.perf_counter() - start, 1)}), flush=True)
        for batch in args.batches:
            print(json.dumps(measure(store, scans, Path(folder), batch, args)), flush=True)


if __name__ == "__main__":
    main()
