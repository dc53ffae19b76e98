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


def test_a_resumed_epoch_counts_all_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "gather", lambda own: [own, (4.0, 2)])
    lines = HistoryLines(str(tmp_path / "history.jsonl"), None)
    lines.load_state_dict({"total": 6.0, "count": 3})
    assert lines.state_dict() == {"total": 10.0, "count": 5}
    monkeypatch.setattr(history, "rank", lambda: 1)  # what all ranks had is added once
    lines.load_state_dict({"total": 6.0, "count": 3})
    assert lines.state_dict() == {"total": 4.0, "count": 2}
