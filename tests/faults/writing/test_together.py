"""Three processes on one store at once: one adds volumes, one reads them, one opens and verifies the store."""

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from monai_ext.volumes import VolumeStore, verify_store


@pytest.mark.parametrize("count", [12, pytest.param(75, marks=pytest.mark.full)])
def test_adding_reading_and_verifying(
    tmp_path: Path, count: int, add_volume: Callable[..., None], record: Callable[..., None]
) -> None:
    store = tmp_path / "store"
    add_volume(store, "v0", 0)
    names = [f"v{seed}" for seed in range(count)]

    def meant(name: str) -> np.ndarray:
        hu = np.random.default_rng(int(name[1:])).integers(-1024, 3072, (37, 41, 29))  # as add_volume draws it
        return hu.astype(np.int16)

    def add() -> None:
        for seed, name in enumerate(names[1:], 1):
            add_volume(store, name, seed)

    def read() -> None:
        seen: set[str] = set()
        while len(seen) < count:
            opened = VolumeStore(store)
            for name in set(opened) - seen:
                if not np.array_equal(opened.volume(name), meant(name)):
                    os._exit(7)
                seen.add(name)

    def verify() -> None:
        while len(VolumeStore(store)) < count:
            # Data without a sidecar are a volume that is being added; anything else would be damage.
            if any(damage.code != "no_sidecar" for damage in verify_store(store, workers=1).damages):
                os._exit(7)

    processes = [multiprocessing.get_context("fork").Process(target=work) for work in (add, read, verify)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
        ended = {None: "hung", 0: "passed", 7: "silent"}.get(process.exitcode, "crashed")
        if ended == "hung":
            process.kill()
        record("three processes on one store", f"{count} volumes, process {processes.index(process)}", ended)
    assert not record.bad
    assert sorted(VolumeStore(store)) == sorted(names)
    assert not verify_store(store, workers=1).damages
