"""Build the pretraining network that a file's settings describe, and say what was built."""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from formats.comparison import Comparison
from monai_ext.networks import TAPS, HiEndMAE, convert, normalise_patches, visible_count

# The goldens' words for the arguments of HiEndMAE.
_ARGUMENTS = {
    "in_chans": "in_channels",
    "embed_dim": "encoder_width",
    "depth": "encoder_depth",
    "num_heads": "encoder_heads",
    "decoder_embed_dim": "decoder_width",
    "self_depth": "decoder_self_depth",
    "decoder_num_heads": "decoder_heads",
    "mask_ratio": "mask_ratio",
}


def build(config: Mapping[str, Any], taps: Sequence[int] = TAPS, device: str = "cpu") -> HiEndMAE:
    """Return the network of a ``config`` in the goldens' words, in eval mode.

    Args:
        config: as stored; what it leaves out keeps this package's default.
        taps: encoder blocks counted from 1, unless the config names them.
        device: ``"meta"`` for sizes alone.
    """
    settings = {ours: config[theirs] for theirs, ours in _ARGUMENTS.items() if theirs in config}
    if "cross_source_hidden_indices_0based" in config:
        taps = sorted(block + 1 for block in config["cross_source_hidden_indices_0based"])
    with torch.device(device):
        network = HiEndMAE(config["img_size"], config["patch_size"], taps=taps, published=True, **settings)
    return network.eval()


def compare_config(prefix: str, config: Mapping[str, Any], network: HiEndMAE, compare: Comparison) -> None:
    """Compare every setting with what is read off the built network."""
    blocks, crosses = network.encoder.blocks, network.decoder.cross_attention_blocks
    width, tokens = network.encoder.norm.normalized_shape[0], math.prod(network.grid)
    self_attention = all(isinstance(block.get_submodule("attn"), nn.Module) for block in crosses)
    built = {
        "img_size": list(network.image_size),
        "patch_size": list(network.patch_size),
        "in_chans": network.in_channels,
        "embed_dim": width,
        "num_heads": blocks[0].attn.num_heads,
        "depth": len(blocks),
        "decoder_embed_dim": network.decoder.norm.normalized_shape[0],
        "decoder_num_heads": crosses[0].attn.num_heads,
        "self_depth": len(network.decoder.blocks),
        "cross_depth": len(crosses),
        "cross_source_hidden_indices_0based": [tap - 1 for tap in reversed(network.taps)],
        "mlp_ratio": blocks[0].mlp.linear1.out_features / width,
        "qkv_bias": blocks[0].attn.qkv.bias is not None,
        "layernorm_eps": layer_norm_eps(network),
        "patch_norm_eps": inspect.signature(normalise_patches).parameters["epsilon"].default,
        "pos_embed_type": "sincos",
        "decoder_self_attn": self_attention,
        "decoder_self_attn_in_cross_blocks": self_attention,
        "grid_size": list(network.grid),
        "num_patches": tokens,
        "visible_patches": network.visible,
        "masked_patches": tokens - network.visible,
        "patch_output_dim": network.decoder.head.out_features,
        "mask_ratio": _mask_ratio(network, config.get("mask_ratio")),
        "pos_embed": _positions_in_words(network),
    }
    for key, value in built.items():
        compare(f"{prefix}.{key}", as_stored_size(config.get(key), value))


def _mask_ratio(network: HiEndMAE, stored: float | None) -> float:
    tokens = math.prod(network.grid)
    # Several ratios hide the same number of patches: the stored one is right if it does.
    if stored is not None and visible_count(tokens, stored, published=True) == network.visible:
        return stored
    return 1 - network.visible / tokens


def _positions_in_words(network: HiEndMAE) -> str:
    tables = network.encoder_pos_embed, network.decoder_pos_embed
    kept = {"encoder_pos_embed", "decoder_pos_embed"} <= network.state_dict().keys()
    learning = "trained" if any(table.requires_grad for table in tables) else "frozen"
    return f"sincos {len(network.grid)}D, {learning}, {'stored in' if kept else 'not in'} the state dict"


def as_stored_size(stored: Any, built: Any) -> Any:
    """Return a cubic size as the one number that some files store."""
    if isinstance(stored, int) and isinstance(built, list) and len(set(built)) == 1:
        return built[0]
    return built


def layer_norm_eps(network: nn.Module) -> float:
    """Return the eps of every LayerNorm, NaN if they do not agree."""
    found = {part.eps for part in network.modules() if isinstance(part, nn.LayerNorm)}
    return found.pop() if len(found) == 1 else math.nan


def authors_state(network: HiEndMAE) -> dict[str, Tensor]:
    """Return the network's weights under the authors' names."""
    return convert(network.state_dict(), "authors").tensors


def marked(tensors: Mapping[str, Tensor], marks: Mapping[str, int]) -> dict[str, Tensor]:
    """Return tensors of the same names and shapes that hold nothing but their mark, using no memory."""
    return {name: torch.tensor(float(marks[name])).expand(tensors[name].shape) for name in tensors}


def mark_of(tensor: Tensor) -> int | None:
    """Return the mark that fills a tensor; ``None`` if it was put together from several."""
    first, last = tensor[(0,) * tensor.ndim], tensor[(-1,) * tensor.ndim]
    return int(first) if first == last else None
