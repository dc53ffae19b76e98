"""The segmentation network: the pretrained encoder with a UNETR-style decoder."""

from collections.abc import Iterator, Sequence
from typing import Any, Self

import torch.nn.functional as F
from einops.layers.torch import Rearrange
from monai.networks.blocks.dynunet_block import UnetOutBlock
from monai.networks.blocks.unetr_block import UnetrBasicBlock, UnetrUpBlock
from torch import Tensor, nn

from monai_ext.base import SettingError
from monai_ext.networks.hi_end_mae import TAPS
from monai_ext.networks.positions import sincos_positions
from monai_ext.networks.sizes import ENCODERS, check_heads, check_positive, check_taps, grid_of, triple
from monai_ext.networks.tokens import PatchTokens
from monai_ext.networks.transformer import EPSILON, TokenEncoder, initialise_
from monai_ext.networks.unetr_parts import Kernel, ResizeUpBlock, skip_path, up_steps


class PositionedPatches(nn.Module):
    """Embed the patches of a volume and add where they lie; the positions may be trained.

    Args:
        image_size: voxels along x, y, z.
        patch_size: voxels per patch along x, y, z.
        in_channels: channels of the volume.
        width: size of a token, a multiple of 6.

    Shape:
        ``(b, c, x, y, z) -> (b, n, d)``
    """

    def __init__(
        self, image_size: tuple[int, int, int], patch_size: tuple[int, int, int], in_channels: int, width: int
    ) -> None:
        super().__init__()
        voxels = in_channels * patch_size[0] * patch_size[1] * patch_size[2]
        self.patch_embeddings = nn.Sequential(PatchTokens(patch_size), nn.Linear(voxels, width))
        self.position_embeddings = nn.Parameter(sincos_positions(grid_of(image_size, patch_size), width))
        initialise_(self)

    def forward(self, volume: Tensor) -> Tensor:
        return self.patch_embeddings(volume) + self.position_embeddings


