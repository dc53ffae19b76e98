"""A run that goes on ends as if it had never been interrupted, or says why it cannot go on."""

import json
import logging
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_ext.base import InputError, SettingError, WeightsError
from monai_ext.engines import filed_data

STEPS = 60
Record = Callable[[str, Any], None]


def name(iteration: int) -> str:
    return f"checkpoint_iteration={iteration}.pt"


def resumed(tiny: Any, folder: Path, source: Path, **settings: Any) -> dict[str, Any]:
    training = tiny.Training(folder, resume=str(source), **{"every": STEPS, **settings}).run()
    result: dict[str, Any] = training.result()
    return result


def same(result: dict[str, Any], whole: dict[str, Any], first_epoch: int) -> bool:
    rows = [row for row in whole["history"] if row[0] >= first_epoch]
    return result["numbers"] == whole["numbers"] and result["best"] == whole["best"] and result["history"] == rows


FEW = [10, 27]
WINDOWS = [pytest.param(3, id="windows of 3"), pytest.param(1, id="every step")]


@pytest.mark.parametrize("accumulate", WINDOWS)
@pytest.mark.parametrize(
    "steps", [pytest.param(FEW, id="some"), pytest.param(range(1, STEPS + 1), id="all", marks=pytest.mark.full)]
)
def test_resuming_at_a_step_changes_no_bit(
    tiny: Any, expected: Any, tmp_path: Path, record_property: Record, accumulate: int, steps: Any
) -> None:
    whole, folder = expected(accumulate=accumulate)
    lost = []
    for step in steps:
        source = folder / name(step)
        if not source.exists():  # amid a window no checkpoint is written
            assert step % tiny.LENGTH % accumulate
            continue
        place = tmp_path / str(step)
        right = same(resumed(tiny, place, source, accumulate=accumulate), whole, step // tiny.LENGTH + 1)
        record_property("fault", ["resume", f"step {step}, windows of {accumulate}", "passed" if right else "lost"])
        lost += [] if right else [step]
    assert not lost


def test_checkpoints_fall_on_the_ends_of_windows(expected: Any) -> None:
    _, folder = expected(accumulate=3)
    saved = sorted(int(path.stem.split("=")[1]) for path in folder.glob("checkpoint_*.pt"))
    assert saved == [n for n in range(1, STEPS + 1) if n % 10 in (3, 6, 9, 0)]


def test_the_best_model_comes_along_into_another_folder(tiny: Any, expected: Any, tmp_path: Path) -> None:
    whole, folder = expected()
    best_epoch = whole["best"][1]
    source = folder / name(best_epoch * tiny.LENGTH)
    training = tiny.Training(tmp_path, resume=str(source))
    training.run(best_epoch * tiny.LENGTH + 1, stopping)
    assert (tmp_path / "model.pt").read_bytes() == (folder / "model.pt").read_bytes()
    assert (tmp_path / "model.pt.sha256").read_text() == (folder / "model.pt.sha256").read_text()


@pytest.mark.parametrize(("first", "then"), [(0, 2), pytest.param(2, 1, marks=pytest.mark.full)])
def test_workers_play_no_part(
    tiny: Any, expected: Any, tmp_path: Path, record_property: Record, first: int, then: int
) -> None:
    whole, folder = expected()
    source = folder / name(17)
    if first:
        tiny.Training(tmp_path / "first", workers=first).run()
        source = tmp_path / "first" / name(17)
    right = same(resumed(tiny, tmp_path / "then", source, workers=then), whole, 2)
    record_property("fault", ["resume", f"{first} workers, then {then}", "passed" if right else "lost"])
    assert right


@pytest.mark.parametrize("days", [-1, pytest.param(1, marks=pytest.mark.full)])
def test_the_clock_plays_no_part(
    tiny: Any,
    expected: Any,
    tmp_path: Path,
    record_property: Record,
    monkeypatch: pytest.MonkeyPatch,
    days: int,
) -> None:
    whole, _ = expected()
    tiny.Training(tmp_path, keep=4).run(33, stopping)
    there = sorted(tmp_path.glob("checkpoint_*.pt"))
    for age, path in enumerate(there):  # by time, the oldest would be the latest
        os.utime(path, (time.time() + days * 86400 - age * 3600,) * 2)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + days * 86400)
    training = tiny.Training(tmp_path, keep=4, resume=True)
    right = same(training.run().result(), whole, 1)
    record_property("fault", ["clock", f"{days:+} day", "passed" if right else "lost"])
    assert right
    assert len(list(tmp_path.glob("checkpoint_*.pt"))) == 4


class StopHereError(Exception):
    pass


def stopping(_: Any) -> None:
    raise StopHereError


@pytest.fixture(autouse=True)
def _stopped(monkeypatch: pytest.MonkeyPatch, tiny: Any) -> None:
    # A run that `stopping` ended has ended; what is tested is how it goes on.
    run = tiny.Training.run

    def run_or_stop(self: Any, *args: Any) -> Any:
        try:
            return run(self, *args)
        except StopHereError:
            return self

    monkeypatch.setattr(tiny.Training, "run", run_or_stop)


