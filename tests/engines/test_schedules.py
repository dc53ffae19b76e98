import json

import pytest
import torch

from monai_ext.base import SettingError
from monai_ext.engines.schedules import EpochWarmupCosine, WarmupCosine

EXACT = 1e-12  # of the base rate: the goldens' own tolerance, rounding only


def adamw(*rates: float) -> torch.optim.AdamW:
    return torch.optim.AdamW([{"params": [torch.zeros(3, requires_grad=True)], "lr": lr} for lr in rates])


def run(scheduler: torch.optim.lr_scheduler.LRScheduler, count: int) -> list[float]:
    """The first group's rate before each of the first ``count`` steps."""
    rates = []
    for _ in range(count):
        rates.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


@pytest.fixture(scope="module")
def golden(shared_goldens):
    return json.loads((shared_goldens / "hi_end_mae" / "lr_schedule.json").read_text())


def pretraining_errors(golden, **wrong) -> list[float]:
    errors = []
    for case in golden["pretrain"]:
        optimizer = adamw(case["base_lr"])
        settings = {"warmup_epochs": case["warmup_epochs"], "epochs": case["epochs"]} | wrong
        scheduler = WarmupCosine(optimizer, steps_per_epoch=case["iters_per_epoch"], **settings)
        steps = {s["epoch"] * case["iters_per_epoch"] + s["iteration"]: s["lr"] for s in case["steps"]}
        rates = run(scheduler, max(steps) + 1)
        errors += [abs(rates[step] - lr) / case["base_lr"] for step, lr in steps.items()]
    return errors


def test_pretraining_rates_are_the_published_ones(golden):
    assert max(pretraining_errors(golden)) <= EXACT


@pytest.mark.parametrize("wrong", [{"warmup_epochs": 9}, {"epochs": 1001}])
def test_the_golden_tells_lengths_apart(golden, wrong):
    assert max(pretraining_errors(golden, **wrong)) > 1e-5


def test_fine_tuning_rates_are_the_published_ones(golden):
    for case in golden["downstream"]:
        scheduler = EpochWarmupCosine(adamw(case["base_lr"]), case["warmup_epochs"], case["max_epochs"])
        rates = run(scheduler, case["max_epochs"])
        assert rates == pytest.approx(case["lr_during_epoch"], rel=0, abs=EXACT * case["base_lr"])


@pytest.mark.parametrize(
    "make", [lambda o: WarmupCosine(o, 2, 7, 5), lambda o: EpochWarmupCosine(o, 11, 31, 0.1, 0.01)]
)
def test_groups_keep_their_ratio(make):
    scheduler = make(adamw(3e-4, 7e-5))
    for _ in range(23):
        first, second = scheduler.get_last_lr()
        assert second == pytest.approx(first * 7 / 30, rel=1e-12)
        scheduler.optimizer.step()
        scheduler.step()


def test_start_and_final_are_shares_of_the_full_rate():
    rates = run(EpochWarmupCosine(adamw(2.0), 3, 13, start=0.25, final=0.125), 14)
    assert [rates[0], rates[2], rates[3], rates[13]] == [0.5, 2.0, 2.0, 0.25]


def test_past_the_end_the_rate_stays_down():
    assert run(WarmupCosine(adamw(1.0), 0, 3, 5), 23)[15:] == [0.0] * 8
    assert run(EpochWarmupCosine(adamw(1.0), 0, 3, final=0.5), 7)[3:] == [0.5] * 4


@pytest.mark.parametrize("warmup", [0, 1])
def test_short_warm_ups_reach_the_full_rate(warmup):
    rates = run(EpochWarmupCosine(adamw(1.0), warmup, 5), 5)
    assert rates[warmup] == 1.0
    assert rates[:warmup] == [0.0] * warmup


@pytest.mark.parametrize("make", [lambda o: WarmupCosine(o, 2, 7, 5), lambda o: EpochWarmupCosine(o, 11, 31)])
def test_resumed_rates_are_the_uninterrupted_ones(make):
    whole = run(make(adamw(3e-4)), 29)
    optimizer = adamw(3e-4)
    first = make(optimizer)
    begun = run(first, 13)
    saved = torch.optim.Optimizer.state_dict(optimizer), first.state_dict()
    optimizer = adamw(3e-4)
    second = make(optimizer)
    optimizer.load_state_dict(saved[0])
    second.load_state_dict(saved[1])
    assert begun + run(second, 16) == whole


def test_another_schedule_is_not_taken_over_silently():
    saved = WarmupCosine(adamw(1.0), 2, 7, 5).state_dict()
    with pytest.raises(SettingError, match="epochs: the checkpoint was trained with 7, now it is 11") as caught:
        WarmupCosine(adamw(1.0), 2, 11, 5).load_state_dict(saved)
    assert caught.value.code == "setting.schedule_changed"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((7, 7, 5), "warmup_epochs 7 of 7 epochs"),
        ((-1, 7, 5), "warmup_epochs -1 of 7 epochs"),
        ((0, 0, 5), "warmup_epochs 0 of 0 epochs"),
        ((1, "7", 5), "warmup_epochs 1 of 7 epochs"),
        ((None, 7, 5), "warmup_epochs None of 7 epochs"),
        ((2, 7, 0), "steps_per_epoch: 0 is not at least 1"),
    ],
)
def test_impossible_lengths_are_named(arguments, words):
    with pytest.raises(SettingError, match=words):
        WarmupCosine(adamw(1.0), *arguments)
