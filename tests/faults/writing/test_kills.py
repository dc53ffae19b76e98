"""SIGKILL at random moments of writing: no torn file is ever offered, and the repeated run ends as an unharmed one."""

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from monai_ext.base import remove_leftovers, verify_digest
from monai_ext.networks.checkpoints import open_checkpoint, write_checkpoint
from monai_ext.outputs import LabelMapWriter
from monai_ext.volumes import PrepareSummary, VolumeStore, prepare, read_labels, verify_store, write_phantoms
from monai_ext.volumes.reading_limits import reading_inside

kills = pytest.mark.parametrize("count", [3, pytest.param(50, marks=pytest.mark.full)])
CASES = [f"ct_{number}" for number in range(4)]


def killed(work: Callable[[], None], after_s: float, begun: Callable[[], bool]) -> bool:
    """Do work in a process, kill it some time after it began; tell whether it was still at it."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    while process.is_alive() and not begun():
        time.sleep(0.0005)
    time.sleep(after_s)
    in_time = process.is_alive()
    if in_time:
        os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    return in_time


def killed_at_work(root: Path, count: int, seed: int, lasts: float, work: Callable[[Path], None]) -> Iterator[Path]:
    """Yield the folders of so many runs that a kill met at their work; some end before it comes."""
    dice, done = random.Random(seed), 0
    for number in range(3 * count):
        folder = root / str(number)
        if killed(partial(work, folder), dice.uniform(0, lasts), folder.exists):
            done += 1
            yield folder
        if done == count:
            break
    assert done == count


def took(work: Callable[[], None]) -> float:
    before = time.monotonic()
    work()
    return time.monotonic() - before


def left_behind(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".writing-*")]


@kills
def test_weights(tmp_path: Path, count: int, record: Callable[..., None]) -> None:
    def save(path: Path, version: int) -> None:
        write_checkpoint({name: torch.full((20_000,), float(version)) for name in ("first", "second")}, path)

    def work(folder: Path) -> None:
        for version in range(5):
            save(folder / "model.pt", version)

    lasts = took(lambda: save(tmp_path / "whole" / "model.pt", 1))
    save(tmp_path / "nine" / "model.pt", 9)
    for folder in killed_at_work(tmp_path, count, 1, 5 * lasts, work):
        path = folder / "model.pt"
        outcome, reason = "passed", ""
        try:
            if path.exists():
                values = torch.cat([*open_checkpoint(path).tensors.values()]).unique()
                outcome = "passed" if len(values) == 1 else "torn"
            save(path, 9)
            remove_leftovers(folder)
            same = path.read_bytes() == (tmp_path / "nine" / "model.pt").read_bytes()
            if not same or not verify_digest(path) or len(list(folder.iterdir())) != 2:
                outcome, reason = "lost", str(os.listdir(folder))
        except ValueError as error:
            outcome, reason = "torn", str(error)
        record("SIGKILL while writing weights", folder.name, outcome, reason)
    assert not record.bad


@kills
def test_store(tmp_path: Path, count: int, add_volume: Callable[..., None], record: Callable[..., None]) -> None:
    def fill(folder: Path) -> None:
        for seed, name in enumerate(CASES):
            add_volume(folder, name, seed)

    def content(folder: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in (".lock", ".index")}

    lasts = took(lambda: fill(tmp_path / "whole"))
    for folder in killed_at_work(tmp_path, count, 2, lasts, fill):
        outcome, reason = "passed", ""
        try:
            store = VolumeStore(folder)
            for name in store:
                store.verify(name)
        except ValueError as error:
            outcome, reason = "torn", str(error)
        fill(folder)
        remove_leftovers(folder)
        if content(folder) != content(tmp_path / "whole") or verify_store(folder, workers=1).damages:
            outcome, reason = "lost", str(os.listdir(folder))
        record("SIGKILL while writing a store", folder.name, outcome, reason)
    assert not record.bad


@pytest.mark.full
@kills
def test_preparing(tmp_path: Path, count: int, record: Callable[..., None]) -> None:
    """A kill anywhere between the first look at a scan and the last sidecar; the second run does the rest."""
    edges = (24.0, 24.0, 30.0)
    write_phantoms(tmp_path / "scans", {"training": 4}, seed=3, shape=(16, 14, 12), spacing_mm=edges)

    def fill(folder: Path) -> PrepareSummary:
        with reading_inside():  # a process to parse them would take most of the time, and writes nothing
            return prepare(tmp_path / "scans" / "dataset.json", folder, spacing_mm=edges, workers=0)

    def content(folder: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in (".lock", ".index")}

    lasts = took(lambda: fill(tmp_path / "whole"))
    states = set()
    for folder in killed_at_work(tmp_path, count, 4, lasts, fill):
        outcome, reason = "passed", ""
        try:
            store = VolumeStore(folder)
            for name in store:
                store.verify(name)
            states.add(len(store))
        except ValueError as error:
            outcome, reason = "torn", str(error)
        done = fill(folder)
        remove_leftovers(folder)
        if done.exit_code or content(folder) != content(tmp_path / "whole"):
            outcome, reason = "lost", str(os.listdir(folder))
        record("SIGKILL while preparing", folder.name, outcome, reason)
    assert not record.bad
    assert count < 50 or len(states) > 2, "kills that all came at one place would prove little"


@kills
def test_inference(tmp_path: Path, count: int, faults: SimpleNamespace, record: Callable[..., None]) -> None:
    """The files of four scans, written as inference does; each that is there under its name is whole."""

    def infer(folder: Path) -> None:
        writer = LabelMapWriter("pred", folder, faults.names)
        for number, case in enumerate(CASES):
            writer({"pred": faults.scan(torch.as_tensor(faults.labels(number)[None]), case)})
            faults.writers["localization"](folder / f"lesions_{case}", number)

    lasts = took(lambda: infer(tmp_path / "whole"))
    whole = faults.content(tmp_path / "whole")
    for folder in killed_at_work(tmp_path, count, 3, lasts, infer):
        outcome, reason = "passed", ""
        there = {name: data for name, data in faults.content(folder).items() if ".writing-" not in name}
        if any(whole[name] != data for name, data in there.items()):
            outcome, reason = "torn", ""
        for number, case in enumerate(CASES):
            path = folder / case / f"{case}_seg.nii.gz"
            if path.exists() and not np.array_equal(read_labels(path).voxels, faults.labels(number)):
                outcome, reason = "torn", path.name
        try:
            infer(folder)
        except ValueError as error:
            outcome, reason = "lost", str(error)
        for place in {folder, *(path for path in folder.rglob("*") if path.is_dir())}:
            remove_leftovers(place)
        if faults.content(folder) != whole:
            outcome, reason = "lost", str(left_behind(folder))
        record("SIGKILL while writing results", folder.name, outcome, reason)
    assert not record.bad
