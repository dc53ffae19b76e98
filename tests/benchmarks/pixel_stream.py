"""Pixel AUROC, average precision and AUPRO over 10,000 maps, streamed with a small exact part, beside the exact ones.

    python tests/benchmarks/pixel_stream.py [--images 10000] [--side 48] [--exact 2000000]

Smooth noise with a blob on every second image; later images are brighter, so that they differ from those whose
quantiles made the histogram. One JSON line: what both found, their difference, the bound that is stated, and the
memory that the streamed one kept at its largest.
"""

import argparse
import json
import time
import tracemalloc
from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from monai_ext.metrics.pixel_scores import PixelScores

MEASURES = ("auroc", "average_precision", "aupro")
BATCH = 50


def images(count: int, side: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Draw batches of maps, float32, and masks, ``(b, side, side)``; the same at each call."""
    rng = np.random.default_rng(0)
    rows, columns = np.ogrid[:side, :side]
    for start in range(0, count, BATCH):
        maps = ndimage.gaussian_filter(rng.standard_normal((BATCH, side, side)), (0, 1.5, 1.5)) + start / count
        masks = np.zeros(maps.shape, np.uint8)
        for number in range(0, BATCH, 2):
            row, column = rng.integers(5, side - 5, 2)
            masks[number] = (rows - row) ** 2 + (columns - column) ** 2 < rng.integers(4, 25)
        yield (maps + 0.4 * masks).astype(np.float32), masks


def measured(count: int, side: int, limit: int) -> tuple[dict[str, tuple[float, float]], float, float]:
    """Return value and bound of each measure, the peak of what was allocated in MB, and seconds."""
    tracemalloc.start()
    start = time.perf_counter()
    scores = PixelScores(exact_limit=limit)
    for maps, masks in images(count, side):
        scores.update(maps, masks)
    result = scores.compute()
    seconds, peak = time.perf_counter() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    found = {name: (getattr(result, name).value, getattr(result, name).bound) for name in MEASURES}
    return found, peak / 1e6, seconds


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=48)
    parser.add_argument("--exact", type=int, default=2_000_000, help="pixels kept one by one by the streamed one")
    args = parser.parse_args()
    exact, exact_mb, exact_s = measured(args.images, args.side, 10**9)
    streamed, mb, seconds = measured(args.images, args.side, args.exact)
    row = {"images": args.images, "pixels": args.images * args.side**2, "exact_limit": args.exact}
    row |= {"exact_mb": round(exact_mb), "streamed_mb": round(mb), "exact_s": round(exact_s, 1), "s": round(seconds, 1)}
    for name in MEASURES:
        value, bound = streamed[name]
        row[name] = {"exact": round(exact[name][0], 6), "error": abs(value - exact[name][0]), "bound": bound}
    print(json.dumps(row))


if __name__ == "__main__":
    main()
