"""The published size, ViT-L-14-336 at 518 x 518 pixels with random weights: a picture, and a CT volume slice by slice.

    python tests/benchmarks/bench_vit_l.py [--images 3] [--slices 10] [--threads 2]
    python tests/benchmarks/bench_vit_l.py --device cuda --precision bf16 --batch 8 --replay --slices 300

Times the whole of inference on a picture (patches, maps, blur, upsampling; anchors are made once before), then the
slices of a made-up CT as a volume is localized, all of them and with ``skip_background`` (``--air`` is the share of
slices that hold nothing). From fewer slices the time of 300 is extrapolated. One JSON line a row.
"""

import argparse
import json
import resource
import time
from typing import Any

import numpy as np
import torch
from pretraining_step import wait_for

from monai_ext.engines.precision import autocast, choose_precision
from monai_ext.inferers import SliceLocalizer
from monai_ext.networks import AAClip, AnomalyLocalizer, PromptTable, load_clip
from monai_ext.transforms import ClipPicture

PIXELS, SLICES_OF_A_SCAN = 518, 300
PLANE = 512


def volume_of(slices: int, air: float) -> torch.Tensor:
    """Return a CT of noise in HU, its last slices air: ``(1, 512, 512, slices)``, int16."""
    rng = np.random.default_rng(0)
    volume = rng.integers(-1000, 400, (1, PLANE, PLANE, slices)).astype(np.int16)
    volume[..., slices - round(air * slices) :] = -1000
    return torch.from_numpy(volume)


def volume_row(
    localizer: AnomalyLocalizer, volume: torch.Tensor, skip: bool, args: argparse.Namespace
) -> dict[str, Any]:
    """Localize in the volume once, after its first slices to warm up."""
    device, slices = torch.device(args.device), volume.shape[-1]
    clip = localizer.model.clip
    inferer = SliceLocalizer(ClipPicture(PIXELS, clip.mean, clip.std), batch_size=args.batch, skip_background=skip)
    with torch.inference_mode(), autocast(choose_precision(args.precision, device), device):
        inferer(volume[..., : args.batch], localizer, device=device)
        wait_for(device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        start = time.perf_counter()
        found = inferer(volume, localizer, device=device)
        seconds = time.perf_counter() - start
    row = {"slices": slices, "skipped": found.skipped, "skip_background": skip, "seconds": round(seconds, 2)}
    row |= {f"minutes_of_{SLICES_OF_A_SCAN}_slices": round(seconds / slices * SLICES_OF_A_SCAN / 60, 3)}
    row |= {"volumes_per_minute": round(60 * slices / SLICES_OF_A_SCAN / seconds, 2)}
    return row | {"peak_gb": round(peak(device) / 1e9, 2), "host_peak_gb": round(peak(torch.device("cpu")) / 1e9, 2)}


def peak(device: torch.device) -> int:
    """Return the most memory that this process has taken, in bytes: of the card, or resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Print one JSON line a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--slices", type=int, default=10)
    parser.add_argument("--air", type=float, default=0.3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--replay", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    with device:  # filled there: on a CPU it takes longer
        clip = load_clip("ViT-L-14-336", None, image_size=PIXELS, activation="quick_gelu")
    prompts = PromptTable.published().of_class("Liver")
    localizer = AnomalyLocalizer(AAClip(clip), prompts, replay=args.replay).eval().requires_grad_(False).to(device)
    picture = torch.randn(1, 3, PIXELS, PIXELS, generator=torch.Generator().manual_seed(0)).to(device)
    seconds = []
    with torch.inference_mode(), autocast(choose_precision(args.precision, device), device):
        for turn in range(args.images + 1):
            start = time.perf_counter()
            localizer(picture)
            wait_for(device)
            if turn:  # first come anchors, and whatever is slow only once
                seconds.append(time.perf_counter() - start)
    about = {"device": args.device, "precision": args.precision, "batch": args.batch, "replay": args.replay}
    about |= {"threads": args.threads} if device.type == "cpu" else {}
    print(json.dumps({**about, "seconds_an_image": round(float(np.median(seconds)), 4)}), flush=True)
    volume = volume_of(args.slices, args.air)
    for skip in (False, True):
        print(json.dumps({**about, **volume_row(localizer, volume, skip, args)}), flush=True)


if __name__ == "__main__":
    main()
