"""What the reading process costs: scans read in it and in this process by turns, as a ratio taken in one run.

    python tests/benchmarks/reading_process.py [SCAN ...]

Without scans, 300 x 300 x 300 voxels are made up as .nii and .nii.gz.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import nibabel as nib
import numpy as np

from monai_ext.volumes import end_readers, read_header, read_scan, reading_inside

TURNS = 5


def main(paths: list[Path]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = paths or made_up(Path(folder))
        start = seconds_of(lambda: read_header(paths[0]))
        print(f"first header, with the start of the process: {start:.2f} s")
        for path in paths:
            inside, outside = [], []
            for _ in range(TURNS):
                with reading_inside():
                    inside.append(seconds_of(lambda path=path: read_scan(path)))
                outside.append(seconds_of(lambda path=path: read_scan(path)))
            ratio = median(outside) / median(inside)
            name = path.name if path.is_relative_to(folder) else f"scan of {path.stat().st_size / 2**20:.0f} MiB"
            print(f"{name}: {median(inside):.3f} s inside, {median(outside):.3f} s in the process, ratio {ratio:.2f}")
        print(f"a header: {1000 * median(seconds_of(lambda: read_header(paths[0])) for _ in range(50)):.1f} ms")
    end_readers()


def made_up(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    hu = np.clip(rng.normal(-300, 400, (300, 300, 300)), -1024, 2000).astype(np.int16)
    hu[:150] = -1000
    paths = [folder / "cube.nii", folder / "cube.nii.gz"]
    for path in paths:
        nib.save(nib.Nifti1Image(hu, np.diag([1.0, 1.0, 1.0, 1.0])), path)
    return paths


def seconds_of(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main(list(map(Path, sys.argv[1:])))
