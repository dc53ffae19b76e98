"""A program that trains ends at once, whatever its loader's workers do."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import atexit, multiprocessing.util, sys, time
import torch

@atexit.register  # runs after what is registered later, but before what multiprocessing does at the end
def tell():
    for worker in workers:
        worker.join(20)
    print([worker.exitcode for worker in workers])

from monai_ext.engines import DrawDataset, DrawPlan, SupervisedLoader
from monai_ext.handlers import Quarantine

def slowly(item):
    time.sleep(600 if sys.argv[2] == "busy" and item["number"] == 3 else 0)
    return {**item, "image": torch.zeros(3)}

data = DrawDataset([{"case": f"ct_{n}", "number": n} for n in range(7)], slowly, 0)
plan = DrawPlan(7, 7, 0, shuffle=False)
loader = SupervisedLoader(data, plan, Quarantine(sys.argv[1]), 1, 2, persistent_workers=sys.argv[2] != "passing")
batches = iter(loader)
next(batches)
workers = list(loader.watch.processes)
if sys.argv[2] == "idle":
    list(batches)
"""


@pytest.mark.full
@pytest.mark.parametrize("workers", ["idle", "busy", "passing"])
def test_a_program_ends_its_workers(tmp_path: Path, workers: str) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), workers]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as program:
        try:
            said, _ = program.communicate(timeout=280)  # left to themselves, it would wait for ever
        finally:
            program.kill()
    assert (program.returncode, said) == (0, "[-9, -9]\n")
