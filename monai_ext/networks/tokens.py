"""Volumes as patch tokens, and back."""

import torch
from einops.layers.torch import Rearrange
from torch import Tensor, nn


class PatchTokens(nn.Module):
    """Fold a volume into patch tokens; the channel varies fastest inside a token.

    The released weights fix that order (Tang et al. 2025, arXiv:2502.08347).

    Args:
        patch_size: voxels per patch along x, y, z.

    Shape:
        ``(b, c, x, y, z) -> (b, n, px*py*pz*c)``

    Raises:
        ValueError: an axis is not a whole number of patches.
    """

    def __init__(self, patch_size: tuple[int, int, int]) -> None:
        super().__init__()
        self.patch_size = patch_size
        px, py, pz = patch_size
        self.fold = Rearrange("b c (gx px) (gy py) (gz pz) -> b (gx gy gz) (px py pz c)", px=px, py=py, pz=pz)

    def forward(self, volume: Tensor) -> Tensor:
        for axis, patch in enumerate(self.patch_size):
            size = volume.shape[2 + axis]
            if size % patch != 0:
                raise ValueError(
                    f"axis {'xyz'[axis]}: {size} voxels is not a whole number of {patch}-voxel patches; "
                    f"pad the volume to {size + patch - size % patch} with SpatialPadd first"
                )
        return self.fold(volume)


class TokensToVolume(nn.Module):
    """Put patch tokens back into a volume: the inverse of :class:`PatchTokens`.

    Args:
        patch_size: voxels per patch along x, y, z.
        grid: patches along x, y, z.

    Shape:
        ``(b, n, px*py*pz*c) -> (b, c, x, y, z)``
    """

    def __init__(self, patch_size: tuple[int, int, int], grid: tuple[int, int, int]) -> None:
        super().__init__()
        px, py, pz = patch_size
        gx, gy, gz = grid
        self.unfold = Rearrange(
            "b (gx gy gz) (px py pz c) -> b c (gx px) (gy py) (gz pz)",
            gx=gx, gy=gy, gz=gz, px=px, py=py, pz=pz,
        )  # fmt: skip

    def forward(self, tokens: Tensor) -> Tensor:
        return self.unfold(tokens)


def take_tokens(tokens: Tensor, numbers: Tensor) -> Tensor:
    """Pick tokens by number, each sample its own.

    Shape:
        tokens ``(b, n, d)`` or ``(1, n, d)``, numbers ``(b, k)`` ``-> (b, k, d)``
    """
    tokens = tokens.expand(numbers.shape[0], -1, -1)
    return tokens.gather(1, numbers.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def hide_tokens(tokens: Tensor, masked: Tensor) -> Tensor:
    """Return a copy with the numbered tokens set to zero.

    Shape:
        tokens ``(b, n, d)``, masked ``(b, m)`` ``-> (b, n, d)``
    """
    return tokens.scatter(1, masked.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]), 0.0)


def draw_shuffle(batch: int, tokens: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw the order in which a masked autoencoder takes the tokens, each sample its own.

    Drawn on the CPU, so that a seed gives the same masks on every device.

    Args:
        batch: number of samples ``b``.
        tokens: patches per sample ``n``.
        generator: a CPU generator; torch's global one by default.

    Returns:
        ``(b, n)`` int64; each row holds every token number once.
    """
    return torch.rand(batch, tokens, generator=generator, device="cpu").argsort(dim=1)


@torch.compiler.disable
def send_shuffle(batch: int, tokens: int, device: torch.device) -> Tensor:
    """Draw the order of the tokens on the CPU, and send it to a device without waiting for it.

    Compiled code ends before it and begins after it, so that the numbers drawn are those of :func:`draw_shuffle`.

    Shape:
        ``-> (batch, tokens)`` int64 on the device
    """
    drawn = draw_shuffle(batch, tokens)
    # From ordinary memory a copy would wait until the card has done all its work.
    return drawn.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else drawn.to(device)
