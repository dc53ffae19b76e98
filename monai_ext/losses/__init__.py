"""Losses: masked reconstruction for pretraining, class-balanced Dice and cross-entropy for fine-tuning."""

from monai_ext.losses.class_balanced import ClassBalancedDiceCE
from monai_ext.losses.masked_patches import MaskedPatchLoss

__all__ = ["ClassBalancedDiceCE", "MaskedPatchLoss"]
