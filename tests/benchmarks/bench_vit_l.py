"""The published size, ViT-L-14-336 at 518 x 518 pixels with random weights: seconds and memory an image on a CPU.

    python tests/benchmarks/bench_vit_l.py [--images 3] [--slices 10] [--threads 2]

Times the whole of inference on a picture (patches, maps, blur, upsampling; anchors are made once before), then slices
of a made-up CT one by one as a volume is localized, from which the time of 300 slices is extrapolated. One JSON line.
"""

import argparse
import json
import resource
import time

import numpy as np
import torch

from monai_ext.inferers import SliceLocalizer
from monai_ext.networks import AAClip, AnomalyLocalizer, PromptTable, load_clip
from monai_ext.transforms import ClipPicture

PIXELS, SLICES_OF_A_SCAN = 518, 300


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--slices", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clip = load_clip("ViT-L-14-336", None, image_size=PIXELS, activation="quick_gelu")
    localizer = AnomalyLocalizer(AAClip(clip), PromptTable.published().of_class("Liver")).eval().requires_grad_(False)
    picture = torch.randn(1, 3, PIXELS, PIXELS, generator=torch.Generator().manual_seed(0))
    localizer(picture)  # anchors, and whatever is slow only once
    seconds = []
    for _ in range(args.images):
        start = time.perf_counter()
        localizer(picture)
        seconds.append(time.perf_counter() - start)
    inferer = SliceLocalizer(ClipPicture(PIXELS, clip.mean, clip.std), batch_size=1)
    rng = np.random.default_rng(0)
    volume = torch.from_numpy(rng.integers(-1000, 400, (1, 512, 512, args.slices)).astype(np.int16))
    start = time.perf_counter()
    inferer(volume, localizer)
    a_slice = (time.perf_counter() - start) / args.slices
    print(
        json.dumps(
            {
                "threads": args.threads,
                "seconds_an_image": round(float(np.median(seconds)), 2),
                "seconds_a_slice": round(a_slice, 2),
                f"minutes_of_{SLICES_OF_A_SCAN}_slices": round(a_slice * SLICES_OF_A_SCAN / 60, 1),
                "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
