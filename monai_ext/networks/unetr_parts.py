"""The convolutional side of the segmentation network, from MONAI's UNETR blocks."""

import torch
import torch.nn.functional as F
from monai.networks.blocks.dynunet_block import UnetResBlock, get_conv_layer
from monai.networks.blocks.unetr_block import UnetrPrUpBlock
from torch import Tensor, nn

_NORM = "instance"
Kernel = tuple[int, int, int]


def up_steps(patch_size: tuple[int, int, int], decoder_stride: int = 1) -> list[Kernel]:
    """Return the factors along x, y, z of the three learned up-sampling steps, deepest first.

    A fourth step resizes to the image, so an axis is doubled until at most a factor of 2 is left: three
    times for patches of 9 and more voxels (published: 12 = 2 * 2 * 2 * 1.5), twice for 5 to 8. Axes with
    smaller patches join in later, when the others have become as fine.

    Args:
        patch_size: voxels per patch along x, y, z.
        decoder_stride: voxels of the image per voxel of the decoder's finest grid.

    >>> up_steps((16, 12, 4))
    [(2, 2, 1), (2, 2, 1), (2, 2, 2)]
    """
    factors = [-(-patch // decoder_stride) for patch in patch_size]
    doublings = [max(0, (factor - 1).bit_length() - 1) for factor in factors]
    steps: list[Kernel] = []
    for step in range(3):
        kx, ky, kz = (2 if step >= 3 - count else 1 for count in doublings)
        steps.append((kx, ky, kz))
    return steps


def skip_path(width: int, channels: int, steps: list[Kernel]) -> UnetrPrUpBlock:
    """Return a path that brings tokens of one encoder stage to the resolution after ``steps``.

    Shape:
        ``(b, width, gx, gy, gz) -> (b, channels, x, y, z)``
    """
    path = UnetrPrUpBlock(
        spatial_dims=3,
        in_channels=width,
        out_channels=channels,
        num_layer=0,
        kernel_size=3,
        stride=1,
        upsample_kernel_size=steps[0],
        norm_name=_NORM,
        conv_block=True,
        res_block=True,
    )
    for kernel in steps[1:]:  # UnetrPrUpBlock itself repeats one kernel; anisotropic patches need several
        up = get_conv_layer(
            3, channels, channels, kernel_size=kernel, stride=kernel, conv_only=True, is_transposed=True
        )
        path.blocks.append(nn.Sequential(up, UnetResBlock(3, channels, channels, 3, 1, _NORM)))
    return path


class ResizeUpBlock(nn.Module):
    """Resize to the size of the skip connection, then merge: the last step of the published decoder.

    Args:
        in_channels: channels from below.
        out_channels: channels of the skip connection and of the result.

    Shape:
        ``(b, in, ...)`` and skip ``(b, out, x, y, z) -> (b, out, x, y, z)``
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(in_channels, out_channels, kernel_size=3, padding=1)
        self.conv_block = UnetResBlock(3, 2 * out_channels, out_channels, 3, 1, _NORM)

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        if below.shape[2:] != skip.shape[2:]:
            below = F.interpolate(below, size=skip.shape[2:], mode="trilinear", align_corners=False)
        return self.conv_block(torch.cat([self.conv3d(below), skip], dim=1))
