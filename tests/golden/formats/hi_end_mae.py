"""Build the pretraining network that a file's settings describe, and say what was built."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from monai_ext.networks import TAPS, HiEndMAE


def build(config: Mapping[str, Any], taps: Sequence[int] = TAPS, device: str = "cpu") -> HiEndMAE:
    """Return the network of a ``config`` in the goldens' words, in eval mode.

    Args:
        config: as stored; what it leaves out keeps this package's default.
        taps: encoder blocks counted from 1.
        device: ``"meta"`` for sizes alone.
    """
    words = {
        "in_chans": "in_channels",
        "embed_dim": "encoder_width",
        "depth": "encoder_depth",
        "num_heads": "encoder_heads",
        "decoder_embed_dim": "decoder_width",
        "self_depth": "decoder_self_depth",
        "decoder_num_heads": "decoder_heads",
        "mask_ratio": "mask_ratio",
    }
    settings = {ours: config[theirs] for theirs, ours in words.items() if theirs in config}
    if "cross_source_hidden_indices_0based" in config:
        taps = sorted(block + 1 for block in config["cross_source_hidden_indices_0based"])
    with torch.device(device):
        network = HiEndMAE(config["img_size"], config["patch_size"], taps=taps, published=True, **settings)
    return network.eval()


def describe(network: HiEndMAE) -> dict[str, Any]:
    """Return what was built, in the goldens' words, read off the built parts."""
    blocks, crosses = network.encoder.blocks, network.decoder.cross_attention_blocks
    width, decoder_width = network.encoder.norm.normalized_shape[0], network.decoder.norm.normalized_shape[0]
    return {
        "img_size": list(network.image_size),
        "patch_size": list(network.patch_size),
        "in_chans": network.in_channels,
        "embed_dim": width,
        "num_heads": blocks[0].attn.num_heads,
        "depth": len(blocks),
        "decoder_embed_dim": decoder_width,
        "decoder_num_heads": crosses[0].attn.num_heads,
        "self_depth": len(network.decoder.blocks),
        "cross_depth": len(crosses),
        "cross_source_hidden_indices_0based": [tap - 1 for tap in reversed(network.taps)],
        "mlp_ratio": blocks[0].mlp.linear1.out_features // width,
        "qkv_bias": blocks[0].attn.qkv.bias is not None,
        "layernorm_eps": layer_norm_eps(network),
        "decoder_self_attn": all(hasattr(block, "attn") for block in crosses),
        "decoder_self_attn_in_cross_blocks": all(hasattr(block, "attn") for block in crosses),
        "grid_size": list(network.grid),
        "num_patches": math.prod(network.grid),
        "visible_patches": network.visible,
        "masked_patches": math.prod(network.grid) - network.visible,
        "patch_output_dim": network.decoder.head.out_features,
    }


def layer_norm_eps(network: nn.Module) -> float:
    """Return the eps of every LayerNorm, NaN if they do not agree."""
    found = {part.eps for part in network.modules() if isinstance(part, nn.LayerNorm)}
    return found.pop() if len(found) == 1 else math.nan
