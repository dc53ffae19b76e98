"""The lines of a run's history: means over epochs and ranks, whatever interrupts them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from monai_ext.handlers import HistoryLines, RunCheckpoints, history

LOSSES = [5.0, 1.0, 3.0, 7.0, 2.0, 11.0]


def run(folder: Path, resume: bool | str = False) -> list[dict[str, Any]]:
    network = nn.Linear(2, 3)
    engine = Engine(lambda job, batch: [{"loss": torch.tensor(LOSSES[job.state.iteration - 1])}])
    lines = HistoryLines(str(folder / "history.jsonl"), torch.optim.SGD(network.parameters(), lr=0.5))
    lines.attach(engine)
    objects = {"model": network, "history": lines}
    RunCheckpoints(str(folder / "models"), objects, every=1, keep=99, resume=resume).attach(engine)
    engine.run([0] * 3, max_epochs=2)
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def test_a_line_holds_the_mean_of_its_epoch(tmp_path: Path) -> None:
    rows = run(tmp_path)
    assert [row["train_loss"] for row in rows] == pytest.approx([3.0, 20 / 3])
    assert [(row["epoch"], row["iteration"], row["lr"]) for row in rows] == [(1, 3, 0.5), (2, 6, 0.5)]


@pytest.mark.parametrize("iteration", [1, 2, 3, 4, 5])
def test_a_resumed_run_has_the_lines_of_the_uninterrupted_one(tmp_path: Path, iteration: int) -> None:
    whole = run(tmp_path)
    # In the same folder: the lines that are written again are replaced, the earlier ones stay.
    saved = str(tmp_path / "models" / f"checkpoint_iteration={iteration}.pt")
    assert run(tmp_path, resume=saved) == whole


@pytest.mark.parametrize(("number", "own"), [(0, [6.0, 3]), (1, [4.0, 2])])
def test_each_rank_goes_on_with_its_own_losses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, own: list[float]
) -> None:
    monkeypatch.setattr(history, "gather", lambda one: [one])
    monkeypatch.setattr(history, "rank", lambda: number)
    lines = HistoryLines(str(tmp_path / "history.jsonl"), None)
    lines.load_state_dict({"ranks": [[6.0, 3], [4.0, 2]]})
    assert lines.state_dict() == {"ranks": [own]}