SETTINGS = {"seed": 11, "batch_size": 2, "window_hu": [-175, 250], "dataset_weights": {"a": 1.0}}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"seed": 12}, "seed was 11 and is now 12"),
        ({"batch_size": 3}, "batch_size was 2 and is now 3"),
        ({"window_hu": [-160, 240]}, r"window_hu was \[-175, 250\] and is now \[-160, 240\]"),
        ({"dataset_weights": None}, r"dataset_weights was \{'a': 1\.0\} and is now null"),
        ({"seed": 12, "batch_size": 3}, "seed was 11 and is now 12; batch_size was 2 and is now 3"),
    ],
)
def test_a_changed_setting_is_refused_by_name(
    tiny: Any, tmp_path: Path, record_property: Record, change: dict[str, Any], sentence: str
) -> None:
    tiny.Training(tmp_path, settings=SETTINGS).run(3, stopping)
    outcome = "silent"
    try:
        tiny.Training(tmp_path, resume=True, settings={**SETTINGS, **change}).run()
    except SettingError as error:
        outcome, told = "caught", error
    record_property("fault", ["settings edited", ", ".join(change), outcome])
    assert outcome == "caught"
    with pytest.raises(SettingError, match=rf"^checkpoint_iteration=2\.pt: {sentence}; resume with the same, or start"):
        raise told
    assert told.code == "setting.resume"


def test_settings_that_change_no_weight_may_change(
    tiny: Any, expected: Any, tmp_path: Path, record_property: Record
) -> None:
    whole, _ = expected()
    tiny.Training(tmp_path, settings=SETTINGS).run(21, stopping)
    changed = {**SETTINGS, "window_hu": (-175, 250), "new_in_a_later_version": 3}  # a tuple is a list to JSON
    training = tiny.Training(tmp_path, resume=True, settings=changed, every=7, keep=1, workers=1)
    right = same(training.run().result(), whole, 1)
    record_property("fault", ["settings edited", "workers, interval, kept", "passed" if right else "lost"])
    assert right


def test_another_number_of_ranks_is_refused(tiny: Any, expected: Any, tmp_path: Path, record_property: Record) -> None:
    _, folder = expected()
    content = torch.load(folder / name(5), weights_only=True)
    content["progress"]["ranks"] = 4
    torch.save(content, tmp_path / name(5))
    outcome = "silent"
    with pytest.raises(SettingError, match="ranks was 4 and is now 1"):
        try:
            tiny.Training(tmp_path, resume=True).run()
        except SettingError:
            outcome = "caught"
            raise
        finally:
            record_property("fault", ["settings edited", "ranks", outcome])


def scans(folder: Path) -> list[dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    items = []
    for n in range(3):
        path = folder / f"ct_{n}.nii"
        if not path.exists():
            path.write_bytes(bytes([n]) * 100)
        items.append({"case": f"ct_{n}", "image": str(path), "label": ""})
    return items


def replace_one(folder: Path) -> None:
    stat = (folder / "ct_1.nii").stat()
    (folder / "ct_1.nii").write_bytes(b"x" * 100)  # as many bytes, at the same time
    os.utime(folder / "ct_1.nii", ns=(stat.st_atime_ns, stat.st_mtime_ns))


def remove_one(folder: Path) -> None:
    (folder / "ct_1.nii").unlink()


def swap_two(folder: Path) -> None:
    (folder / "ct_0.nii").rename(folder / "ct_9.nii")
    (folder / "ct_2.nii").rename(folder / "ct_0.nii")
    (folder / "ct_9.nii").rename(folder / "ct_2.nii")


@pytest.mark.parametrize(
    ("change", "told"),
    [(replace_one, "ct_1 is replaced"), (remove_one, "ct_1 is replaced"), (swap_two, "ct_0, ct_2 are replaced")],
)
def test_replaced_sources_are_noticed(
    tiny: Any, tmp_path: Path, record_property: Record, change: Callable[[Path], None], told: str
) -> None:
    def data() -> Any:
        items = scans(tmp_path / "data") if change is not remove_one or not (tmp_path / name(2)).exists() else listed
        return filed_data(items, ["image", "label"])

    listed = scans(tmp_path / "data")
    tiny.Training(tmp_path, data=data()).run(3, stopping)
    change(tmp_path / "data")
    outcome = "silent"
    with pytest.raises(SettingError, match=f"the training data are not those of the run: {told}; put them back") as got:
        try:
            tiny.Training(tmp_path, resume=True, data=data()).run()
        except SettingError:
            outcome = "caught"
            raise
        finally:
            record_property("fault", ["source replaced", change.__name__, outcome])
    assert str(tmp_path) not in str(got.value)


def test_a_moved_folder_and_a_mended_scan_may_go_on(
    tiny: Any, expected: Any, tmp_path: Path, record_property: Record
) -> None:
    whole, _ = expected()
    run = tmp_path / "run"
    tiny.Training(run, data=filed_data(scans(tmp_path / "data"), ["image"])).run(25, stopping)
    (tmp_path / "data").rename(tmp_path / "moved")
    finding = {"id": "ct_1", "kind": "scan", "epoch": 3, "iteration": 25, "code": "scan.damaged", "problem": "torn"}
    (run / "quarantine.jsonl").write_text(json.dumps({**finding, "stopped": True}) + "\n")
    replace_one(tmp_path / "moved")
    training = tiny.Training(run, resume=True, data=filed_data(scans(tmp_path / "moved"), ["image"]))
    right = same(training.run().result(), whole, 1)
    record_property("fault", ["source replaced", "moved, and mended as the list says", "passed" if right else "lost"])
    assert right


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [flip, pytest.param(halve, marks=pytest.mark.full)])
def test_a_damaged_newest_checkpoint_is_refused_and_auto_takes_the_one_before(
    tiny: Any,
    expected: Any,
    tmp_path: Path,
    record_property: Record,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
) -> None:
    whole, _ = expected()
    tiny.Training(tmp_path).run(38, stopping)
    damage(tmp_path / name(37))
    outcome = "silent"
    with pytest.raises(WeightsError, match=r"^checkpoint_iteration=37\.pt: its sha256 is "):
        try:
            tiny.Training(tmp_path, resume=True).run()
        except WeightsError:
            outcome = "caught"
            raise
        finally:
            record_property("fault", ["checkpoint damaged", damage.__name__, outcome])
    with caplog.at_level(logging.ERROR, "monai_ext"):
        training = tiny.Training(tmp_path, resume="auto").run()
    assert any(m.startswith("passed over: checkpoint_iteration=37.pt: ") for m in caplog.messages)
    right = same(training.result(), whole, 1)
    record_property("fault", ["checkpoint damaged", f"{damage.__name__}, auto", "passed" if right else "lost"])
    assert right


