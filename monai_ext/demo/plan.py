"""How much the demonstration trains in the minutes it is given."""

from dataclasses import dataclass

from monai_ext.base import SettingError

# Measured on the slower of two machines with two cores and without graphics card: seconds of everything but training,
# and per iteration, so that the promised minutes hold there. Where a step takes a third of that, all ends sooner.
_FIXED_S = 75.0
_PRETRAIN_STEP_S = 0.12
_FINETUNE_STEP_S = 0.33
_PRETRAIN_SHARE = 0.15
# The same of the second half: patients, scores, calibration and localization, and an epoch of stage 2.
_LESION_FIXED_S = 170.0
_ADAPTATION_EPOCH_S = 10.5


@dataclass(frozen=True)
class DemoPlan:
    """The sizes of one demonstration.

    Attributes:
        patients: phantoms per section of the datalist.
        pretrain_epochs: epochs of `PRETRAIN_STEPS` iterations.
        finetune_epochs: epochs of `FINETUNE_STEPS` iterations.
        adaptation_epochs: of stage 2 of the small CLIP; 0 where the second half is left out.
    """

    patients: dict[str, int]
    pretrain_epochs: int
    finetune_epochs: int
    adaptation_epochs: int


PRETRAIN_STEPS = 30
FINETUNE_STEPS = 32


def plan_demo(minutes: float, lesions: bool = True) -> DemoPlan:
    """Give each half of the demonstration half of the time, and divide the first between pretraining and fine-tuning.

    Args:
        minutes: for the whole demonstration on two CPU cores.
        lesions: whether there is a second half; without it the first gets all of the time.

    Raises:
        SettingError: too short to train at all.
    """
    half_s = 30 * minutes if lesions else 60 * minutes
    training_s, adaptation_s = half_s - _FIXED_S, half_s - _LESION_FIXED_S
    if not (training_s >= 15 and (adaptation_s >= 2 * _ADAPTATION_EPOCH_S or not lesions)):
        least = 6.5 if lesions else 1.5
        raise SettingError(
            f"minutes: {minutes:g} leaves no time to train; give at least {least:g}", code="setting.minutes"
        )
    pretrain = training_s * _PRETRAIN_SHARE / (_PRETRAIN_STEP_S * PRETRAIN_STEPS)
    finetune = training_s * (1 - _PRETRAIN_SHARE) / (_FINETUNE_STEP_S * FINETUNE_STEPS)
    return DemoPlan(
        patients={"training": 16, "validation": 1, "test": 3},
        pretrain_epochs=max(2, int(pretrain)),
        finetune_epochs=max(2, int(finetune)),
        adaptation_epochs=int(adaptation_s / _ADAPTATION_EPOCH_S) if lesions else 0,
    )
