"""AA-CLIP beside its published forward pass and step: images a second, peak memory, how far half precision strays.

    python tests/benchmarks/aa_clip_step.py --device cpu --batches 1 --threads 2
    python tests/benchmarks/aa_clip_step.py --batches 1 8 32

ViT-L-14-336 at 518 x 518 pixels with random weights, or ``--small`` for a trial. Arms: ``published`` is
`plain_aa_clip.py` in float32; ``fp32`` and ``bf16`` are ours, and ``+replay`` behind them has a card replay recorded
passes, as the bundle does; ``stage2:...`` is a training step of batch 1. Anchors are made before, and the time that
they take stands in a row of its own, fresh and remembered. Each row is one JSON line; ratios are to ``published`` in
the same run. ``map_error`` is the largest difference of maps from float32, in standard deviations of that map;
``map_mean_error`` the mean one.
"""

import argparse
import concurrent.futures
import functools
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from plain_aa_clip import PlainStage2, plain_maps
from pretraining_step import Row, tell, times_of, wait_for
from torch import Tensor

from monai_ext.engines import StageLoss, StageNetwork, TrainingStep
from monai_ext.engines.precision import autocast, choose_precision
from monai_ext.networks import AAClip, AnomalyLocalizer, PromptTable, load_clip

SMALL = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 112, "layers": 4, "width": 64, "head_width": 16, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 4},
}


def localizer_of(small: bool, device: torch.device) -> AnomalyLocalizer:
    """Return a localizer for the liver with random weights, the same at each call."""
    torch.manual_seed(0)
    with device:  # filled there: on a CPU it takes longer than the steps
        architecture, size = (SMALL, None) if small else ("ViT-L-14-336", 518)
        model = AAClip(load_clip(architecture, None, image_size=size, activation="quick_gelu"))
    return AnomalyLocalizer(model, PromptTable.published().of_class("Liver")).eval().to(device)


