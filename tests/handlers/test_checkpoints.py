"""Checkpoints that refuse what would go wrong quietly."""

import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from monai_ext.base import RunError, SettingError, WeightsError, WriteError
from monai_ext.base.run_folders import RUN_LOCK
from monai_ext.engines import WarmupCosine, run_training
from monai_ext.handlers import BestModel, RunCheckpoints, RunProvenance


def trainer() -> Engine:
    return Engine(lambda engine, batch: None)


def run(folder: Path, network: nn.Module, epochs: int = 2, length: int = 5, **more: Any) -> Engine:
    engine = trainer()
    RunCheckpoints(str(folder), {"model": network}, every=2, keep=99, **more).attach(engine)
    engine.run([0] * length, max_epochs=epochs)
    return engine


def saved(folder: Path) -> list[int]:
    return sorted(int(path.stem.split("=")[1]) for path in folder.glob("*.pt"))


def test_every_second_iteration_and_the_end_are_saved(tmp_path: Path) -> None:
    run(tmp_path, nn.Linear(2, 3))
    assert saved(tmp_path) == [2, 4, 6, 8, 10]


@pytest.mark.parametrize("start", [4, 6])
def test_resuming_goes_on_at_the_next_iteration(tmp_path: Path, start: int) -> None:
    run(tmp_path / "a", nn.Linear(2, 3))
    source = str(tmp_path / "a" / f"checkpoint_iteration={start}.pt")
    engine = run(tmp_path / "b", nn.Linear(2, 3), resume=source)
    assert (engine.state.iteration, engine.state.epoch) == (10, 2)
    assert saved(tmp_path / "b") == [number for number in (2, 4, 6, 8, 10) if number > start]


def test_another_epoch_length_is_refused(tmp_path: Path) -> None:
    run(tmp_path, nn.Linear(2, 3))
    with pytest.raises(SettingError, match="written with 5 iterations an epoch and this run has 7"):
        run(tmp_path, nn.Linear(2, 3), epochs=3, length=7, resume=True)


@pytest.mark.parametrize(("word", "resumes"), [("true", True), ("True", True), ("false", False)])
def test_the_command_lines_words_are_understood(tmp_path: Path, word: str, resumes: bool) -> None:
    run(tmp_path, nn.Linear(2, 3))
    if resumes:
        assert run(tmp_path, nn.Linear(2, 3), epochs=3, resume=word).state.iteration == 15
    else:
        with pytest.raises(SettingError, match="already holds a run at iteration 10; pass --resume true"):
            run(tmp_path, nn.Linear(2, 3), epochs=3, resume=word)


def test_another_length_says_how_to_train_longer(tmp_path: Path) -> None:
    def begin(epochs: int, resume: bool) -> None:
        optimiser = torch.optim.SGD(nn.Linear(2, 3).parameters(), lr=0.1)
        engine, schedule = trainer(), WarmupCosine(optimiser, 0, epochs, 5)
        RunCheckpoints(str(tmp_path), {"lr_scheduler": schedule}, every=5, resume=resume).attach(engine)
        engine.run([0] * 5, max_epochs=epochs)

    begin(2, False)
    sentence = (
        r"^checkpoint_iteration=10\.pt: epochs: the checkpoint was trained with 2, now it is 3; resume with the same "
        r"number, or start a new run in another output_dir with its model\.pt as pretrained$"
    )
    with pytest.raises(SettingError, match=sentence) as caught:
        begin(3, True)
    assert caught.value.code == "setting.schedule_changed"


def test_another_network_is_refused_by_name(tmp_path: Path) -> None:
    run(tmp_path, nn.Linear(2, 3))
    sentence = (
        r"'model' fits another configuration \(size mismatch for weight: .*\[3, 2\].*\[7, 2\]\)\); "
        "resume with the one that wrote it"
    )
    with pytest.raises(WeightsError, match=sentence):
        run(tmp_path, nn.Linear(2, 7), epochs=3, resume=True)


def test_weights_alone_are_no_run_to_resume(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 3).state_dict(), tmp_path / "model.pt")
    with pytest.raises(WeightsError, match=r"^model\.pt: is not a run's checkpoint; choose a checkpoint_iteration"):
        run(tmp_path / "run", nn.Linear(2, 3), resume=str(tmp_path / "model.pt"))


