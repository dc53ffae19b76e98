"""Networks: Hi-End-MAE, its reconstruction and segmentation forms, and their weights."""

from monai_ext.networks.checkpoints import (
    Account,
    convert,
    load_into,
    load_pretrained,
    open_weights,
    read_checkpoint,
)
from monai_ext.networks.hi_end_mae import TAPS, HiEndMAE, MAEOutput
from monai_ext.networks.hi_end_reconstructor import HiEndReconstructor
from monai_ext.networks.hi_end_segmenter import HiEndSegmenter
from monai_ext.networks.patch_norm import denormalise_patches, normalise_patches
from monai_ext.networks.positions import sincos_positions
from monai_ext.networks.sizes import visible_count
from monai_ext.networks.tokens import PatchTokens, TokensToVolume, draw_shuffle, hide_tokens, take_tokens

__all__ = [
    "TAPS",
    "Account",
    "HiEndMAE",
    "HiEndReconstructor",
    "HiEndSegmenter",
    "MAEOutput",
    "PatchTokens",
    "TokensToVolume",
    "convert",
    "denormalise_patches",
    "draw_shuffle",
    "hide_tokens",
    "load_into",
    "load_pretrained",
    "normalise_patches",
    "open_weights",
    "read_checkpoint",
    "sincos_positions",
    "take_tokens",
    "visible_count",
]
