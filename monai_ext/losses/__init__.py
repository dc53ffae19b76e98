"""Losses: masked reconstruction, class-balanced Dice and cross-entropy, and the two stages of AA-CLIP."""

from monai_ext.losses.aa_clip_stages import ImageStageLoss, TextStageLoss, anchor_overlap, detection_loss
from monai_ext.losses.balanced_maps import BalancedMapLoss
from monai_ext.losses.class_balanced import ClassBalancedDiceCE
from monai_ext.losses.class_maps import ClassMapLoss, ClassMapTerms
from monai_ext.losses.masked_patches import MaskedPatchLoss

__all__ = [
    "BalancedMapLoss",
    "ClassBalancedDiceCE",
    "ClassMapLoss",
    "ClassMapTerms",
    "ImageStageLoss",
    "MaskedPatchLoss",
    "TextStageLoss",
    "anchor_overlap",
    "detection_loss",
]