class HiEndSegmenter(nn.Module):
    """Segment with a Hi-End-MAE encoder and the decoder of UNETR (Hatamizadeh et al. 2022, arXiv:2103.10504).

    Published for 12-voxel patches of 96 voxels cubed, here for any size: up-sampling follows the patch,
    axis by axis (:func:`up_steps`), and ends at the size of the image.

    Args:
        out_channels: classes, background included.
        image_size: voxels along x, y, z.
        patch_size: voxels per patch along x, y, z.
        in_channels: channels of the volume.
        encoder_width: size of an encoder token, a multiple of 6.
        encoder_depth: encoder blocks.
        encoder_heads: attention heads.
        feature_size: channels at full resolution; 2, 4 and 8 times as many below.
        taps: the three encoder blocks, counted from 1, that feed the skip connections, shallowest first.
        decoder_stride: decode on a grid this much coarser than the image, then resize the logits: 2 takes a
            third of the time, small structures lose detail. Published as 1.
        published: the published network: no class token and LayerNorm eps 1e-5, so that hidden states stray
            from those of pretraining by up to 4e-2. By default both are as in pretraining.

    Shape:
        ``(b, c, x, y, z) -> (b, out_channels, x, y, z)`` logits

    Raises:
        SettingError: sizes that do not fit together; the message names the setting.
    """

    def __init__(
        self,
        out_channels: int,
        image_size: int | Sequence[int],
        patch_size: int | Sequence[int],
        in_channels: int = 1,
        encoder_width: int = 1536,
        encoder_depth: int = 12,
        encoder_heads: int = 16,
        feature_size: int = 32,
        taps: Sequence[int] = TAPS,
        decoder_stride: int = 1,
        published: bool = False,
    ) -> None:
        super().__init__()
        check_positive(out_channels=out_channels, in_channels=in_channels, encoder_depth=encoder_depth)
        check_positive(encoder_heads=encoder_heads, feature_size=feature_size, decoder_stride=decoder_stride)
        check_positive(encoder_width=encoder_width)
        check_heads("encoder", encoder_width, encoder_heads)
        self.image_size, self.patch_size = triple("image_size", image_size), triple("patch_size", patch_size)
        self.in_channels, self.encoder_depth, self.published = in_channels, encoder_depth, published
        self.coarse = decoder_stride > 1
        self.fine_size = triple("image_size", [-(-size // decoder_stride) for size in self.image_size])
        self.grid = grid_of(self.image_size, self.patch_size)
        self.taps = check_taps(taps, encoder_depth)
        if len(self.taps) != 3:
            raise SettingError(
                f"taps: {self.taps} are {len(self.taps)} blocks; the decoder has three skip connections, "
                "give three, for example [4, 7, 10]",
                code="setting.taps",
            )
        self.vit = TokenEncoder(
            PositionedPatches(self.image_size, self.patch_size, in_channels, encoder_width),
            encoder_width,
            encoder_depth,
            encoder_heads,
            class_token=not published,
            epsilon=1e-5 if published else EPSILON,
        )
        gx, gy, gz = self.grid
        self.to_volume = Rearrange("b (gx gy gz) d -> b d gx gy gz", gx=gx, gy=gy, gz=gz)
        steps = up_steps(self.patch_size, decoder_stride)
        fine, half, quarter, eighth = (feature_size * factor for factor in (1, 2, 4, 8))
        self.encoder1 = UnetrBasicBlock(3, in_channels, fine, 3, 1, "instance", res_block=True)
        self.encoder2 = skip_path(encoder_width, half, steps)
        self.encoder3 = skip_path(encoder_width, quarter, steps[:2])
        self.encoder4 = skip_path(encoder_width, eighth, steps[:1])
        self.decoder5 = _up(encoder_width, eighth, steps[0])
        self.decoder4 = _up(eighth, quarter, steps[1])
        self.decoder3 = _up(quarter, half, steps[2])
        self.decoder2 = ResizeUpBlock(half, fine)
        self.out = UnetOutBlock(3, fine, out_channels)

    @classmethod
    def base_p16(cls, out_channels: int, **overrides: Any) -> Self:
        """Return a network for the published base encoder with 16-voxel patches."""
        return cls(out_channels, **{**ENCODERS["base_p16"], **overrides})

    @classmethod
    def large_p16(cls, out_channels: int, **overrides: Any) -> Self:
        """Return a network for the published large encoder with 16-voxel patches."""
        return cls(out_channels, **{**ENCODERS["large_p16"], **overrides})

    @classmethod
    def large_p12(cls, out_channels: int, **overrides: Any) -> Self:
        """Return a network for the published large encoder with 12-voxel patches."""
        return cls(out_channels, **{**ENCODERS["large_p12"], **overrides})

    @classmethod
    def tiny(
        cls,
        out_channels: int,
        image_size: int | Sequence[int] = (48, 48, 48),
        patch_size: int | Sequence[int] = (8, 8, 8),
        **overrides: Any,
    ) -> Self:
        """Return a small network with the encoder of :meth:`HiEndMAE.tiny`, for tests and demonstrations.

        Its decoder works at half the resolution, where a training step takes a third of the time.
        """
        small = {**ENCODERS["tiny"], "feature_size": 8, "decoder_stride": 2}
        return cls(out_channels, image_size, patch_size, **{**small, **overrides})

    def forward(self, image: Tensor) -> Tensor:
        expected = [self.in_channels, self.image_size[0], self.image_size[1], self.image_size[2]]
        if list(image.shape[1:]) != expected:
            raise ValueError(
                f"image: shape {list(image.shape)} is not [batch] + {expected}; "
                "slide a window of that size, or build the network with another image_size or in_channels"
            )
        hidden, deepest = self.vit(self.vit.patch_embedding(image))
        skip4 = self.encoder4(self.volume(hidden[self.taps[2] - 1]))
        skip3 = self.encoder3(self.volume(hidden[self.taps[1] - 1]))
        skip2 = self.encoder2(self.volume(hidden[self.taps[0] - 1]))
        merged = self.decoder5(self.volume(deepest), skip4)
        merged = self.decoder4(merged, skip3)
        merged = self.decoder3(merged, skip2)
        fine = F.adaptive_avg_pool3d(image, self.fine_size) if self.coarse else image
        logits = self.out(self.decoder2(merged, self.encoder1(fine)))
        if self.coarse:
            logits = F.interpolate(logits, size=image.shape[2:], mode="trilinear", align_corners=False)
        return logits

    def volume(self, tokens: Tensor) -> Tensor:
        """Lay tokens on the patch grid, less the class token: ``(b, [1 +] n, d) -> (b, d, gx, gy, gz)``."""
        return self.to_volume(tokens if self.published else tokens[:, 1:])

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that pretraining can provide: all but the decoder's."""
        return self.vit.parameters()

    def layer_of(self, name: str) -> int:
        """Return how deep a parameter lies, for learning rates that fall layer by layer.

        Args:
            name: as in ``named_parameters``.

        Returns:
            0 for patch embedding, class token and positions, ``k`` for the k-th encoder block,
            ``encoder_depth + 1`` for the encoder's last norm and the decoder.
        """
        part, _, rest = name.partition(".")
        if part != "vit":
            return self.encoder_depth + 1
        if rest.startswith("blocks."):
            return int(rest.split(".")[1]) + 1
        # BEiT (Bao et al. 2022, arXiv:2106.08254) and MAE (He et al. 2022, arXiv:2111.06377) fine-tune the last norm
        # at the head's rate: it stands behind the blocks and serves only what is learned anew.
        return self.encoder_depth + 1 if rest.startswith("norm.") else 0


def _up(in_channels: int, out_channels: int, kernel: Kernel) -> UnetrUpBlock:
    return UnetrUpBlock(3, in_channels, out_channels, 3, kernel, "instance", res_block=True)
