"""Where a patch lies in the volume, as sines and cosines."""

import torch
from torch import Tensor

from monai_ext.base import SettingError


def sincos_positions(grid: tuple[int, int, int], width: int, class_row: bool = False) -> Tensor:
    """Return the fixed position embedding of a patch grid.

    Columns are sin x, cos x, sin y, cos y, sin z, cos z, each ``width / 6`` wide, with frequencies
    ``10000 ** (-i / (width / 6))``; rows run with z fastest. The released weights fix that order
    (Tang et al. 2025, arXiv:2502.08347), which is not that of ``monai.networks.blocks.pos_embed_utils``.

    Args:
        grid: patches along x, y, z.
        width: size of a token.
        class_row: put one zero row first, for a class token that has no position.

    Returns:
        ``(1, gx*gy*gz, width)`` float32, with one more row if ``class_row``.

    Raises:
        SettingError: ``width`` is not a multiple of 6.

    >>> sincos_positions((8, 8, 8), 96).shape
    torch.Size([1, 512, 96])
    """
    if width < 1 or width % 6:
        raise SettingError(
            f"width: {width} is not a multiple of 6 (a sine and a cosine for each of three axes); "
            f"use {max(width - width % 6, 6)} or {max(width - width % 6, 0) + 6}",
            code="setting.width",
        )
    steps = torch.arange(width // 6, dtype=torch.float64) / (width // 6)
    frequencies = 10000.0 ** (-steps)
    axes = torch.meshgrid(*(torch.arange(size, dtype=torch.float64) for size in grid), indexing="ij")
    angles = [axis.reshape(-1, 1) * frequencies for axis in axes]
    table = torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)
    if class_row:
        table = torch.cat([torch.zeros(1, width, dtype=table.dtype), table])
    return table.float().unsqueeze(0)
