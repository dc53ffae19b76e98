"""Build the segmentation network that a file's settings describe, and say what was built."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.networks.blocks.dynunet_block import UnetResBlock
from torch import nn

from formats.comparison import Comparison
from formats.hi_end_mae import as_stored_size, layer_norm_eps
from monai_ext.networks import TAPS, HiEndSegmenter

# The goldens' words for the arguments of HiEndSegmenter.
_ARGUMENTS = {
    "in_channels": "in_channels",
    "hidden_size": "encoder_width",
    "num_layers": "encoder_depth",
    "num_heads": "encoder_heads",
    "feature_size": "feature_size",
}


def build(
    config: Mapping[str, Any], taps: Sequence[int] = TAPS, device: str = "cpu", published: bool = True
) -> HiEndSegmenter:
    """Return the network of a ``config`` in the goldens' words, in eval mode.

    Args:
        config: as stored; what it leaves out keeps this package's default.
        taps: encoder blocks counted from 1.
        device: ``"meta"`` for sizes alone.
        published: the published network, or this package's own.
    """
    settings = {ours: config[theirs] for theirs, ours in _ARGUMENTS.items() if theirs in config}
    with torch.device(device):
        network = HiEndSegmenter(
            config["out_channels"],
            config["img_size"],
            config["patch_size"],
            taps=taps,
            published=published,
            **settings,
        )
    return network.eval()


def compare_config(prefix: str, config: Mapping[str, Any], network: HiEndSegmenter, compare: Comparison) -> None:
    """Compare every setting with what is read off the built network."""
    first = network.vit.blocks[0]
    embedding = network.vit.patch_embedding.patch_embeddings
    norms = [part for part in network.modules() if isinstance(part, nn.InstanceNorm3d)]
    built = {
        "in_channels": network.in_channels,
        "out_channels": network.out.conv.conv.out_channels,
        "img_size": list(network.image_size),
        "patch_size": list(network.patch_size),
        "num_layers": len(network.vit.blocks),
        "proj_type": {nn.Linear: "perceptron", nn.Conv3d: "conv"}.get(type(embedding[-1])),
        "norm_name": "instance" if norms and not any(norm.affine for norm in norms) else None,
        "conv_block": isinstance(network.encoder2.blocks[0][-1], nn.Module),
        "res_block": isinstance(network.encoder1.layer, UnetResBlock),
        "dropout_rate": max(part.p for part in network.modules() if isinstance(part, nn.Dropout)),
        "qkv_bias": first.attn.qkv.bias is not None,
        "layernorm_eps": layer_norm_eps(network),
        "hidden_size": network.vit.norm.normalized_shape[0],
        "mlp_dim": first.mlp.linear1.out_features,
        "num_heads": first.attn.num_heads,
        "feature_size": network.encoder1.layer.conv1.out_channels,
    }
    for key, value in built.items():
        compare(f"{prefix}.{key}", as_stored_size(config.get(key), value))
