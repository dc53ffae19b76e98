"""Learning-rate schedules: linear warm-up, then half a cosine down."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from monai_ext.base import SettingError, is_number


class WarmupCosine(LRScheduler):
    """The pretraining schedule: from 0 linearly over the warm-up, then cosine to 0, set anew for every step.

    Each parameter group follows the same curve scaled to the ``lr`` it was made with, so layer-wise rates
    keep their ratios. Call ``step()`` after every optimizer step. Past the last epoch the rate stays 0.

    Args:
        optimizer: its groups' ``lr`` are the rates at the end of the warm-up.
        warmup_epochs: length of the linear rise; 0 starts at the full rate.
        epochs: length of the whole run, warm-up included.
        steps_per_epoch: optimizer steps in an epoch.
        last_epoch: steps already made, -1 for a new run (torch's name for it).

    Raises:
        SettingError: a length is negative, or the warm-up is longer than the run.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_epochs: float,
        epochs: float,
        steps_per_epoch: int,
        last_epoch: int = -1,
    ) -> None:
        _check_lengths(warmup_epochs, epochs)
        if steps_per_epoch < 1:
            raise SettingError(
                f"steps_per_epoch: {steps_per_epoch} is not at least 1; give more scans or a smaller batch",
                code="setting.schedule",
            )
        self.warmup_epochs = warmup_epochs
        self.epochs = epochs
        self.steps_per_epoch = steps_per_epoch
        super().__init__(optimizer, last_epoch)

    def factor(self, epoch: float) -> float:
        """Return the share of the full rate at a (fractional) epoch, 0 to 1."""
        if epoch < self.warmup_epochs:
            return epoch / self.warmup_epochs
        return _cosine(epoch, self.warmup_epochs, self.epochs)

    def get_lr(self) -> list[float | Tensor]:
        """Return the rate of every group for the step ahead."""
        factor = self.factor(self.last_epoch / self.steps_per_epoch)
        return [base * factor for base in self.base_lrs]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a checkpoint stopped.

        Raises:
            SettingError: the checkpoint was written with another schedule.
        """
        _check_same(self, state_dict, ("warmup_epochs", "epochs", "steps_per_epoch"))
        super().load_state_dict(state_dict)


class EpochWarmupCosine(LRScheduler):
    """The published fine-tuning schedule: one rate an epoch, so call ``step()`` once an epoch.

    Epoch 0 has the start rate, epochs ``warmup_epochs - 1`` and ``warmup_epochs`` the full one (the
    published warm-up is one epoch shorter than its name), then cosine down to the final rate.

    Args:
        optimizer: its groups' ``lr`` are the full rates.
        warmup_epochs: epochs until the cosine begins; 0 starts at the full rate.
        epochs: length of the whole run, warm-up included.
        start: rate of epoch 0 as a share of the full one.
        final: rate after the last epoch as a share of the full one.
        last_epoch: epochs already run, -1 for a new run.

    Raises:
        SettingError: a length is negative, or the warm-up is longer than the run.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_epochs: int,
        epochs: int,
        start: float = 0.0,
        final: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        _check_lengths(warmup_epochs, epochs)
        self.warmup_epochs = warmup_epochs
        self.epochs = epochs
        self.start = start
        self.final = final
        super().__init__(optimizer, last_epoch)

    def factor(self, epoch: int) -> float:
        """Return the share of the full rate in an epoch counted from 0."""
        if epoch < self.warmup_epochs:
            return self.start + (1 - self.start) * epoch / max(self.warmup_epochs - 1, 1)
        return self.final + (1 - self.final) * _cosine(epoch, self.warmup_epochs, self.epochs)

    def get_lr(self) -> list[float | Tensor]:
        """Return the rate of every group for the epoch ahead."""
        return [base * self.factor(self.last_epoch) for base in self.base_lrs]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a checkpoint stopped.

        Raises:
            SettingError: the checkpoint was written with another schedule.
        """
        _check_same(self, state_dict, ("warmup_epochs", "epochs", "start", "final"))
        super().load_state_dict(state_dict)


def _cosine(epoch: float, warmup_epochs: float, epochs: float) -> float:
    # Without the bound, a run that goes on past its end would speed up again.
    return 0.5 * (1 + math.cos(math.pi * min((epoch - warmup_epochs) / (epochs - warmup_epochs), 1)))


def _check_lengths(warmup_epochs: float, epochs: float) -> None:
    if not is_number(warmup_epochs, 0) or not is_number(epochs) or warmup_epochs >= epochs:
        raise SettingError(
            f"warmup_epochs {warmup_epochs} of {epochs} epochs: the warm-up must be at least 0 and shorter "
            "than the run; lower it or train longer",
            code="setting.schedule",
        )


def _check_same(scheduler: LRScheduler, state: Mapping[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        now = getattr(scheduler, name)
        if state[name] != now:
            raise SettingError(
                f"{name}: the checkpoint was trained with {state[name]}, now it is {now}; resume with the same "
                "number, or start a new run in another output_dir with its model.pt as pretrained",
                code="setting.schedule_changed",
            )
