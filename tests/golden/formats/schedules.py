"""Learning rates: of pretraining by step, of fine-tuning by epoch."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from formats.comparison import Comparison, Tolerance
from formats.golden import Golden
from monai_ext.engines.schedules import EpochWarmupCosine, WarmupCosine

# Shares of base_lr.
TOLERANCES = (
    ("*.steps.lr", Tolerance(1e-12)),
    ("*.lr_during_epoch", Tolerance(1e-12)),
)


def recognises(golden: Golden) -> bool:
    """Tell by the cases: runs with a base rate."""
    cases = [case for kind in ("pretrain", "downstream") for case in golden.content.get(kind, ()) if not golden.tensors]
    return bool(cases) and all(isinstance(case, dict) and "base_lr" in case for case in cases)


def check(golden: Golden, compare: Comparison) -> None:
    """Ask each schedule for the rate of each stored step."""
    for number, case in enumerate(golden.content.get("pretrain", ())):
        _check_pretraining(case, f"pretrain[{number}]", compare)
    for number, case in enumerate(golden.content.get("downstream", ())):
        _check_fine_tuning(case, f"downstream[{number}]", compare)


def _check_pretraining(case: dict[str, Any], name: str, compare: Comparison) -> None:
    per_epoch, base = case["iters_per_epoch"], case["base_lr"]
    steps = [step["epoch"] * per_epoch + step["iteration"] for step in case["steps"]]

    def schedule(optimizer: Optimizer, done: int) -> LRScheduler:
        return WarmupCosine(optimizer, case["warmup_epochs"], case["epochs"], per_epoch, last_epoch=done)

    compare(f"{name}.steps.lr", [_rate(schedule, base, step) for step in steps], scale=base)
    epochs = [step["epoch"] + step["iteration"] / per_epoch for step in case["steps"]]
    compare(f"{name}.steps.epoch_float", epochs)
    compare.setting(*(f"{name}.{key}" for key in ("base_lr", "warmup_epochs", "epochs", "iters_per_epoch")))
    compare.setting(f"{name}.steps.epoch", f"{name}.steps.iteration")


def _check_fine_tuning(case: dict[str, Any], name: str, compare: Comparison) -> None:
    base = case["base_lr"]
    start, final = case.get("warmup_start_lr", 0.0) / base, case.get("eta_min", 0.0) / base

    def schedule(optimizer: Optimizer, done: int) -> LRScheduler:
        return EpochWarmupCosine(optimizer, case["warmup_epochs"], case["max_epochs"], start, final, last_epoch=done)

    rates = [_rate(schedule, base, epoch) for epoch in range(len(case["lr_during_epoch"]))]
    compare(f"{name}.lr_during_epoch", rates, scale=base)
    compare.setting(*(f"{name}.{key}" for key in ("base_lr", "warmup_epochs", "max_epochs")))
    compare.setting(f"{name}.warmup_start_lr", f"{name}.eta_min")


def _rate(schedule: Callable[[Optimizer, int], LRScheduler], base: float, step: int) -> float:
    # As if resumed there: a stored step may lie 100,000 steps into a run.
    optimizer = SGD([{"params": [torch.zeros(1, requires_grad=True)], "lr": base, "initial_lr": base}])
    return float(schedule(optimizer, step - 1).get_last_lr()[0])
