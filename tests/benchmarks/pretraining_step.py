"""A pretraining step beside the published one: samples a second, peak memory, share of the card's matrix rate.

    python tests/benchmarks/pretraining_step.py --device cpu --models tiny base_p16 --batches 4
    python tests/benchmarks/pretraining_step.py --models large_p12 --batches 8 256 --arms published off blocks network

Arms: ``published`` is the step of `plain_pretraining.py`. All others are ours, `TrainingStep` as the bundle runs it,
by its way of compiling, with ``+recompute`` blocks computed again in the backward pass, and with ``:bf16`` or
``:fp32`` the precision (the bundle's own choice if left out). A batch is on the device already: feeding is measured
elsewhere. Each row is printed as one JSON line when it is there; ratios are to ``published`` in the same run. A step's
operations are those of our network, counted by torch, whatever an arm computes beside.
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from plain_pretraining import PlainStep
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from monai_ext.engines import ReconstructionLoss, TrainingStep, make_adamw, prepare_volumes
from monai_ext.networks import HiEndMAE

Row = dict[str, Any]


def operations(model: str) -> tuple[float, int]:
    """Return the floating-point operations of one sample's forward and backward pass, and its patches."""
    with torch.device("meta"):
        network = getattr(HiEndMAE, model)()
        image = torch.empty(1, network.in_channels, *network.image_size)
        patches = network.patches(image)
        shuffle = torch.empty(1, network.tokens, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        hidden, encoded = network.encode(patches, shuffle)
        decoded = network.decode(hidden, encoded, shuffle)
        network.decoder.head(decoded[:, 1 + network.visible :]).sum().backward()
    return float(counter.get_total_flops()), network.tokens


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return the operations a second of a large product of random matrices: 8192^3 on a card, 1024^3 on a CPU."""
    size = 8192 if device.type == "cuda" else 1024
    one, two = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / times_of([lambda: one @ two], device, 20 if device.type == "cuda" else 3)[0]


def times_of(works: Sequence[Callable[[], Any]], device: torch.device, times: int, rounds: int = 3) -> list[float]:
    """Return the seconds of one call of each work: the median of rounds of ``times`` calls, after two to warm up.

    Works take turns, so that whatever else the machine does slows each alike.
    """
    seen: list[list[float]] = [[] for _ in works]
    for turn in range(rounds + 1):
        for work, seconds in zip(works, seen, strict=True):
            count = times if turn else 2
            wait_for(device)
            start = time.perf_counter()
            for _ in range(count):
                work()
            wait_for(device)
            if turn:
                seconds.append((time.perf_counter() - start) / count)
    return [statistics.median(seconds) for seconds in seen]


def wait_for(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def our_step(network: HiEndMAE, arm: str, device: torch.device) -> Callable[[Tensor], Any]:
    """Return the step of the bundle, without its loader and handlers."""
    way, _, precision = arm.partition(":")
    step = TrainingStep(precision=precision or "auto", compile=way.removesuffix("+recompute"))
    job = SimpleNamespace(
        network=network,
        optimizer=make_adamw(network, 1e-4),
        inferer=lambda image, net: net(image),
        loss_function=ReconstructionLoss(),
        prepare_batch=prepare_volumes,
        non_blocking=True,
        fire_event=lambda event: None,
        state=SimpleNamespace(iteration=0, epoch_length=10**9, device=device, output=None),
    )

    def run(image: Tensor) -> None:
        job.state.iteration += 1
        step(job, {"image": image})

    return run


def ready_step(model: str, batch: int, arm: str, device: torch.device) -> tuple[Callable[[], Any], float]:
    """Return an arm's step on a batch of its own, taken once already, and the seconds of that first time."""
    torch.manual_seed(0)
    with device:  # filled there: on a CPU it takes longer than the steps
        network = getattr(HiEndMAE, model)(recompute="+recompute" in arm)
    network.to(device).train()
    image = torch.rand(batch, 1, *network.image_size, device=device)
    step = PlainStep(network, device) if arm == "published" else our_step(network, arm, device)
    start = time.perf_counter()
    step(image)
    wait_for(device)
    return lambda: step(image), time.perf_counter() - start


def on_card(model: str, batch: int, arms: Sequence[str], device: torch.device, times: int) -> Iterator[Row]:
    """Measure arms one after the other, each alone in the card's memory."""
    for arm in arms:
        row = {"model": model, "batch": batch, "arm": arm}
        torch.compiler.reset()  # recorded graphs keep their memory until then
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        try:
            step, first = ready_step(model, batch, arm, device)
            seconds = times_of([step], device, times)[0]
        except torch.cuda.OutOfMemoryError:
            yield row | {"error": "out of memory"}
            continue
        peak = torch.cuda.max_memory_allocated(device)
        del step
        yield row | {"seconds": seconds, "first_step_s": round(first, 1), "peak_gb": round(peak / 1e9, 2)}


def on_cpu(model: str, batch: int, arms: Sequence[str], device: torch.device, times: int) -> Iterator[Row]:
    """Measure arms in turns, and the memory of each in a process of its own."""
    peaks = [peak_alone(model, batch, arm) for arm in arms]
    steps = [ready_step(model, batch, arm, device)[0] for arm in arms]
    for arm, seconds, peak in zip(arms, times_of(steps, device, times), peaks, strict=True):
        yield {"model": model, "batch": batch, "arm": arm, "seconds": seconds, "peak_gb": round(peak / 1e9, 2)}


def peak_alone(model: str, batch: int, arm: str) -> int:
    """Return the largest resident memory, in bytes, of a process that takes two steps of one arm."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_two_steps, model, batch, arm, torch.get_num_threads()).result()


def _two_steps(model: str, batch: int, arm: str, threads: int) -> int:
    torch.set_num_threads(threads)
    ready_step(model, batch, arm, torch.device("cpu"))[0]()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def tell(row: Row) -> None:
    """Print one row as soon as it is there."""
    print(json.dumps(row), flush=True)


def bench(args: argparse.Namespace) -> None:
    """Measure every arm at every size."""
    device = torch.device(args.device)
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else f"CPU, {torch.get_num_threads()} threads"
    rates = {kind: matrix_rate(device, getattr(torch, kind)) for kind in ("float32", "bfloat16")}
    tell({"device": name, "torch": torch.__version__, **{f"{k}_tflops": round(r / 1e12, 3) for k, r in rates.items()}})
    for model in args.models:
        work, tokens = operations(model)
        for batch in args.batches:
            base = None
            for row in (on_card if cuda else on_cpu)(model, batch, args.arms, device, args.times):
                if "seconds" in row:
                    seconds = row.pop("seconds")
                    base = seconds if row["arm"] == "published" else base
                    row |= {"step_ms": round(seconds * 1e3, 2), "samples_per_s": round(batch / seconds, 2)}
                    row |= {"patches_per_s": round(batch * tokens / seconds)}
                    row |= {"share_of_bf16": round(work * batch / seconds / rates["bfloat16"], 3)}
                    row |= {"times_published": round(base / seconds, 2) if base else None}
                tell(row)


def main() -> None:
    """Print one JSON line a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--models", nargs="+", default=["tiny"], help="tiny, base_p16, large_p16, large_p12")
    parser.add_argument("--batches", nargs="+", type=int, default=[4])
    parser.add_argument("--arms", nargs="+", default=["published", "off:fp32", "off:bf16"])
    parser.add_argument("--times", type=int, default=5, help="steps of a round; the median of three rounds counts")
    parser.add_argument("--threads", type=int, default=None, help="of the CPU")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    bench(args)


if __name__ == "__main__":
    main()
