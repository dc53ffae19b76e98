"""Memory over several volumes in a row: what one took is given back before the next."""

import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow

BUNDLE = "aa_clip_lesion_localization"
Run = Callable[..., ConfigWorkflow]


class Watch:
    """Resident memory in bytes after each case."""

    def __init__(self) -> None:
        self.after: list[int] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
        self.after.append(pages * os.sysconf("SC_PAGE_SIZE"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("shape", "count"), [((150, 140, 90), 6), pytest.param((512, 512, 300), 2, marks=pytest.mark.full)]
)
def test_volumes_in_a_row_do_not_add_up(
    run_flow: Run, tiny: dict[str, Any], write_noise: Callable[..., None], tmp_path: Path, shape: Any, count: int
) -> None:
    (tmp_path / "in").mkdir()
    for number in range(count):
        write_noise(tmp_path / "in" / f"ct{number}.nii", shape, number)
    watch = Watch()
    settings = {**tiny, "dataset_dir": str(tmp_path / "in"), "output_dir": str(tmp_path / "out"), "threshold": 9.0}
    run_flow(BUNDLE, ["inference"], False, {**settings, "handlers": [watch], "overlay": False, "batch_size": 4})
    one = 4 * float(np.prod(shape))  # bytes of the volume as float32
    assert len(watch.after) == count
    # The mean over the cases after the second, where the steady state begins: the allocator, which other tests share,
    # may still grow once by about a small volume.
    first = min(1, count - 2)
    growth = (watch.after[-1] - watch.after[first]) / (count - 1 - first)
    assert growth < 0.5 * one, f"{growth / 1e6:.0f} MB more a case, a volume has {one / 1e6:.0f} MB"
    if one > 3e8:
        # Besides what Python, torch and the CLIP take: image, map, what is compressed and what is re-read.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        assert peak < 1.5e9 + 8 * one, f"{peak / 1e6:.0f} MB at most"
        print(f"peak {peak / 1e6:.0f} MB, after each case {[value // 10**6 for value in watch.after]} MB")
