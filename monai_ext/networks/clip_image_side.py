"""The image tower with its adapters: all that runs on a picture once the anchors are known."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from monai_ext.networks.clip_activation import frugal_activation
from monai_ext.networks.clip_adapters import ImageAdapter
from monai_ext.networks.clip_attention import token_attention
from monai_ext.networks.clip_towers import plain_blocks, scoped_hooks


def level_tokens(visual: Any, levels: Sequence[int], images: Tensor) -> list[Tensor]:
    """Return the patch tokens after each level through the tower's last LayerNorm.

    Args:
        visual: image tower of open_clip.
        levels: blocks, counted from 1, rising.
        images: normalised pictures of the tower's size.

    Shape:
        ``(b, 3, h, w) -> (b, n, d)`` for each level
    """
    tower = visual.transformer
    with plain_blocks(tower), token_attention(tower), frugal_activation(tower):
        return visual.forward_intermediates(
            images,
            indices=[level - 1 for level in levels],
            stop_early=True,
            normalize_intermediates=True,
            intermediates_only=True,
            output_fmt="NLC",
        )["image_intermediates"]


def adapted_patches(
    visual: Any, adapter: ImageAdapter, levels: Sequence[int], images: Tensor
) -> tuple[list[Tensor], Tensor]:
    """Return the adapted patches of each level, and the mean patch for the detection.

    Args:
        visual: image tower of open_clip.
        adapter: its adapters.
        levels: blocks, counted from 1, rising.
        images: normalised pictures of the tower's size.

    Shape:
        ``(b, 3, h, w) -> (b, n, e)`` for each level, and ``(b, e)``
    """
    with scoped_hooks(visual.transformer.resblocks, adapter.residuals()):
        tokens = level_tokens(visual, levels, images)
    patches = [F.normalize(project(level), dim=-1) for project, level in zip(adapter.seg_proj, tokens, strict=True)]
    return patches, F.normalize(adapter.det_proj(tokens[-1]), dim=-1).mean(dim=1)
