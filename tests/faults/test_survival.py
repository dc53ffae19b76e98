"""Training that survives: bad scans, ended and hung worker processes, and numbers that are not finite."""

import ctypes
import json
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.engines import SupervisedTrainer
from monai.transforms import Compose, RandShiftIntensityd
from torch import nn

from monai_ext.base import RunError, ScanError, SettingError, StoreError
from monai_ext.engines import DrawDataset, DrawPlan, SupervisedLoader, TrainingStep, VisitPlan
from monai_ext.handlers import Finding, FollowPlan, Quarantine, RunCheckpoints
from monai_ext.transforms import RandStoreCropd

SCANS, BATCH, WORKERS = 7, 2, [0, 1, 2]
Fault = Callable[[], Any]


def hang() -> None:
    time.sleep(600)


def segfault() -> None:
    ctypes.string_at(0)


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stopped() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def corrupt() -> None:
    raise ScanError("ct_3: torn; copy it again", code="scan.damaged", case="ct_3")


def vanished() -> None:
    open("/nowhere/Doe^Jane/ct_3.nii.gz", "rb")  # noqa: SIM115


def no_memory() -> None:
    raise MemoryError


def not_finite() -> torch.Tensor:
    return torch.tensor([1.0, math.nan, 2.0, math.inf, 3.0])


class Reading:
    """Turns an item into its numbers, but for scan ``bad``, whose fault strikes the first ``times`` that it is read."""

    def __init__(self, fault: Fault | None, folder: Path, bad: int = 3, times: int = 10**9) -> None:
        self.fault, self.folder, self.bad, self.times = fault, folder, bad, times

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        number = item["number"]
        if self.fault is not None and number == self.bad:
            tally = self.folder / "tally"
            before = tally.stat().st_size if tally.exists() else 0
            if before < self.times:
                with open(tally, "ab") as handle:
                    handle.write(b".")
                if (values := self.fault()) is not None:
                    return {**item, "image": values}
        return {**item, "image": torch.arange(5.0) + number}


def data_of(fault: Fault | None, folder: Path, **more: Any) -> DrawDataset:
    chain = Compose([Reading(fault, folder, **more), RandShiftIntensityd("image", offsets=1.0, prob=1.0)])
    return DrawDataset([{"case": f"ct_{n}", "number": n} for n in range(SCANS)], chain, seed=5)


def lines(folder: Path) -> list[dict[str, Any]]:
    path = folder / "quarantine.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer = nn.Linear(5, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layer(image)


def train(
    folder: Path,
    data: Any,
    workers: int = 0,
    resume: bool | str = False,
    epochs: int = 2,
    loss: Callable[..., torch.Tensor] | None = None,
    step: dict[str, Any] | None = None,
    loader: dict[str, Any] | None = None,
    plan: Any = None,
    every: int = 1,
    **budget: Any,
) -> tuple[dict[str, torch.Tensor], Quarantine]:
    """Train a line on the scans, two epochs of seven steps; return its weights and the list."""
    network, quarantine = Linear(), Quarantine(str(folder), **budget)
    plan = plan or DrawPlan(SCANS, 2 * SCANS, seed=5)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    supervised = SupervisedLoader(data, plan, quarantine, BATCH, workers, **(loader or {}))
    objects = {"model": network, "optimizer": optimizer, "quarantine": quarantine}
    SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=supervised,
        network=network,
        optimizer=optimizer,
        loss_function=loss or (lambda output, _: output.square()),
        prepare_batch=lambda batch, *_, **__: (batch["image"].flatten(1).float()[:, :5], None),
        iteration_update=TrainingStep(quarantine=quarantine, **(step or {})),
        train_handlers=[
            FollowPlan(plan, BATCH),
            RunCheckpoints(str(folder / "models"), objects, every, keep=99, resume=resume),
            quarantine,
        ],
        decollate=False,
    ).run()
    return {name: value.clone() for name, value in network.state_dict().items()}, quarantine


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.fixture
def told(record_property: Callable[[str, object], None]) -> Callable[[str, str, bool], None]:
    """Record the outcome of a fault, before the test may fail on it."""

    def record(family: str, case: str, good: bool, bad: str = "silent", word: str = "passed") -> None:
        record_property("fault", [family, case, word if good else bad])
        assert good, f"{family}, {case}: {bad}"

    return record


@pytest.fixture(autouse=True)
def _within_time() -> Iterator[None]:
    """A test of this module that hangs ends after two minutes instead of never."""

    def stop(*_: Any) -> None:
        raise TimeoutError("hung")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("fault", [corrupt, vanished, no_memory, not_finite], ids=lambda fault: fault.__name__)
