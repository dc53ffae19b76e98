"""The sizes that networks are built with: checks that name the setting, and the published presets."""

from collections.abc import Mapping, Sequence
from typing import Any

from monai_ext.base import SettingError

# The published models (Tang et al. 2025, arXiv:2502.08347), and one for tests and demonstrations.
ENCODERS: Mapping[str, Mapping[str, Any]] = {
    "base_p16": {
        "image_size": (96, 96, 96),
        "patch_size": (16, 16, 16),
        "encoder_width": 768,
        "encoder_heads": 12,
    },
    "large_p16": {
        "image_size": (96, 96, 96),
        "patch_size": (16, 16, 16),
        "encoder_width": 1536,
        "encoder_heads": 16,
    },
    "large_p12": {
        "image_size": (96, 96, 96),
        "patch_size": (12, 12, 12),
        "encoder_width": 1536,
        "encoder_heads": 16,
    },
    "tiny": {"encoder_width": 96, "encoder_heads": 4},
}


def triple(name: str, value: int | Sequence[int]) -> tuple[int, int, int]:
    """Return a size along x, y, z; one number stands for all three.

    Raises:
        SettingError: not one or three positive whole numbers.
    """
    numbers = list(value) if isinstance(value, Sequence) else [value] * 3
    if len(numbers) != 3 or any(not isinstance(n, int) or n < 1 for n in numbers):
        raise SettingError(
            f"{name}: {value!r} is not a size; give three positive whole numbers, for example [96, 96, 96]",
            code="setting.size",
        )
    return numbers[0], numbers[1], numbers[2]


def grid_of(image_size: tuple[int, int, int], patch_size: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the number of patches along x, y, z.

    Raises:
        SettingError: an axis is not a whole number of patches.
    """
    for axis, size, patch in zip("xyz", image_size, patch_size, strict=True):
        if size % patch:
            raise SettingError(
                f"image_size: axis {axis} has {size} voxels, not a whole number of {patch}-voxel patches; "
                f"use {size - size % patch or patch} or {size + patch - size % patch}",
                code="setting.grid",
            )
    gx, gy, gz = (size // patch for size, patch in zip(image_size, patch_size, strict=True))
    return gx, gy, gz


def check_positive(**numbers: int) -> None:
    """Refuse counts and widths below one.

    Raises:
        SettingError: naming the first that is not a positive whole number.
    """
    for name, number in numbers.items():
        if not isinstance(number, int) or number < 1:
            raise SettingError(f"{name}: {number!r}; give a whole number of at least 1", code="setting.count")


def check_heads(name: str, width: int, heads: int) -> None:
    """Refuse a width that the attention heads cannot share evenly.

    Raises:
        SettingError: ``width`` is no multiple of ``heads``.
    """
    if width % heads:
        raise SettingError(
            f"{name}_heads: a width of {width} cannot be shared by {heads} heads; "
            f"choose a number of heads that divides {width}",
            code="setting.heads",
        )


def check_taps(taps: Sequence[int], depth: int) -> list[int]:
    """Return the encoder blocks, counted from 1, whose outputs feed the decoder.

    Raises:
        SettingError: they do not rise, or name a block that the encoder does not have.
    """
    blocks = list(taps) if isinstance(taps, Sequence) and not isinstance(taps, str) else []
    whole = all(isinstance(block, int) for block in blocks)
    if not blocks or not whole or blocks != sorted(set(blocks)) or blocks[0] < 1 or blocks[-1] > depth:
        raise SettingError(
            f"taps: {blocks or taps!r} must be rising block numbers from 1 to {depth}, for example [4, 7, 10]",
            code="setting.taps",
        )
    return blocks


def visible_count(tokens: int, mask_ratio: float, published: bool = False) -> int:
    """Return how many of the tokens the encoder sees.

    The published formula truncates a float, so that 10 tokens at a ratio of 0.9 leave none visible
    instead of one; a small offset repairs that.

    Args:
        tokens: patches per volume.
        mask_ratio: share of hidden patches, between 0 and 1.
        published: count as the published code does.

    Raises:
        SettingError: nothing would be visible, or nothing hidden.

    >>> visible_count(512, 0.75)
    128
    """
    if not isinstance(mask_ratio, int | float):
        raise SettingError(
            f"mask_ratio: {mask_ratio!r}; give a share between 0 and 1, for example 0.75", code="setting.mask_ratio"
        )
    if not 0 < mask_ratio < 1:
        raise SettingError(
            f"mask_ratio: {mask_ratio} leaves nothing to {'see' if mask_ratio >= 1 else 'predict'}; "
            "choose a share between 0 and 1, for example 0.75",
            code="setting.mask_ratio",
        )
    count = int(tokens * (1 - mask_ratio) + (0 if published else 1e-6))
    if not 0 < count < tokens:
        raise SettingError(
            f"mask_ratio: {mask_ratio} of {tokens} patches leaves {count} visible; "
            "choose another ratio or smaller patches, so that some are visible and some hidden",
            code="setting.mask_ratio",
        )
    return count
