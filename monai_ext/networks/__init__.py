"""Networks: Hi-End-MAE, its reconstruction and segmentation forms, AA-CLIP on open_clip, and their weights."""

from monai_ext.networks.aa_clip import AAClip, Stage1Output, Stage2Output
from monai_ext.networks.anomaly_localizer import AnomalyLocalizer, ImageSide, export_localizer
from monai_ext.networks.anomaly_maps import BLURS, AnomalyMaps, Localization
from monai_ext.networks.checkpoints import (
    Account,
    convert,
    load_into,
    open_weights,
    read_checkpoint,
)
from monai_ext.networks.clip_adapter_files import (
    AdapterRecord,
    adapted_clip,
    load_adapters,
    read_adapters,
    save_adapters,
)
from monai_ext.networks.clip_adapter_import import import_adapters
from monai_ext.networks.clip_inputs import ClipInput, clip_input
from monai_ext.networks.clip_models import ClipModel, load_clip, load_clip_weights
from monai_ext.networks.clip_prompts import ClassPrompts, PromptTable
from monai_ext.networks.hi_end_mae import TAPS, HiEndMAE, MAEOutput
from monai_ext.networks.hi_end_reconstructor import HiEndReconstructor
from monai_ext.networks.hi_end_segmenter import HiEndSegmenter
from monai_ext.networks.patch_norm import denormalise_patches, normalise_patches
from monai_ext.networks.positions import sincos_positions
from monai_ext.networks.sizes import visible_count
from monai_ext.networks.tokens import PatchTokens, TokensToVolume, draw_shuffle, hide_tokens, take_tokens

__all__ = [
    "BLURS",
    "TAPS",
    "AAClip",
    "Account",
    "AdapterRecord",
    "AnomalyLocalizer",
    "AnomalyMaps",
    "ClassPrompts",
    "ClipInput",
    "ClipModel",
    "HiEndMAE",
    "HiEndReconstructor",
    "HiEndSegmenter",
    "ImageSide",
    "Localization",
    "MAEOutput",
    "PatchTokens",
    "PromptTable",
    "Stage1Output",
    "Stage2Output",
    "TokensToVolume",
    "adapted_clip",
    "clip_input",
    "convert",
    "denormalise_patches",
    "draw_shuffle",
    "export_localizer",
    "hide_tokens",
    "import_adapters",
    "load_adapters",
    "load_clip",
    "load_clip_weights",
    "load_into",
    "normalise_patches",
    "open_weights",
    "read_adapters",
    "read_checkpoint",
    "save_adapters",
    "sincos_positions",
    "take_tokens",
    "visible_count",
]
