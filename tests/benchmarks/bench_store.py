"""Random 96^3 crops: the volume store beside the published recipe, on one synthetic volume.

    python tests/benchmarks/bench_store.py [--edge 300] [--times 20]

The published loader keeps a float32 ``.pt`` a volume, loads all of it and cuts eight crops with
``RandCropByPosNegLabeld``, the image being its own label, 6 around its bright voxels to 2 elsewhere. Both
recipes read from a warm page cache with one thread; the ratios are of medians in this one run.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from monai.transforms import RandCropByPosNegLabeld
from scipy import ndimage

from monai_ext.base import window_hu
from monai_ext.transforms import RandStoreCrop
from monai_ext.volumes import find_body
from monai_ext.volumes.store_write import NewVolume, write_volume

CROP = (96, 96, 96)
CROPS_A_LOAD = 8
WINDOW_HU = (-175, 250)


def synthetic(edge: int) -> np.ndarray:
    """A body of smooth tissue with the noise of a CT scan, in air; ``(edge,) * 3`` int16 HU."""
    rng = np.random.default_rng(0)
    tissue = ndimage.zoom(rng.normal(40, 60, (-(-edge // 20),) * 3), 20, order=1)[:edge, :edge, :edge]
    x, y = np.meshgrid(*[np.linspace(-1, 1, edge)] * 2, indexing="ij")
    body = ((x / 0.85) ** 2 + (y / 0.65) ** 2 < 1)[:, :, None]
    hu = np.where(body, tissue + rng.normal(0, 12, tissue.shape), -1000 + rng.normal(0, 6, tissue.shape))
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)


def medians_ms(works: Sequence[Callable[[], object]], times: int) -> np.ndarray:
    """Return for each call its median wall and processor time in milliseconds, the first one not counted.

    They take turns, so that whatever else the machine does slows each alike; processor time leaves it out.
    """
    seen = np.zeros((times + 1, len(works), 2))
    for turn in range(times + 1):
        for number, work in enumerate(works):
            start = time.perf_counter(), time.process_time()
            work()
            seen[turn, number] = time.perf_counter() - start[0], time.process_time() - start[1]
    return np.median(seen[1:], axis=0) * 1e3


def bench(edge: int, loads: int, folder: Path) -> dict[str, object]:
    """Time both recipes, as [wall, processor] time, and weigh their files."""
    hu = synthetic(edge)
    spacing = (1.5, 1.5, 1.5)
    volume = NewVolume(
        id="volume",
        hu=hu,
        affine=np.diag([*spacing, 1]),
        spacing_mm=spacing,
        source="volume.nii",
        source_root="",
        source_sha256="",
        source_shape=hu.shape,
        source_affine=np.eye(4),
        settings={},
        body=find_body(hu, spacing, "volume"),
    )
    start = time.perf_counter()
    write_volume(folder, volume)
    written = time.perf_counter() - start
    path = folder / "volume.pt"
    torch.save(window_hu(torch.from_numpy(hu)[None], WINDOW_HU), path)

    ours = RandStoreCrop(folder, CROP, window_hu=WINDOW_HU).set_random_state(0)
    theirs = RandCropByPosNegLabeld(["image"], "image", CROP, pos=6, neg=2, num_samples=CROPS_A_LOAD)
    theirs.set_random_state(0)
    store_ms, load_ms = medians_ms(
        [lambda: ours("volume"), lambda: theirs({"image": torch.load(path, weights_only=True)})], loads
    )
    published_ms = load_ms / CROPS_A_LOAD
    return {
        "store_ms_a_crop": store_ms.round(2).tolist(),
        "published_ms_a_crop": published_ms.round(2).tolist(),
        "times_faster": (published_ms / store_ms).round(1).tolist(),
        "store_mb": round((folder / "volume.b2nd").stat().st_size / 1e6, 1),
        "published_mb": round(path.stat().st_size / 1e6, 1),
        "write_s": round(written, 2),
    }


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edge", type=int, default=300, help="voxels along each axis of the volume")
    parser.add_argument("--times", type=int, default=20, help="how often each recipe is timed")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(bench(arguments.edge, arguments.times, Path(folder))))


if __name__ == "__main__":
    main()
