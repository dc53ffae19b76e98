"""What the shapes of tensors tell: the sizes of a network, and why weights do not fit another."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from monai_ext.base import WeightsError
from monai_ext.networks.checkpoint_names import count_layers
from monai_ext.networks.positions import sincos_positions

# Frozen positions are stored in float32 at best; those of any other grid or order differ by more than 0.1.
_SAME_POSITIONS = 1e-3

# First match wins: name, axis of the shape that differs (None: any), setting that decides it.
_SETTINGS: Sequence[tuple[str, int | None, str]] = (
    (r"encoder\.patch_embedding\.weight", 0, "encoder_width"),
    (r"encoder\.patch_embedding\.weight", 1, "in_channels"),
    (r"encoder\.patch_embedding\.weight", None, "patch_size"),
    (r"vit\.patch_embedding\.patch_embeddings\.1\.weight", 0, "encoder_width"),
    (r"vit\.patch_embedding\.patch_embeddings\.1\.weight", None, "patch_size or in_channels"),
    (
        r"(encoder_pos_embed|decoder_pos_embed|vit\.patch_embedding\.position_embeddings)",
        1,
        "image_size or patch_size",
    ),
    (r"(decoder_pos_embed|mask_token)", None, "decoder_width"),
    (r"encoder_to_decoder\..*", 0, "decoder_width"),
    (r"encoder_to_decoder\..*", None, "encoder_width"),
    (r"decoder\.head\..*", 0, "patch_size or in_channels"),
    (r"decoder\..*", None, "decoder_width"),
    (r"out\..*", 0, "out_channels"),
    (r"encoder1\.layer\.conv[13]\.conv\.weight", 1, "in_channels"),
    (r"(encoder|decoder)\d\.(transp.*|blocks\.\d+\.0\..*)", 2, "patch_size or decoder_stride"),
    (r"(encoder|decoder)\d\.(transp.*|blocks\.\d+\.0\..*)", 3, "patch_size or decoder_stride"),
    (r"(encoder|decoder)\d\.(transp.*|blocks\.\d+\.0\..*)", 4, "patch_size or decoder_stride"),
    (r"(encoder|decoder)\d\.transp_conv.*", 0, "encoder_width or feature_size"),
    (r"((encoder|decoder)\d|out)\..*", None, "feature_size"),
    (r".*", None, "encoder_width"),
)
_DEPTHS = (
    (r"(encoder|vit)\.blocks\.", "encoder_depth"),
    (r"decoder\.blocks\.", "decoder_self_depth"),
    (r"(decoder\.cross_attention_blocks|encoder_to_decoder)\.", "taps"),
    (r"(encoder|decoder)\d\.", "patch_size"),
)


def sizes_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments of :class:`HiEndMAE` that weights in this package's names tell.

    Attention heads cannot be told from the weights, and of the taps only their number, ``cross_depth``. An
    encoder by itself has nothing of the decoder; learned positions, those of a fine-tuned network, do not
    tell the ``image_size``.

    Raises:
        WeightsError: the patch embedding or the positions are absent.

    >>> from monai_ext.networks import HiEndMAE
    >>> sizes_of(HiEndMAE.tiny().state_dict())["patch_size"]
    (8, 8, 8)
    """
    for name in ("encoder.patch_embedding.weight", "encoder_pos_embed"):
        if name not in state:
            raise WeightsError(
                f"{name}: absent, so that the sizes of the network cannot be told; give the whole encoder",
                code="weights.missing",
            )
    width, channels, *patch_size = state["encoder.patch_embedding.weight"].shape
    sizes: dict[str, Any] = {
        "patch_size": tuple(patch_size),
        "in_channels": channels,
        "encoder_width": width,
        "encoder_depth": count_layers(state, "encoder.blocks"),
    }
    grid = grid_of_positions(state["encoder_pos_embed"])
    if grid is not None:
        sizes["image_size"] = tuple(cells * voxels for cells, voxels in zip(grid, patch_size, strict=True))
    if "mask_token" in state:
        sizes["decoder_width"] = state["mask_token"].shape[-1]
        sizes["decoder_self_depth"] = count_layers(state, "decoder.blocks")
        sizes["cross_depth"] = count_layers(state, "decoder.cross_attention_blocks")
    return sizes


def grid_of_positions(table: Tensor) -> tuple[int, int, int] | None:
    """Return the patch grid whose fixed positions these are, or ``None`` if they are no grid's.

    Shape:
        table ``(1, n, d)``
    """
    tokens, width = table.shape[1], table.shape[2]
    if width % 6:
        return None
    column = width // 6
    numbers = torch.arange(tokens)
    for gx, gy, gz in _grids(tokens):
        axes = (numbers // (gy * gz), numbers // gz % gy, numbers % gz)
        # The fastest sine of each axis decides; the whole table is compared only for the one that fits.
        if all(
            torch.allclose(table[0, :, 2 * axis * column].float(), place.float().sin(), atol=_SAME_POSITIONS)
            for axis, place in enumerate(axes)
        ) and same_positions(table, sincos_positions((gx, gy, gz), width)):
            return gx, gy, gz
    return None


def same_positions(stored: Tensor, computed: Tensor) -> bool:
    """Tell whether stored positions are the computed ones, up to rounding."""
    return stored.shape == computed.shape and bool(
        torch.allclose(stored.float(), computed.float(), rtol=0, atol=_SAME_POSITIONS)
    )


def setting_behind(name: str, stored: Sequence[int], expected: Sequence[int]) -> str:
    """Return the constructor's argument that most likely explains two different shapes."""
    differing = [axis for axis, pair in enumerate(zip(stored, expected, strict=False)) if pair[0] != pair[1]]
    for pattern, axis, setting in _SETTINGS:
        if re.fullmatch(pattern, name) and (axis is None or axis in differing):
            return setting
    raise AssertionError(name)  # the last pattern matches every name


def depth_behind(name: str) -> str:
    """Return the constructor's argument that most likely explains a tensor too many or too few."""
    return next((setting for pattern, setting in _DEPTHS if re.match(pattern, name)), "published")


def _grids(tokens: int) -> list[tuple[int, int, int]]:
    return [
        (gx, gy, tokens // (gx * gy))
        for gx in range(1, tokens + 1)
        if tokens % gx == 0
        for gy in range(1, tokens // gx + 1)
        if tokens // gx % gy == 0
    ]