def test_what_one_rank_sees_in_its_part_of_the_weights_ends_the_run_on_all(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("monai_ext.handlers.checkpoints.gather", lambda mine: [mine, False if mine is True else mine])
    with pytest.raises(RunError, match="the weights are not finite, so that no checkpoint of them is written"):
        run(tmp_path, nn.Linear(2, 3))
    assert [path.name for path in tmp_path.iterdir()] == [RUN_LOCK]


def test_a_full_disk_ends_the_run_in_one_sentence(tmp_path: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limit[1]))
    try:
        with pytest.raises(WriteError, match=r"^checkpoint_iteration=2\.pt: could not be written \(File too large\)"):
            run(tmp_path, nn.Linear(100, 200))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert [path.name for path in tmp_path.iterdir()] == [RUN_LOCK]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn"])
def test_a_torn_checkpoint_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "checkpoint_iteration=4.pt").write_bytes(content)
    with pytest.raises(WeightsError, match="cannot be read as a checkpoint; resume from an earlier one"):
        run(tmp_path, nn.Linear(2, 3), resume=True)


def test_nothing_to_resume_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"holds no checkpoint_iteration=N\.pt"):
        run(tmp_path, nn.Linear(2, 3), resume=True)


def test_only_the_newest_by_iteration_are_kept(tmp_path: Path) -> None:
    engine = trainer()
    RunCheckpoints(str(tmp_path), {"model": nn.Linear(2, 3)}, every=1, keep=3).attach(engine)
    engine.run([0] * 11, max_epochs=1)
    assert saved(tmp_path) == [9, 10, 11]  # by number: as text, 9 would come last


@pytest.mark.parametrize(("smaller", "kept"), [(True, 0.3), (False, 0.9)])
def test_the_best_model_is_the_best_and_nan_never_wins(tmp_path: Path, smaller: bool, kept: float) -> None:
    network = nn.Linear(1, 1)
    best = BestModel(str(tmp_path), network, "score", smaller_is_better=smaller)
    for epoch, value in enumerate([float("nan"), 0.5, 0.3, float("nan"), 0.9, 0.6], start=1):
        nn.init.constant_(network.weight, value if value == value else -1.0)
        best(SimpleNamespace(state=SimpleNamespace(metrics={"score": value}, epoch=epoch)))  # type: ignore[arg-type]
    assert best.best == kept
    assert torch.load(tmp_path / "model.pt", weights_only=True)["weight"].item() == pytest.approx(kept)
    fresh = BestModel(str(tmp_path), network, "score", smaller_is_better=smaller)
    fresh.load_state_dict(best.state_dict())
    before = (tmp_path / "model.pt").read_bytes()
    fresh(SimpleNamespace(state=SimpleNamespace(metrics={"score": 0.5}, epoch=9)))  # type: ignore[arg-type]
    assert (tmp_path / "model.pt").read_bytes() == before


def finished(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_ino) for path in folder.iterdir()}


def told_run(folder: Path, epochs: int) -> None:
    engine = trainer()
    RunCheckpoints(str(folder), {"model": nn.Linear(2, 3)}, every=5, resume="auto").attach(engine)
    RunProvenance(str(folder), "hi_end_mae_ct_segmentation", "train", {}, "cpu", "fp32").attach(engine)
    engine.run([0] * 5, max_epochs=epochs)


def test_a_run_with_nothing_left_to_do_leaves_its_files_as_they_are(tmp_path: Path) -> None:
    told_run(tmp_path, 2)
    before = finished(tmp_path)
    told_run(tmp_path, 2)
    assert finished(tmp_path) == before
    told_run(tmp_path, 3)
    assert finished(tmp_path)["provenance.json"] != before["provenance.json"]


def test_while_a_run_goes_on_no_other_process_may_run_into_its_folder(tmp_path: Path) -> None:
    look = (
        "import sys; from pathlib import Path; from monai_ext.base import hold_folder; "
        "hold_folder(Path(sys.argv[1]), 0)"
    )
    ends = []

    def try_it(*_: Any) -> None:
        done = subprocess.run([sys.executable, "-c", look, str(tmp_path)], capture_output=True, text=True, check=False)
        ends.append("RunError" in done.stderr)

    engine = Engine(try_it)
    RunCheckpoints(str(tmp_path), {"model": nn.Linear(2, 3)}, every=1).attach(engine)
    run_training(SimpleNamespace(run=lambda: engine.run([0])))
    try_it()
    assert ends == [True, False]


def test_a_run_into_anothers_folder_is_refused_before_it_writes(tmp_path: Path, monkeypatch) -> None:
    def busy(folder: Path) -> None:
        raise RunError(f"{folder.name}: busy", code="run.folder_busy")

    monkeypatch.setattr("monai_ext.handlers.checkpoints.hold_folder", busy)
    with pytest.raises(RunError, match="busy"):
        told_run(tmp_path, 1)
    assert not list(tmp_path.iterdir())
