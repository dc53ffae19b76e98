"""Names of tensors in this package, in the authors' checkpoints and in the segmentation network."""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from monai_ext.base import SettingError, WeightsError
from monai_ext.networks.checkpoint_account import Account

Kind = Literal["monai_ext", "authors", "segmenter"]
Target = Literal["monai_ext", "authors", "authors_encoder", "segmenter"]

_NO_DECODER = "the segmentation network has a decoder of its own"
_ENCODER_ONLY = "only the encoder was asked for"
_UNUSED_NORM = "created by MONAI's ViT, but no part of what it computes"
_NO_CLASS_TOKEN = "the published segmentation network has no class token"
_CONVOLUTIONS = "the pretraining network has no convolutions"

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
_VIT = {
    "encoder_pos_embed": "vit.patch_embedding.position_embeddings",
    "encoder.patch_embedding.weight": "vit.patch_embedding.patch_embeddings.1.weight",
    "encoder.patch_embedding.bias": "vit.patch_embedding.patch_embeddings.1.bias",
}
_WRAPPERS = ("module.", "_orig_mod.")  # DistributedDataParallel, torch.compile


class Converted(NamedTuple):
    """Tensors under their new names, and what became of each."""

    tensors: dict[str, Tensor]
    account: Account


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


def convert(
    state: Mapping[str, Tensor],
    to: Target = "monai_ext",
    *,
    patch_size: Sequence[int] | None = None,
    published: bool = False,
) -> Converted:
    """Rename and reshape weights between this package, the authors' and the segmentation network.

    Encoder-only states stay encoder-only. Gradients and other tensors of the same names convert alike.

    Args:
        state: tensors by name, see :func:`kind_of`; prefixes of wrappers are taken off.
        to: ``"monai_ext"`` and ``"authors"`` pretraining networks, ``"authors_encoder"`` without decoder,
            or ``"segmenter"``, the encoder part of the segmentation network.
        patch_size: voxels per patch, for a segmentation network whose patches are not cubes:
            its own weights do not tell.
        published: leave out the class token when converting to ``"segmenter"``.

    Raises:
        WeightsError: a name that belongs to none of them, or half of a pair that the authors stack.
    """
    state = unwrap(state)
    kind = kind_of(state)
    dropped: dict[str, str] = {}
    if kind == "segmenter" and to == "segmenter":
        tensors = _without_unused(state, dropped)
    else:
        tensors = _to_ours(state, kind, patch_size, dropped)
        if to == "segmenter":
            tensors = _to_vit(tensors, dropped)
        elif to in ("authors", "authors_encoder"):
            tensors = _to_authors(tensors, to == "authors_encoder", dropped)
        elif to != "monai_ext":
            raise SettingError(
                f"to: {to!r} is none of monai_ext, authors, authors_encoder, segmenter", code="setting.target"
            )
    if to == "segmenter" and published and tensors.pop("vit.cls_token", None) is not None:
        dropped["vit.cls_token" if kind == "segmenter" else "encoder.cls_token"] = _NO_CLASS_TOKEN
    return Converted(tensors, Account("weights", tuple(tensors), MappingProxyType(dropped)))


def _to_ours(
    state: dict[str, Tensor], kind: Kind, patch_size: Sequence[int] | None, dropped: dict[str, str]
) -> dict[str, Tensor]:
    if kind == "segmenter":
        return _from_vit(state, patch_size, dropped)
    table = authors_names(state)
    if kind == "monai_ext":
        _refuse_unknown(state, {ours for parts in table.values() for ours in parts})
        return dict(state)
    _refuse_unknown(state, set(table))
    found: dict[str, Tensor] = {}
    for theirs, ours in table.items():
        if theirs in state:
            found |= zip(ours, state[theirs].chunk(len(ours)), strict=True)
    return found


def _to_authors(ours: dict[str, Tensor], encoder_only: bool, dropped: dict[str, str]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for theirs, parts in authors_names(ours).items():
        here = [part for part in parts if part in ours]
        if encoder_only and not theirs.startswith(("encoder.", "encoder_pos_embed")):
            dropped |= dict.fromkeys(here, _ENCODER_ONLY)
        elif here:
            if len(here) < len(parts):
                missing = next(part for part in parts if part not in ours)
                raise WeightsError(
                    f"{missing}: absent, but stacked with {here[0]}; save the whole network again",
                    code="weights.missing",
                )
            found[theirs] = torch.cat([ours[part] for part in parts]) if len(parts) > 1 else ours[parts[0]]
    return found


def _to_vit(ours: dict[str, Tensor], dropped: dict[str, str]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, tensor in ours.items():
        if name == "encoder.patch_embedding.weight":
            tensor = tensor.permute(0, 2, 3, 4, 1).flatten(1)  # channel fastest, as in a token
        if name in _VIT or name.startswith("encoder."):
            found[_VIT.get(name, "vit." + name.removeprefix("encoder."))] = tensor
        else:
            dropped[name] = _NO_DECODER
    return found


def _from_vit(state: dict[str, Tensor], patch_size: Sequence[int] | None, dropped: dict[str, str]) -> dict[str, Tensor]:
    names = {theirs: ours for ours, theirs in _VIT.items()}
    found: dict[str, Tensor] = {}
    for name, tensor in _without_unused(state, dropped).items():
        if not name.startswith("vit."):
            dropped[name] = _CONVOLUTIONS
            continue
        ours = names.get(name, "encoder." + name.removeprefix("vit."))
        if ours == "encoder.patch_embedding.weight":
            shape = _kernel_shape(tensor, state, patch_size)
            px, py, pz, channels = shape
            tensor = tensor.reshape(-1, px, py, pz, channels).permute(0, 4, 1, 2, 3).contiguous()
        found[ours] = tensor
    _refuse_unknown(found, {ours for parts in authors_names(found).values() for ours in parts})
    return found


def _kernel_shape(
    weight: Tensor, state: Mapping[str, Tensor], patch_size: Sequence[int] | None
) -> tuple[int, int, int, int]:
    first = state.get("encoder1.layer.conv1.conv.weight")
    channels = 1 if first is None else first.shape[1]
    side = round((weight.shape[1] / channels) ** (1 / 3))
    px, py, pz = patch_size or (side, side, side)
    if px * py * pz * channels != weight.shape[1]:
        raise WeightsError(
            f"vit.patch_embedding.patch_embeddings.1.weight: {weight.shape[1]} columns are not patches of "
            f"{px}x{py}x{pz} voxels with {channels} channels; give the network's patch_size",
            code="weights.patch_size",
        )
    return px, py, pz, channels


def _without_unused(state: dict[str, Tensor], dropped: dict[str, str]) -> dict[str, Tensor]:
    unused = [name for name in state if re.fullmatch(r"vit\.blocks\.\d+\.norm_cross_attn\.(weight|bias)", name)]
    dropped |= dict.fromkeys(unused, _UNUSED_NORM)
    return {name: tensor for name, tensor in state.items() if name not in dropped}


def _refuse_unknown(state: Mapping[str, Tensor], known: set[str]) -> None:
    unknown = sorted(set(state) - known)
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise WeightsError(
            f"{unknown[0]}{more}: not a tensor of Hi-End-MAE; remove it from the checkpoint, or use that "
            "network's own loader",
            code="weights.unknown",
        )
