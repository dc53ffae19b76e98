"""Whose names the tensors of a checkpoint bear, and which of ours they stand for."""

import re
from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from monai_ext.base import WeightsError

Kind = Literal["monai_ext", "authors", "segmenter"]

# Ours on the left. Two names joined by "+" are stacked in one tensor of the authors'.
_SELF_BLOCK = {
    "norm1": "norm1",
    "attn.qkv": "attn.qkv",
    "attn.out_proj": "attn.proj",
    "norm2": "norm2",
    "mlp.linear1": "mlp.fc1",
    "mlp.linear2": "mlp.fc2",
}
_CROSS_BLOCK = {
    "norm1": "norm0",
    "attn.qkv": "self_attn.qkv",
    "attn.out_proj": "self_attn.proj",
    "norm_cross_attn": "norm1",
    "cross_attn.to_q": "cross_attn.q",
    "cross_attn.to_k+cross_attn.to_v": "cross_attn.kv",
    "cross_attn.out_proj": "cross_attn.proj",
    "norm2": "norm2",
    "mlp.linear1": "mlp.fc1",
    "mlp.linear2": "mlp.fc2",
}
_SINGLE = ("mask_token", "encoder_pos_embed", "decoder_pos_embed", "encoder.cls_token")  # named alike
_WRAPPERS = ("module.", "_orig_mod.")  # DistributedDataParallel, torch.compile


def unwrap(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take off the prefix that a wrapper put on every name.

    Raises:
        WeightsError: only some of the names bear it.
    """
    names = dict(state)
    for prefix in _WRAPPERS:
        wrapped = [name for name in names if name.startswith(prefix)]
        if wrapped and len(wrapped) < len(names):
            bare = next(name for name in names if not name.startswith(prefix))
            raise WeightsError(
                f"{bare}: has no prefix {prefix!r} while {wrapped[0]} has one; "
                "save all weights of one network together",
                code="weights.prefix",
            )
        names = {name.removeprefix(prefix): tensor for name, tensor in names.items()}
    if "patch_embed.proj.weight" in names:  # an encoder saved by itself
        names = {n if n == "encoder_pos_embed" else f"encoder.{n}": tensor for n, tensor in names.items()}
    return names


def kind_of(state: Mapping[str, Tensor]) -> Kind:
    """Tell whose names these are.

    Raises:
        WeightsError: neither this package's, nor the authors', nor a segmentation network's.
    """
    if any(name.startswith("vit.") for name in state):
        return "segmenter"
    if "encoder.patch_embed.proj.weight" in state:
        return "authors"
    if "encoder.patch_embedding.weight" in state:
        return "monai_ext"
    raise WeightsError(
        f"weights: no Hi-End-MAE patch embedding among {len(state)} tensors "
        f"({', '.join(sorted(state)[:3])}, ...); give weights of Hi-End-MAE or of its segmentation network",
        code="weights.kind",
    )


def count_layers(state: Mapping[str, Tensor], stack: str) -> int:
    """Return how many numbered layers ``stack`` has, as told by the highest number in the names."""
    numbers = (re.match(re.escape(stack) + r"\.(\d+)\.", name) for name in state)
    return 1 + max((int(found[1]) for found in numbers if found), default=-1)


def authors_names(state: Mapping[str, Tensor]) -> dict[str, tuple[str, ...]]:
    """Return the authors' name of every tensor, in their order, and ours: several are stacked along axis 0.

    Args:
        state: a state of either naming; the numbers of blocks are read from it.
    """
    layers = {"encoder.patch_embed.proj": "encoder.patch_embedding"}
    layers |= _blocks(state, "encoder.blocks", _SELF_BLOCK) | {"encoder.norm": "encoder.norm"}
    layers |= _blocks(state, "decoder.blocks", _SELF_BLOCK)
    layers |= _blocks(state, "decoder.cross_attention_blocks", _CROSS_BLOCK)
    layers |= {"decoder.norm": "decoder.norm", "decoder.head": "decoder.head"}
    projections = range(count_layers(state, "encoder_to_decoder"))
    layers |= {f"encoder_to_decoder.{n}": f"encoder_to_decoder.{n}" for n in projections}
    table: dict[str, tuple[str, ...]] = {name: (name,) for name in _SINGLE}
    for theirs, ours in layers.items():
        for leaf in ("weight", "bias"):
            table[f"{theirs}.{leaf}"] = tuple(f"{part}.{leaf}" for part in ours.split("+"))
    return table


def _blocks(state: Mapping[str, Tensor], stack: str, block: Mapping[str, str]) -> dict[str, str]:
    return {
        f"{stack}.{number}.{theirs}": "+".join(f"{stack}.{number}.{part}" for part in ours.split("+"))
        for number in range(count_layers(state, stack))
        for ours, theirs in block.items()
    }
