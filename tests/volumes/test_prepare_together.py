"""Several runs on one store, at the same scans at the same time; and a disk that is full."""

import json
import os
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_ext.volumes import VolumeStore, prepare
from monai_ext.volumes.store_lock import locked

SHAPE = (23, 19, 17)
# A run as another person starts it, which tells how many scans it prepared and which failed.
RUN = """
import json, sys
from monai_ext.volumes import prepare
summary = prepare(sys.argv[1], sys.argv[2], workers=int(sys.argv[3]), spacing_mm=(1.5, 1.5, 1.5))
print(json.dumps([summary.done, summary.skipped, [item.reason for item in summary.failed]]))
"""


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    (tmp_path / "scans").mkdir()
    for number in range(30):
        hu = np.full(SHAPE, -1000.0)
        hu[4:19, 3:16, 2:15] = 40
        hu = np.rint(hu + np.random.default_rng(number).normal(0, 8, SHAPE)).astype(np.int16)
        image = nib.Nifti1Image(hu, np.diag([3.0, 3.0, 3.0, 1]))
        image.header.set_xyzt_units("mm")
        nib.save(image, tmp_path / "scans" / f"ct_{number:02}.nii.gz")
    return tmp_path / "scans"


def start(scans: Path, store: Path, workers: int = 0) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", RUN, str(scans), str(store), str(workers)], stdout=subprocess.PIPE)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def test_three_runs_share_the_work_and_damage_nothing(scans, tmp_path):
    whole = prepare(scans, tmp_path / "whole", workers=0)
    runs = [start(scans, tmp_path / "store", workers) for workers in (0, 0, 2)]
    done: list[str] = []
    for run in runs:
        output = run.communicate(timeout=120)[0]
        assert run.returncode == 0
        prepared, skipped, failed = json.loads(output)
        assert failed == []
        assert sorted(prepared + skipped) == whole.done  # each run ends with all of them in the store
        done += prepared
    assert sorted(done) == whole.done  # and no scan was prepared twice
    assert files(tmp_path / "store") == files(tmp_path / "whole")


def test_scan_that_another_run_is_at_comes_last(scans, tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    with ThreadPoolExecutor(1) as other, locked(store, "ct_03"):
        mine = other.submit(prepare, scans, store, workers=0, spacing_mm=(3, 3, 3))
        while len({path.name for path in store.glob("[!.]*.json")}) < 29:  # a listing may name one twice
            assert not mine.done()
        assert not (store / "ct_03.json").exists()
        held = VolumeStore(store).ids
    assert len(held) == 29
    assert len(mine.result().done) == 30


def test_threads_of_one_process_lock_each_other_out(tmp_path):
    """As in a dask worker of many threads; locks of lockf would be shared, and all lost when one is given back."""
    with locked(tmp_path, "a") as first, ThreadPoolExecutor(1) as other:

        def try_both() -> list[bool | None]:
            found = []
            for volume_id in ("b", "a", "b", "a"):
                with locked(tmp_path, volume_id, wait=False) as free:
                    found.append(free)
            return found

        assert first is True
        assert other.submit(try_both).result() == [True, False, True, False]


@pytest.mark.parametrize("workers", [0, 1])
def test_full_disk_is_told_and_leaves_no_half_volume(scans, tmp_path, workers):
    """A limit of the file size stands for a disk that takes the small volumes and not the large one."""
    for path in sorted(scans.iterdir())[5:]:
        path.unlink()
    rng = np.random.default_rng(99)
    image = nib.Nifti1Image(rng.integers(-1024, 500, (61, 67, 71)).astype(np.int16), np.diag([3.0, 3.0, 3.0, 1]))
    image.header.set_xyzt_units("mm")
    nib.save(image, scans / "large.nii.gz")
    limited = RUN.replace("import json", "import resource, json").replace(
        "summary =", "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\nsummary =", 1
    )
    run = subprocess.run(
        [sys.executable, "-c", limited, str(scans), str(tmp_path / "store"), str(workers)],
        capture_output=True,
        timeout=120,
        check=True,
        # Voxels come from the reading process through a file in memory, which such a limit would meet first.
        env={**os.environ, "MONAI_EXT_READ_INSIDE": "1"},
    )
    done, _, failed = json.loads(run.stdout)
    assert len(done) == 5
    (reason,) = failed
    assert reason.startswith(
        "large.b2nd: could not be written (File too large); free space or choose a writable output"
    )
    assert len(files(tmp_path / "store")) == 10
    assert prepare(scans, tmp_path / "store", workers=0).done == ["large"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY  # ours was not meant
