"""Curves: what was drawn can be read again, and neither file nor thread outlives the run."""

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ignite.engine import Engine, Events
from monai.handlers import TensorBoardStatsHandler
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from monai_ext.engines import run_training
from monai_ext.handlers import CurveFile


def writers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if type(thread).__module__.startswith("tensorboard.")]


def run(curves: CurveFile, step: Callable[[int], float]) -> None:
    """Two epochs of three steps, each epoch with a validation, whose handler draws into the same file."""
    trainer = Engine(lambda engine, batch: step(batch))
    evaluator = Engine(lambda engine, batch: None)
    TensorBoardStatsHandler(curves, tag_name="train_loss", output_transform=lambda loss: loss).attach(trainer)
    TensorBoardStatsHandler(curves, iteration_log=False).attach(evaluator)

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate(engine: Engine) -> None:
        evaluator.state.metrics = {"val_loss": 0.25 * engine.state.epoch}
        evaluator.run([0])

    run_training(SimpleNamespace(run=lambda: trainer.run([1, 2, 3], max_epochs=2)))


def test_trainer_and_evaluator_draw_into_one_file_that_the_end_of_the_run_closes(tmp_path: Path) -> None:
    seen = []

    def step(batch: int) -> float:
        seen.append(len(writers()))
        return 0.5 * batch

    run(CurveFile(str(tmp_path / "curves")), step)
    assert seen == [0, 1, 1, 1, 1, 1]  # the first curve opens the file
    assert not writers()
    assert len(list((tmp_path / "curves").iterdir())) == 1
    read = EventAccumulator(str(tmp_path / "curves"))
    read.Reload()
    assert [(one.step, one.value) for one in read.Scalars("train_loss")] == list(
        zip(range(1, 7), [0.5, 1.0, 1.5] * 2, strict=True)
    )
    assert [one.value for one in read.Scalars("val_loss")] == [0.25, 0.5]


def test_a_run_that_breaks_closes_its_curves_too(tmp_path: Path) -> None:
    def step(batch: int) -> float:
        if batch == 3:
            raise ZeroDivisionError
        return 0.5

    with pytest.raises(ZeroDivisionError):
        run(CurveFile(str(tmp_path / "curves")), step)
    assert not writers()


def test_without_a_curve_there_is_no_folder(tmp_path: Path) -> None:
    curves = CurveFile(str(tmp_path / "curves"))
    curves.flush()
    curves.close()
    assert not list(tmp_path.iterdir())


def test_curves_that_cannot_be_closed_are_told_and_hide_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    curves = CurveFile(str(tmp_path / "curves"))

    def break_off(batch: int) -> float:
        close = curves.file_writer.close

        def full(*_: Any) -> None:
            close()
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(curves.file_writer, "close", full)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(curves, break_off)
    assert caplog.messages[-1] == "tensorboard: the curves could not be closed (No space left on device)"
    assert not writers()