def test_auto_never_starts_afresh_beside_damaged_checkpoints(tiny: Any, tmp_path: Path) -> None:
    tiny.Training(tmp_path).run(4, stopping)
    for path in tmp_path.glob("checkpoint_*.pt"):
        halve(path)
    with pytest.raises(WeightsError, match=f"no checkpoint in '{tmp_path.name}' can be read"):
        tiny.Training(tmp_path, resume="auto").run()


@pytest.mark.parametrize("resume", [True, "auto"])
def test_no_checkpoint_is_loaded_where_the_environment_reopens_pickles(
    resume: Any, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Record
) -> None:
    tiny.Training(tmp_path).run(4, stopping)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    outcome = "silent"
    with pytest.raises(WeightsError, match=r"^TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set, .*; unset it"):
        try:
            tiny.Training(tmp_path, resume=resume).run()
        except WeightsError:
            outcome = "caught"
            raise
        finally:
            record_property("fault", ["environment reopens pickles", f"resume {resume}", outcome])


def test_auto_starts_where_there_is_nothing(tiny: Any, expected: Any, tmp_path: Path) -> None:
    whole, _ = expected()
    assert tiny.Training(tmp_path, resume="AUTO", every=STEPS).run().result() == whole


def test_a_run_of_auto_that_is_done_ends_as_it_was(tiny: Any, expected: Any, tmp_path: Path) -> None:
    whole, _ = expected()
    for _ in range(2):
        assert tiny.Training(tmp_path, resume="auto", every=STEPS).run().result() == whole


@pytest.mark.full
def test_fifty_kills_in_training_lose_nothing(
    server: Any, expected: Any, tmp_path: Path, record_property: Record, send: Callable[[int, str], None]
) -> None:
    whole, _ = expected(accumulate=3)
    chance, kills, lives, lost = random.Random(7), 0, 0, []
    while kills < 50 or lives < 5:
        folder = tmp_path / str(lives)
        folder.mkdir(exist_ok=True)
        settings = {"folder": str(folder), "accumulate": 3, "every": 4, "keep": 2, "resume": "auto", "pace": 0.01}
        pid = server.start(**settings)
        if kills < 10 * (lives + 1):  # then the run may come to its end
            time.sleep(chance.uniform(0, 0.9))
            send(pid, "SIGKILL")
        code = server.wait()
        if code == -9:
            kills += 1
            torn = [path.name for path in folder.glob("checkpoint_*.pt") if not readable(path)]
            record_property("fault", ["kill in training", f"kill {kills}", "torn" if torn else "passed"])
            lost += torn
        else:
            assert code == 0
            right = json.loads((folder / "result.json").read_text()) == whole
            record_property("fault", ["kill in training", f"end of run {lives}", "passed" if right else "lost"])
            lost += [] if right else [str(lives)]
            lives += 1
    assert not lost


def readable(path: Path) -> bool:
    from monai_ext.handlers.run_files import read_checkpoint

    try:
        return "progress" in read_checkpoint(path)
    except InputError:
        return False
