"""Loading weights into networks, every tensor accounted for."""

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn

from monai_ext.base import SettingError, WeightsError
from monai_ext.networks.checkpoint_account import Account
from monai_ext.networks.checkpoint_conversion import convert
from monai_ext.networks.checkpoint_files import Checkpoint, naming, open_checkpoint
from monai_ext.networks.checkpoint_names import kind_of, unwrap
from monai_ext.networks.checkpoint_sizes import (
    depth_behind,
    grid_of_positions,
    same_positions,
    setting_behind,
    sizes_of,
)
from monai_ext.networks.hi_end_mae import HiEndMAE
from monai_ext.networks.hi_end_segmenter import HiEndSegmenter
from monai_ext.networks.positions import sincos_positions

_POSITIONS = ("encoder_pos_embed", "decoder_pos_embed", "vit.patch_embedding.position_embeddings")


def load_into(
    network: nn.Module,
    source: str | os.PathLike[str] | Mapping[str, Tensor] | Checkpoint,
    *,
    positions: Literal["stored", "recomputed"] = "stored",
) -> Account:
    """Load weights of any known kind into a network and account for every tensor.

    Takes this package's and the authors' pretraining weights, whole or encoder only, and those of the
    segmentation network. Only a decoder that the source does not have at all keeps its random start.

    Args:
        network: :class:`HiEndMAE`, :class:`HiEndReconstructor` or :class:`HiEndSegmenter`; changed in place,
            but only if everything fits.
        source: a file, what :func:`open_checkpoint` read from one, or tensors by name.
        positions: ``"stored"`` wants the pretrained positions to be those of the network's own grid;
            ``"recomputed"`` drops them, for images of another size.

    Raises:
        WeightsError: the file cannot be read, a tensor is missing, unknown or of another shape; the network
            is unchanged then.
        SettingError: the network is none of those, or ``positions`` is no such word.
    """
    checkpoint = _as_checkpoint(source)
    if not isinstance(network, HiEndMAE | HiEndSegmenter) or positions not in ("stored", "recomputed"):
        raise SettingError(
            f"load_into: cannot load into {type(network).__name__} with positions={positions!r}; "
            "give a HiEndMAE or HiEndSegmenter and 'stored' or 'recomputed'",
            code="setting.load",
        )
    segmenter = isinstance(network, HiEndSegmenter)
    with naming(checkpoint.source):
        tensors, converted = convert(
            checkpoint.tensors,
            "segmenter" if segmenter else "monai_ext",
            patch_size=network.patch_size,
            published=network.published,
        )
    own = network.state_dict()
    learned = segmenter and kind_of(unwrap(checkpoint.tensors)) == "segmenter"
    computed = {
        name: sincos_positions(network.grid, own[name].shape[2])
        for name in _POSITIONS
        if name in tensors and name in own
    }
    dropped = {**converted.dropped, **checkpoint.beside}
    initialised: dict[str, str] = {}
    if positions == "recomputed":
        reason = f"positions are computed anew for {_by(network.grid)} patches"
        dropped |= dict.fromkeys(computed, reason)
        initialised |= dict.fromkeys(computed, reason)
        tensors |= computed
    pretrained = {} if learned or positions == "recomputed" else computed
    _check_shapes({n: t for n, t in tensors.items() if n not in pretrained}, own, checkpoint.source)
    for name, table in pretrained.items():
        _check_positions(name, tensors[name], table, network.grid, checkpoint.source)
    loaded = tuple(name for name in own if name in tensors and name not in initialised)
    initialised |= _missing(tensors, own, segmenter, checkpoint.source)
    network.load_state_dict({**own, **tensors})
    return Account(checkpoint.source, loaded, MappingProxyType(dropped), MappingProxyType(initialised))


def check_whole(state: Mapping[str, Tensor], source: str) -> None:
    """Refuse pretraining weights, in this package's names, that fit no network: a tensor short or misshapen.

    Args:
        state: a whole network or an encoder.
        source: what to call them in the message.

    Raises:
        WeightsError: naming the tensor.
    """
    sizes = sizes_of(state)
    decoder = {
        "decoder_width": sizes.get("decoder_width", 6),
        "decoder_self_depth": sizes.get("decoder_self_depth", 0),
        "taps": range(1, sizes.get("cross_depth", 1) + 1),
    }
    tokens, (px, py, pz) = state["encoder_pos_embed"].shape[1], sizes["patch_size"]
    with torch.device("meta"):
        like = HiEndMAE(
            (tokens * px, py, pz),  # any grid of as many patches has tensors of the same shapes
            sizes["patch_size"],
            sizes["in_channels"],
            sizes["encoder_width"],
            sizes["encoder_depth"],
            encoder_heads=1,
            decoder_heads=1,
            mask_ratio=0.5,
            **decoder,
        )
    _check_shapes(state, like.state_dict(), source)
    _missing(state, like.state_dict(), False, source)


def _as_checkpoint(source: str | os.PathLike[str] | Mapping[str, Tensor] | Checkpoint) -> Checkpoint:
    if isinstance(source, Checkpoint):
        return source
    return Checkpoint("weights", dict(source)) if isinstance(source, Mapping) else open_checkpoint(source)


def _check_positions(name: str, stored: Tensor, computed: Tensor, grid: tuple[int, int, int], source: str) -> None:
    if not same_positions(stored, computed):
        found = grid_of_positions(stored)
        theirs = f"those of {_by(found)} patches" if found else f"no grid's ({stored.shape[1]} rows)"
        raise WeightsError(
            f"{source}: the positions in {name} are {theirs}, the network has {_by(grid)}; "
            "choose its image_size and patch_size accordingly, or load with positions='recomputed'",
            code="weights.positions",
        )


def _check_shapes(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str) -> None:
    # The patch embedding first: its shape tells most about what is different.
    for name in sorted(own, key=lambda name: "patch_embedding" not in name or name in _POSITIONS):
        if name in tensors and tensors[name].shape != own[name].shape:
            stored, expected = list(tensors[name].shape), list(own[name].shape)
            raise WeightsError(
                f"{source}: {name} has shape {stored}, the network needs {expected}; "
                f"build it with the {setting_behind(name, stored, expected)} of the weights",
                code="weights.shape",
            )
    surplus = [name for name in tensors if name not in own]
    if surplus:
        raise WeightsError(
            f"{source}: the network has no {_some(surplus)}; build it with the {depth_behind(surplus[0])} "
            "of the weights",
            code="weights.surplus",
        )


def _missing(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], segmenter: bool, source: str) -> dict[str, str]:
    encoder = ("vit.",) if segmenter else ("encoder.", "encoder_pos_embed")
    absent = [name for name in own if name not in tensors]
    if all(name.startswith(encoder) for name in tensors):
        allowed = [name for name in absent if not name.startswith(encoder)]
        absent = [name for name in absent if name.startswith(encoder)]
    else:
        allowed = []
    if absent:
        raise WeightsError(
            f"{source}: {_some(absent)} is missing; build the network with the {depth_behind(absent[0])} "
            "of the weights, or save the whole network again",
            code="weights.missing",
        )
    reason = "the checkpoint holds an encoder only"
    return {name: "computed for the grid" if name in _POSITIONS else reason for name in allowed}


def _some(names: list[str]) -> str:
    return names[0] + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")


def _by(grid: tuple[int, int, int]) -> str:
    return "x".join(map(str, grid))
