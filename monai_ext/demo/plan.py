"""How much the demonstration trains in the minutes it is given."""

from dataclasses import dataclass

from monai_ext.base import SettingError

# Measured on two cores, without graphics card: seconds of everything but training, and per iteration; the two
# are a third above what an idle machine needs, so that the promised minutes hold on a busier one.
_FIXED_S = 75.0
_PRETRAIN_STEP_S = 0.14
_FINETUNE_STEP_S = 0.14
_PRETRAIN_SHARE = 0.56


@dataclass(frozen=True)
class DemoPlan:
    """The sizes of one demonstration.

    Attributes:
        patients: phantoms per section of the datalist.
        pretrain_epochs: epochs of `PRETRAIN_STEPS` iterations.
        finetune_epochs: epochs of `FINETUNE_STEPS` iterations.
    """

    patients: dict[str, int]
    pretrain_epochs: int
    finetune_epochs: int


PRETRAIN_STEPS = 30
FINETUNE_STEPS = 32


def plan_demo(minutes: float) -> DemoPlan:
    """Divide the time between pretraining and fine-tuning.

    Args:
        minutes: for the whole demonstration on two CPU cores.

    Raises:
        SettingError: too short to train at all.
    """
    training_s = 60 * minutes - _FIXED_S
    if not training_s >= 15:
        raise SettingError(f"minutes: {minutes:g} leaves no time to train; give at least 1.5", code="setting.minutes")
    pretrain = training_s * _PRETRAIN_SHARE / (_PRETRAIN_STEP_S * PRETRAIN_STEPS)
    finetune = training_s * (1 - _PRETRAIN_SHARE) / (_FINETUNE_STEP_S * FINETUNE_STEPS)
    return DemoPlan(
        patients={"training": 16, "validation": 1, "test": 3},
        pretrain_epochs=max(2, int(pretrain)),
        finetune_epochs=max(2, int(finetune)),
    )
