"""Weights renamed and reshaped between this package, the authors' checkpoints and the segmentation network."""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from monai_ext.base import SettingError, WeightsError
from monai_ext.networks.checkpoint_account import Account
from monai_ext.networks.checkpoint_names import Kind, authors_names, kind_of, unwrap

Target = Literal["monai_ext", "authors", "authors_encoder", "segmenter"]

_NO_DECODER = "the segmentation network has a decoder of its own"
_ENCODER_ONLY = "only the encoder was asked for"
_UNUSED_NORM = "created by MONAI's ViT, but no part of what it computes"
_NO_CLASS_TOKEN = "the published segmentation network has no class token"
_CONVOLUTIONS = "the pretraining network has no convolutions"

_VIT = {
    "encoder_pos_embed": "vit.patch_embedding.position_embeddings",
    "encoder.patch_embedding.weight": "vit.patch_embedding.patch_embeddings.1.weight",
    "encoder.patch_embedding.bias": "vit.patch_embedding.patch_embeddings.1.bias",
}


class Converted(NamedTuple):
    """Tensors under their new names, and what became of each."""

    tensors: dict[str, Tensor]
    account: Account


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