def test_a_bad_scan_is_named_and_replaced_alike_for_any_number_of_workers(
    fault: Fault, tmp_path: Path, told: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    counts = WORKERS if fault is corrupt else [0]
    runs = [train(tmp_path / str(n), data_of(fault, tmp_path), n) for n in counts]
    rows = [lines(tmp_path / str(n)) for n in counts]
    told("bad scan", f"{fault.__name__}: named once", all(len(row) == 1 for row in rows))
    assert all(row == rows[0] for row in rows)
    codes = {"corrupt": "damaged", "vanished": "system", "no_memory": "memory", "not_finite": "not_finite"}
    line = rows[0][0]
    assert (line["id"], line["kind"], line["item"], line["code"]) == (
        "ct_3",
        "scan",
        3,
        f"scan.{codes[fault.__name__]}",
    )
    assert "passed over: ct_3: " in caplog.text
    assert "Doe" not in caplog.text + json.dumps(rows)
    told("bad scan", f"{fault.__name__}: same weights", all(same(runs[0][0], run[0]) for run in runs))
    assert not same(runs[0][0], train(tmp_path / "good", data_of(None, tmp_path))[0])


@pytest.mark.parametrize(("fault", "how"), [(killed, "was ended by SIGKILL"), (segfault, "was ended by SIGSEGV")])
def test_a_scan_that_ends_its_worker_twice_is_barred(
    fault: Fault, how: str, tmp_path: Path, told: Callable[..., None]
) -> None:
    counts = [1, 2] if fault is killed else [1]
    runs = [train(tmp_path / str(n), data_of(fault, tmp_path), n) for n in counts]
    found = lines(tmp_path / "1")
    named = [(line["id"], line["kind"], line["code"]) for line in found]
    told(
        "worker process",
        f"{fault.__name__} twice: named",
        named == [("ct_3", "restart", "worker.ended"), ("ct_3", "worker", "worker.ended")],
    )
    assert how in found[0]["problem"]
    assert found[1]["problem"].endswith("a second time; look at the scan, the memory and the disk")
    # Who is barred at the same place as a torn scan would be leaves the same run behind.
    torn = train(tmp_path / "torn", data_of(corrupt, tmp_path))[0]
    told("worker process", f"{fault.__name__} twice: same weights", all(same(torn, run[0]) for run in runs))


FULL = pytest.mark.full


@pytest.mark.parametrize(
    ("fault", "persistent"),
    [
        (killed, False),
        pytest.param(killed, True, marks=FULL),
        (hang, False),
        pytest.param(stopped, False, marks=FULL),
        pytest.param(stopped, True, marks=FULL),
    ],
)
def test_a_worker_that_ends_or_hangs_once_costs_nothing(
    fault: Fault, persistent: bool, tmp_path: Path, told: Callable[..., None]
) -> None:
    whole = train(tmp_path / "whole", data_of(None, tmp_path))[0]
    loader = {"worker_timeout": 1.5, "persistent_workers": persistent}
    ours, quarantine = train(tmp_path / "ours", data_of(fault, tmp_path, times=1), 2, loader=loader)
    case = f"{fault.__name__} once{', persistent workers' if persistent else ''}"
    told("worker process", case, same(whole, ours) and quarantine.counts() == {"restart": 1})
    assert lines(tmp_path / "ours")[0]["code"] == ("worker.ended" if fault is killed else "worker.hung")


def test_a_worker_ended_from_outside_never_stops_a_step_half_way(tmp_path: Path, told: Callable[..., None]) -> None:
    class Slow(Reading):
        def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
            time.sleep(0.02)
            return super().__call__(item)

    data = data_of(None, tmp_path)
    whole = train(tmp_path / "whole", data)[0]
    data.transform = Compose([Slow(None, tmp_path), *data.transform.transforms[1:]])
    ended: list[int] = []
    steps = iter(range(1, 99))

    def loss(output: torch.Tensor, _: Any) -> torch.Tensor:
        if next(steps) in (2, 5, 9):  # where the signal would have struck
            child = next(one for one in multiprocessing.active_children() if one.pid is not None)
            ended.append(child.pid)
            os.kill(child.pid, signal.SIGKILL)
            assert wait([child.sentinel], 60)
            time.sleep(0.05)
        return output.square()

    ours, quarantine = train(tmp_path / "ours", data, 2, loss=loss)
    assert len(set(ended)) == 3
    told("worker process", "killed from outside in a step, 3 times", same(whole, ours))
    assert set(quarantine.counts()) == {"restart"}  # of an epoch's end nobody may notice: what it needs is there


@pytest.mark.parametrize(("budget", "stops"), [(0, True), (1, True), (2, False), (0.15, True), (0.3, False)])
def test_the_budget_is_kept(budget: float, stops: bool, tmp_path: Path, told: Callable[..., None]) -> None:
    class TwoBad(Reading):
        def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
            if item["number"] in (2, 3):
                case = item["case"]
                raise StoreError(f"{case}: torn; prepare it again", code="store.altered", case=case)
            return super().__call__(item)

    data = data_of(None, tmp_path)
    data.transform = TwoBad(None, tmp_path)
    if not stops:
        _, quarantine = train(tmp_path, data, max_skipped=budget)
        told("budget", f"max_skipped {budget}: 2 scans", quarantine.counts() == {"scan": 2})
        assert quarantine.summary() == f"2 scans, see {tmp_path / 'quarantine.jsonl'}"
        return
    number, allowed = (1, 0) if not budget else (2, 1)
    sentence = (
        rf"^ct_[23]: torn; prepare it again \(number {number} of epoch 1, and max_skipped allows {allowed}; "
        r"quarantine\.jsonl lists all\)$"
    )
    with pytest.raises(RunError, match=sentence) as caught:
        train(tmp_path, data, max_skipped=budget)
    told("budget", f"max_skipped {budget}: 2 scans", len(lines(tmp_path)) == number, word="caught")
    assert caught.value.code == "run.skipped"
    with pytest.raises(RunError, match=rf"number {number} of epoch 1"):  # whoever only starts it again comes no further
        train(tmp_path, data, max_skipped=budget, resume=any((tmp_path / "models").glob("*.pt")))
    whole = train(tmp_path / "whole", data_of(None, tmp_path), max_skipped=0)[1]
    assert whole.counts() == {}


def test_restarts_have_a_budget_too(tmp_path: Path, told: Callable[..., None]) -> None:
    sentence = (
        r"^ct_3: the worker process that read it was ended by SIGKILL; .* \(number 1 of epoch 1, and max_restarts "
    )
    with pytest.raises(RunError, match=sentence) as caught:
        train(tmp_path, data_of(killed, tmp_path), 1, max_restarts=0)
    told("budget", "max_restarts 0: worker killed", caught.value.code == "run.restarts", word="caught")


def test_a_mistake_of_the_program_is_not_skipped(tmp_path: Path, told: Callable[..., None]) -> None:
    def mistake() -> None:
        raise KeyError("image")

    with pytest.raises((KeyError, RuntimeError)):
        train(tmp_path, data_of(mistake, tmp_path))
    told("bad scan", "mistake of the program", not lines(tmp_path), word="caught")


def test_no_scan_left_stops_the_run(tmp_path: Path, told: Callable[..., None]) -> None:
    def always(item: dict[str, Any]) -> dict[str, Any]:
        raise ScanError(f"{item['case']}: torn; copy it again", code="scan.damaged")

    data = data_of(None, tmp_path)
    data.transform = always
    with pytest.raises(RunError, match=r"^quarantine\.jsonl: hardly any scan of the train data is left"):
        train(tmp_path, data, max_skipped=99)
    told("budget", "all scans bad", len(lines(tmp_path)) == SCANS, word="caught")


@pytest.mark.parametrize(
    ("start", "workers"),
    [
        (2, 0),
        (5, 0),
        (5, 2),
        *(pytest.param(n, w, marks=FULL) for n in range(1, 14) for w in WORKERS if n not in (2, 5)),
    ],
)
def test_a_resumed_run_bars_the_same_scans_from_the_same_iterations_on(
    start: int, workers: int, tmp_path: Path, told: Callable[..., None]
) -> None:
    # The fault has gone when the run is resumed: only the list knows of it.
    whole, _ = train(tmp_path, data_of(corrupt, tmp_path, times=1))
    (line,) = lines(tmp_path)
    saved = str(tmp_path / "models" / f"checkpoint_iteration={start}.pt")
    ours, quarantine = train(tmp_path, data_of(None, tmp_path), workers, resume=saved)
    told("resume", f"from {start}, {workers} workers: scan barred", same(whole, ours))
    assert lines(tmp_path) == [line]
    assert len(quarantine.findings) == 1
    other = tmp_path / "other"  # without the file, the checkpoint knows what was found before it
    moved, quarantine = train(other, data_of(None, tmp_path), workers, resume=saved)
    before = start >= line["iteration"]
    assert same(whole, moved) == before
    assert len(quarantine.findings) == before == (other / "quarantine.jsonl").exists()


def test_a_deleted_line_lets_the_scan_in_again(tmp_path: Path) -> None:
    train(tmp_path, data_of(corrupt, tmp_path))
    (tmp_path / "quarantine.jsonl").write_text("")
    saved = str(tmp_path / "models" / "checkpoint_iteration=7.pt")
    _, quarantine = train(tmp_path, data_of(None, tmp_path), resume=saved)
    assert not quarantine.findings
    (tmp_path / "quarantine.jsonl").write_text("ct_3\n")
    with pytest.raises(StoreError, match=r"quarantine\.jsonl: holds a line that is no finding; delete that line"):
        train(tmp_path, data_of(None, tmp_path), resume=saved)


def test_a_new_run_does_not_take_up_a_list_that_lies_there(tmp_path: Path) -> None:
    (tmp_path / "quarantine.jsonl").write_text("of another run\n")
    train(tmp_path, data_of(None, tmp_path))
    assert not (tmp_path / "quarantine.jsonl").exists()


def nan_at(*calls: int) -> Callable[..., torch.Tensor]:
    seen = iter(range(1, 999))
    return lambda output, _: output.square() * (math.nan if next(seen) in calls else 1.0)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_loss_that_is_not_finite_costs_one_step(accumulate: int, tmp_path: Path, told: Callable[..., None]) -> None:
    step = {"accumulate": accumulate}
    ours, quarantine = train(tmp_path / "ours", data_of(None, tmp_path), loss=nan_at(4), step=step)
    (line,) = lines(tmp_path / "ours")
    assert (line["kind"], line["iteration"], line["code"]) == ("step", 4, "step.loss")
    assert line["problem"].startswith("iteration 4: the loss of ct_")
    assert line["id"].count("ct_") == BATCH
    assert quarantine.counts() == {"step": 1}
    told(
        "numbers",
        f"NaN loss once, accumulate {accumulate}: one step lost",
        same(ours, by_hand(tmp_path, accumulate, 4)),
    )
    assert not same(ours, by_hand(tmp_path, accumulate, 99))


def by_hand(folder: Path, accumulate: int, bad: int) -> dict[str, torch.Tensor]:
    """Train like `train`, in plain PyTorch; the step of the bad iteration is not taken."""
    network, data, plan = Linear(), data_of(None, folder), DrawPlan(SCANS, 2 * SCANS, seed=5)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for plan.epoch in range(2):
        draws = list(plan)
        batches = [draws[place : place + BATCH] for place in range(0, len(draws), BATCH)]
        for first in range(0, len(batches), accumulate):
            window = batches[first : first + accumulate]
            numbers = [plan.epoch * len(batches) + first + k + 1 for k in range(len(window))]
            optimizer.zero_grad()
            for batch in window:
                images = torch.stack([torch.as_tensor(data[draw]["image"]) for draw in batch])
                (network(images).square().mean() / len(window)).backward()
            if bad not in numbers:
                optimizer.step()
    return network.state_dict()


def test_gradients_that_are_not_finite_cost_one_step_where_they_are_clipped(
    tmp_path: Path, told: Callable[..., None]
) -> None:
    seen = iter(range(1, 99))

    def steep(output: torch.Tensor, _: Any) -> torch.Tensor:
        return (output - output.detach()).sqrt() if next(seen) == 6 else output.square()  # 0, and infinitely steep

    _, quarantine = train(tmp_path, data_of(None, tmp_path), loss=steep, step={"clip_norm": 1.0})
    (line,) = lines(tmp_path)
    good = (line["code"], line["iteration"], quarantine.counts()) == ("step.gradients", 6, {"step": 1})
    told("numbers", "infinite gradients once, clipped", good)


@pytest.mark.parametrize(
    ("every", "sentence"),
    [
        (1, r"^iteration 5: the weights are not finite, so that no checkpoint of them is written; resume from"),
        (99, r"^iteration 6: the loss of ct_.* as the weights are not; resume from"),
    ],
)
def test_weights_that_are_not_finite_stop_the_run_and_reach_no_checkpoint(
    every: int, sentence: str, tmp_path: Path, told: Callable[..., None]
) -> None:
    seen = iter(range(1, 99))

    def explode(output: torch.Tensor, _: Any) -> torch.Tensor:
        return output.square() * (output - output.detach()).sqrt() if next(seen) == 5 else output.square()

    # Not clipped, so the step is taken: the loss was finite, its gradient was not.
    with pytest.raises(RunError, match=sentence) as caught:
        train(tmp_path, data_of(None, tmp_path), loss=explode, max_skipped=99, every=every)
    saved = [torch.load(path, weights_only=True)["model"] for path in (tmp_path / "models").glob("*.pt")]
    good = len(saved) == (4 if every == 1 else 0)
    good &= all(bool(weights.isfinite().all()) for state in saved for weights in state.values())
    told(
        "numbers",
        f"NaN weights, a checkpoint every {every}",
        good and caught.value.code == "run.weights",
        word="caught",
    )


def test_losses_that_are_never_finite_stop_the_run(tmp_path: Path, told: Callable[..., None]) -> None:
    with pytest.raises(
        RunError, match=r"^iteration 3: the loss of .* is nan; .* \(number 3 of epoch 1, and max_skipped"
    ):
        train(tmp_path, data_of(None, tmp_path), loss=nan_at(*range(99)), max_skipped=2)
    told("numbers", "NaN loss for ever", len(lines(tmp_path)) == 3, word="caught")


@pytest.mark.parametrize("what", ["chunk", "missing"])
def test_a_torn_or_missing_volume_of_a_store_is_replaced_by_weight(
    what: str, tmp_path: Path, add_volume: Callable[..., None], told: Callable[..., None]
) -> None:
    store = tmp_path / "store"
    for number in range(5):
        add_volume(store, f"ct_{number}", seed=number)
    crop = RandStoreCropd("image", str(store), (5, 1, 1), window_hu=(-1024, 3071))
    data = DrawDataset([{"image": f"ct_{n}"} for n in range(5)], crop, seed=5)
    path = store / "ct_3.b2nd"
    if what == "missing":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    weights = [1.0, 0.0, 2.0, 1.0, 3.0]
    runs = []
    for workers in (0, 2):
        plan = VisitPlan(weights, 24, 3, crops_per_visit=2, spread=4)
        runs.append(train(tmp_path / str(workers), data, workers, plan=plan))
    rows = [lines(tmp_path / str(workers)) for workers in (0, 2)]
    told("bad scan", f"store: {what}", same(runs[0][0], runs[1][0]) and rows[0] == rows[1] and len(rows[0]) == 1)
    assert (rows[0][0]["id"], rows[0][0]["code"]) == ("ct_3", "store.altered")


def test_all_ranks_leave_out_the_step_of_one_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Callable[..., None]
) -> None:
    whole = train(tmp_path / "whole", data_of(None, tmp_path))[0]
    calls = iter(range(1, 99))
    reduced: list[int] = []

    def reduce(bad: torch.Tensor, _: Any) -> None:  # the other rank has a bad loss at its third step
        reduced.append(bad.numel())
        bad.clamp_(min=float(next(calls) == 3))

    monkeypatch.setattr("monai_ext.engines.finite_numbers.world", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", reduce)
    ours, quarantine = train(tmp_path / "ours", data_of(None, tmp_path))
    assert not same(whole, ours)
    told("numbers", "NaN loss on another rank", same(ours, by_hand(tmp_path, 1, 3)) and not quarantine.findings)
    assert reduced == [1] * 14  # one number a step


def test_another_volume_is_drawn_by_weight_and_derived(tmp_path: Path) -> None:
    plan = VisitPlan([1.0, 0.0, 3.0], 8, 3, crops_per_visit=2)
    draw = next(iter(plan))
    items = [plan.another(draw, attempt).item for attempt in range(400)]
    assert items == [plan.another(draw, attempt).item for attempt in range(400)]
    counts = np.bincount(items, minlength=3)
    assert counts[1] == 0
    assert 60 < counts[0] < 140  # a quarter of 400; the standard deviation is 9
    even = np.bincount([DrawPlan(3, 9).another(draw, attempt).item for attempt in range(300)], minlength=3)
    assert (even > 60).all()


def test_other_ranks_write_lists_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_ext.handlers.quarantine.rank", lambda: 1)
    quarantine = Quarantine(str(tmp_path))
    found = Finding("ct_1", "scan", 1, 2, "scan.damaged", "ct_1: torn; copy it again", "train", 1)
    quarantine.add(found)
    assert quarantine.path.name == "quarantine_rank1.jsonl"
    state = {"ranks": [[], quarantine.state_dict()["ranks"][0]]}
    quarantine.path.unlink()
    other = Quarantine(str(tmp_path))
    other.load_state_dict(state)
    assert other.findings == [found]
    assert other.path.exists()


@pytest.mark.parametrize(
    "wrong", [{"max_skipped": -1}, {"max_skipped": 1.5}, {"max_restarts": 0.5}, {"max_skipped": "3"}]
)
def test_impossible_budgets_are_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="give whole numbers from 0 on, or for max_skipped a share of the scans"):
        Quarantine(str(tmp_path), **wrong)
