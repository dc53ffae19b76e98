"""What the coarse decoder of the demonstration's segmenter saves: one training step beside that of the full grid.

    python tests/benchmarks/bench_tiny_step.py [--times 10]

The demonstration decodes on every second voxel, so that its time suffices. Both networks have the sizes of the
bundle's ``tiny.json`` and step on the same two crops with one thread, in turns; the ratio is of medians in this
one run.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from monai.bundle import ConfigParser
from torch import nn

import monai_ext

CONFIGS = Path(monai_ext.bundle_path("hi_end_mae_ct_segmentation")) / "configs"


def segmenter(decoder_stride: int) -> nn.Module:
    """Return the network of the demonstration, with its decoder on a grid of that stride."""
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "train.json"), str(CONFIGS / "tiny.json")])
    parser["network_def#decoder_stride"] = decoder_stride
    network: nn.Module = parser.get_parsed_content("network_def")
    return network


def step_s(network: nn.Module, image: torch.Tensor) -> float:
    """Return the seconds of one forward and backward pass."""
    start = time.perf_counter()
    network(image).square().mean().backward()
    return time.perf_counter() - start


def bench(times: int) -> dict[str, float]:
    """Time both networks in turns, so that other load slows each alike; the first turn is not counted."""
    torch.manual_seed(0)
    image = torch.rand(2, 1, 48, 48, 48)
    networks = [segmenter(2), segmenter(1)]
    seen = [[step_s(network, image) for network in networks] for _ in range(times + 1)][1:]
    coarse, fine = np.median(seen, axis=0)
    return {"coarse_s": round(coarse, 3), "full_grid_s": round(fine, 3), "times_cheaper": round(fine / coarse, 1)}


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=10, help="how often each network is timed")
    torch.set_num_threads(1)
    print(json.dumps(bench(parser.parse_args().times)))


if __name__ == "__main__":
    main()