def pictures(localizer: AnomalyLocalizer, batch: int, device: torch.device) -> Tensor:
    """Return random pictures, the same at each call: ``(b, 3, h, w)``."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, *localizer.model.clip.image_size, generator=generator).to(device)


@functools.cache
def replaying(localizer: AnomalyLocalizer) -> AnomalyLocalizer:
    """Return a localizer on the same model that replays recorded passes."""
    return AnomalyLocalizer(localizer.model, localizer.prompts, replay=True).eval()


def forward(localizer: AnomalyLocalizer, arm: str, images: Tensor) -> Tensor:
    """Return maps of anomaly ``(b, 1, h, w)`` as an arm makes them."""
    precision, _, replay = arm.partition("+")
    if replay:
        localizer = replaying(localizer)
    if arm == "published":
        return plain_maps(localizer.model, images, localizer.anchors(), localizer.maps)
    with torch.inference_mode(), autocast(choose_precision(precision, images.device), images.device):
        return localizer(images)


def training_step(localizer: AnomalyLocalizer, arm: str, images: Tensor) -> Callable[[], Any]:
    """Return a step of stage 2 as an arm takes it."""
    model = localizer.model
    mask = torch.zeros(len(images), 1, *images.shape[2:], device=images.device)
    mask[..., :50, :50] = 1
    labels = torch.ones(len(images), device=images.device)
    if arm == "published":
        with torch.no_grad():
            anchors = model.anchors([localizer.prompts] * len(images))
        return partial(PlainStage2(model, anchors), images, mask, labels)
    precision, _, replay = arm.partition("+")
    network = StageNetwork(model, 2, bool(replay))
    step = TrainingStep(precision=precision)
    batch = {"image": images, "prompts": [localizer.prompts] * len(images)}
    job = SimpleNamespace(
        network=network,
        optimizer=torch.optim.Adam(model.adapters.image_adapter.parameters(), lr=5e-4, betas=(0.5, 0.999)),
        inferer=lambda image, net: net(image),
        loss_function=StageLoss(2),
        prepare_batch=lambda given, *_: (given, {"mask": mask, "label": labels}),
        non_blocking=True,
        fire_event=lambda event: None,
        state=SimpleNamespace(iteration=0, epoch_length=10**9, device=images.device, output=None),
    )

    def run() -> None:
        job.state.iteration += 1
        step(job, batch)

    return run


def work_of(localizer: AnomalyLocalizer, arm: str, images: Tensor) -> Callable[[], Any]:
    """Return what an arm does once; ``stage2:`` before its name trains."""
    if arm.startswith("stage2:"):
        localizer.model.clip.visual.requires_grad_(False)
        localizer.zero_grad()
        return training_step(localizer, arm.removeprefix("stage2:"), images)
    return partial(forward, localizer, arm, images)


def measured(localizer: AnomalyLocalizer, arms: Sequence[str], batch: int, args: argparse.Namespace) -> Iterator[Row]:
    """Measure arms in turns on a CPU, with the memory of each alone; one by one where they train or on a card."""
    device = torch.device(args.device)
    images = pictures(localizer, batch, device)
    if device.type == "cpu":
        peaks = [_peak_alone(args.small, batch, arm) for arm in arms]
    if device.type == "cpu" and not arms[0].startswith("stage2:"):
        found = times_of([work_of(localizer, arm, images) for arm in arms], device, args.times)
        for arm, seconds, peak in zip(arms, found, peaks, strict=True):
            yield {"arm": arm, "batch": batch, "seconds": seconds, "peak_gb": round(peak / 1e9, 2)}
        return
    for number, arm in enumerate(arms):
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        try:
            seconds = times_of([work_of(localizer, arm, images)], device, args.times)[0]
        except torch.cuda.OutOfMemoryError:
            yield {"arm": arm, "batch": batch, "error": "out of memory"}
            continue
        peak = peaks[number] if device.type == "cpu" else torch.cuda.max_memory_allocated(device)
        yield {"arm": arm, "batch": batch, "seconds": seconds, "peak_gb": round(peak / 1e9, 2)}


def strays(localizer: AnomalyLocalizer, arms: Sequence[str], device: torch.device) -> Row:
    """Compare maps of each arm with those of our float32, for one picture."""
    images = pictures(localizer, 1, device)
    exact = forward(localizer, "fp32", images).double()
    row: Row = {}
    for arm in arms:
        far = (forward(localizer, arm, images).double() - exact).abs() / exact.std()
        row[arm] = {"map_error": float(f"{far.max():.3g}"), "map_mean_error": float(f"{far.mean():.3g}")}
    return {"compared_with_fp32": row}


def anchor_times(localizer: AnomalyLocalizer, device: torch.device) -> Row:
    """Time anchors made for the first time, and remembered."""
    seen = []
    for _ in range(2):
        wait_for(device)
        start = time.perf_counter()
        localizer.anchors()
        wait_for(device)
        seen.append(round((time.perf_counter() - start) * 1e3, 2))
    return {"anchors_first_ms": seen[0], "anchors_again_ms": seen[1]}


def _peak_alone(small: bool, batch: int, arm: str) -> int:
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_once, small, batch, arm, torch.get_num_threads()).result()


def _once(small: bool, batch: int, arm: str, threads: int) -> int:
    torch.set_num_threads(threads)
    localizer = localizer_of(small, torch.device("cpu"))
    work_of(localizer, arm, pictures(localizer, batch, torch.device("cpu")))()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def bench(args: argparse.Namespace) -> None:
    """Measure every arm at every size."""
    device = torch.device(args.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    tell({"device": name, "torch": torch.__version__, "small": args.small})
    localizer = localizer_of(args.small, device)
    tell(anchor_times(localizer, device))
    tell(strays(localizer, args.arms, device))
    sets = [(args.arms, batch) for batch in args.batches]
    sets += [([f"stage2:{arm}" for arm in args.arms], 1)] if args.stage2 else []
    for arms, batch in sets:
        base = None
        for row in measured(localizer, arms, batch, args):
            if "seconds" in row:
                seconds = row.pop("seconds")
                base = seconds if row["arm"].endswith("published") else base
                row |= {"step_ms": round(seconds * 1e3, 2), "images_per_s": round(batch / seconds, 2)}
                row |= {"times_published": round(base / seconds, 2) if base else None}
            tell(row)


def main() -> None:
    """Print one JSON line a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batches", nargs="+", type=int, default=[1])
    parser.add_argument("--arms", nargs="+", default=["published", "fp32", "bf16"])
    parser.add_argument("--stage2", action=argparse.BooleanOptionalAction, default=True, help="time training too")
    parser.add_argument("--small", action="store_true", help="a toy CLIP instead of ViT-L-14-336")
    parser.add_argument("--times", type=int, default=3, help="calls of a round; the median of three rounds counts")
    parser.add_argument("--threads", type=int, default=None, help="of the CPU")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    bench(args)


if __name__ == "__main__":
    main()
