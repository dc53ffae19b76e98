"""Settings of the localization bundle for the small CLIP, shared by the demonstration and the benchmark."""

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from monai_ext.demo import small_clip
from monai_ext.demo.lesion_crops import CROP_PX, SHAPE, SPACING_MM
from monai_ext.demo.lesion_scores import BLUR

LOCALIZE = "aa_clip_lesion_localization"
CLIP: Mapping[str, Any] = MappingProxyType(
    {
        "architecture": str(small_clip.CONFIG),
        "clip_weights": str(small_clip.WEIGHTS),
        "clip_sha256": small_clip.SHA256,
        "activation": "gelu",
        "prompts": str(small_clip.PROMPTS),
        "dataset_name": "Phantoms",
    }
)
# Every block gets an adapter, with a larger share than as published: this CLIP has little that they could spoil.
TRAINING: Mapping[str, Any] = MappingProxyType(
    {
        "image_size": CROP_PX,
        "levels": [1, 2, 3, 4],
        "image_adapt_until": 4,
        "image_adapt_weight": 0.5,
        "temperature": 20.0,
        "map_loss": "balanced",
        "text_epochs": 4,
        "text_batch_size": 16,
        "text_learning_rate": 1e-3,
        "orthogonality": 1.0,
        "batch_size": 8,
        "learning_rate": 4e-3,
        "betas": [0.9, 0.999],
        "gamma": 0.3,
        "jitter": 0.1,
        "rotate_prob": 0.0,
        "shift_prob": 0.0,
        "held_out": 0.1,
        "num_workers": 0,
        "score_size": CROP_PX,
        "check_pictures": False,
        "ckpt_interval": 100_000,
    }
)
SMALLEST_MM3 = 100.0
SMALLEST_VOXELS = math.ceil(SMALLEST_MM3 / math.prod(SPACING_MM))
# Rows of a slice are y, columns x: the same 2 mm a pixel as the crops.
VOLUMES: Mapping[str, Any] = MappingProxyType(
    {
        "image_size": [SHAPE[1], SHAPE[0]],
        "class_name": "organ",
        "blur": list(BLUR),
        "body_only": True,
        "skip_background": True,
        "smooth_mm": 3.0,
        "min_volume_mm3": SMALLEST_MM3,
        "batch_size": 4,
    }
)


def training_settings(listed: Path, output: Path, epochs: int, seed: int) -> dict[str, Any]:
    """Return what trains both stages on a list of crops.

    Args:
        listed: that ``write_crops`` wrote.
        output: folder of the run.
        epochs: of stage 2, whose rate falls after 60 and 85 % of its iterations.
        seed: of every draw.
    """
    pictures = len(listed.read_text(encoding="utf-8").splitlines()) * (1 - TRAINING["held_out"])
    iterations = epochs * math.ceil(pictures / TRAINING["batch_size"])
    return {
        **CLIP,
        **TRAINING,
        "milestones": [int(0.6 * iterations), int(0.85 * iterations)],
        "dataset_dir": str(listed.parent),
        "data_list_file_path": str(listed),
        "output_dir": str(output),
        "epochs": epochs,
        "seed": seed,
    }


def volume_settings(scans: Path, adapters: Path, output: Path) -> dict[str, Any]:
    """Return what localizes in a folder of phantom volumes, or calibrates on them."""
    return {
        **CLIP,
        **VOLUMES,
        "dataset_dir": str(scans),
        "adapters": str(adapters),
        "output_dir": str(output),
    }
