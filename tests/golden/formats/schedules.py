"""Learning rates: of pretraining by step, of fine-tuning by epoch."""

from typing import Any

import torch
from torch.optim import SGD, Optimizer

from formats.comparison import Comparison, Tolerance
from formats.golden import Golden
from monai_ext.engines.schedules import EpochWarmupCosine, WarmupCosine

# Shares of base_lr.
TOLERANCES = (
    ("*.steps.lr", Tolerance(1e-12)),
    ("*.lr_during_epoch", Tolerance(1e-12)),
    ("*.warmup_start_lr", Tolerance(1e-12)),
    ("*.eta_min", Tolerance(1e-12)),
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

    def schedule(epoch: int, iteration: int) -> WarmupCosine:
        done = epoch * per_epoch + iteration
        return WarmupCosine(_optimizer(base), case["warmup_epochs"], case["epochs"], per_epoch, last_epoch=done - 1)

    first = schedule(0, 0)
    compare(f"{name}.base_lr", first.base_lrs[0])
    compare(f"{name}.warmup_epochs", first.warmup_epochs)
    compare(f"{name}.epochs", first.epochs)
    compare(f"{name}.iters_per_epoch", first.steps_per_epoch)
    compare.expect(*(f"{name}.steps.{column}" for column in ("epoch", "iteration", "epoch_float", "lr")))
    steps = [schedule(step["epoch"], step["iteration"]) for step in case["steps"]]
    compare(f"{name}.steps.lr", [step.get_last_lr()[0] for step in steps], scale=base)
    compare(f"{name}.steps.epoch", [step.last_epoch // per_epoch for step in steps])
    compare(f"{name}.steps.iteration", [step.last_epoch % per_epoch for step in steps])
    epochs = [step["epoch"] + step["iteration"] / per_epoch for step in case["steps"]]
    compare(f"{name}.steps.epoch_float", epochs)


def _check_fine_tuning(case: dict[str, Any], name: str, compare: Comparison) -> None:
    base, count = case["base_lr"], case["max_epochs"]
    start, final = case.get("warmup_start_lr", 0.0) / base, case.get("eta_min", 0.0) / base

    def schedule(epoch: int) -> EpochWarmupCosine:
        return EpochWarmupCosine(_optimizer(base), case["warmup_epochs"], count, start, final, last_epoch=epoch - 1)

    first = schedule(0)
    compare(f"{name}.base_lr", first.base_lrs[0])
    compare(f"{name}.warmup_epochs", first.warmup_epochs)
    compare(f"{name}.max_epochs", first.epochs)
    compare(f"{name}.warmup_start_lr", first.start * base, scale=base)
    compare(f"{name}.eta_min", first.final * base, scale=base)
    compare.expect(f"{name}.lr_during_epoch")
    compare(f"{name}.lr_during_epoch", [schedule(epoch).get_last_lr()[0] for epoch in range(count)], scale=base)


def _optimizer(base: float) -> Optimizer:
    # Schedules start as if resumed: a stored step may lie 100,000 steps into a run.
    return SGD([{"params": [torch.zeros(1, requires_grad=True)], "lr": base, "initial_lr": base}])
