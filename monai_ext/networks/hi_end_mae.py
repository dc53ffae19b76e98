"""Hi-End-MAE: a masked autoencoder whose decoder reads several stages of the encoder."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from monai_ext.base import SettingError
from monai_ext.networks.patch_norm import normalise_patches
from monai_ext.networks.positions import sincos_positions
from monai_ext.networks.sizes import (
    ENCODERS,
    check_heads,
    check_positive,
    check_taps,
    grid_of,
    triple,
    visible_count,
)
from monai_ext.networks.tokens import PatchTokens, draw_shuffle, send_shuffle, take_tokens
from monai_ext.networks.transformer import CrossTapDecoder, TokenEncoder, TokenProjection

TAPS = (4, 7, 10)  # blocks counted from 1; the released weights were trained with these three


class MAEOutput(NamedTuple):
    """What a masked autoencoder says about the patches it did not see.

    Attributes:
        prediction: normalised voxels of the masked patches, ``(b, m, p)``, in shuffled order.
        target: their true normalised voxels, ``(b, m, p)``.
        shuffle_indices: ``(b, n)``, token numbers, the visible ones first.
    """

    prediction: Tensor
    target: Tensor
    shuffle_indices: Tensor


class HiEndMAE(nn.Module):
    """Masked autoencoder with hierarchical encoder-driven decoding (Tang et al. 2025, arXiv:2502.08347).

    The encoder sees the visible patches behind a class token. The decoder first attends to itself over
    visible and mask tokens, then to the un-normed outputs of the tapped encoder blocks, deepest first.

    Args:
        image_size: voxels along x, y, z.
        patch_size: voxels per patch along x, y, z.
        in_channels: channels of the volume.
        encoder_width: size of an encoder token, a multiple of 6.
        encoder_depth: encoder blocks.
        encoder_heads: attention heads of the encoder.
        decoder_width: size of a decoder token, a multiple of 6.
        decoder_self_depth: self-attention blocks before the cross-attention blocks.
        decoder_heads: attention heads of the decoder.
        taps: encoder blocks, counted from 1, that the cross-attention blocks read; one block each.
        mask_ratio: share of patches that the encoder does not see.
        published: count the visible patches as the published code does, see :func:`visible_count`.
        recompute: run the encoder and decoder blocks again in the backward pass instead of keeping what they
            computed; the same numbers with a fraction of the memory, for about a third more time.

    Shape:
        image ``(b, c, x, y, z)``, optional shuffle_indices ``(b, n)`` ``->`` :class:`MAEOutput`

    Raises:
        SettingError: sizes that do not fit together; the message names the setting.
    """

    def __init__(
        self,
        image_size: int | Sequence[int],
        patch_size: int | Sequence[int],
        in_channels: int = 1,
        encoder_width: int = 1536,
        encoder_depth: int = 12,
        encoder_heads: int = 16,
        decoder_width: int = 528,
        decoder_self_depth: int = 2,
        decoder_heads: int = 16,
        taps: Sequence[int] = TAPS,
        mask_ratio: float = 0.75,
        published: bool = False,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, encoder_depth=encoder_depth)
        check_positive(encoder_width=encoder_width, decoder_width=decoder_width)
        check_positive(encoder_heads=encoder_heads, decoder_heads=decoder_heads)
        check_heads("encoder", encoder_width, encoder_heads)
        check_heads("decoder", decoder_width, decoder_heads)
        if decoder_self_depth < 0:
            raise SettingError(
                f"decoder_self_depth: {decoder_self_depth} is negative; give 0 or more blocks",
                code="setting.count",
            )
        self.image_size, self.patch_size = triple("image_size", image_size), triple("patch_size", patch_size)
        self.in_channels, self.published = in_channels, published
        self.grid = grid_of(self.image_size, self.patch_size)
        self.tokens = self.grid[0] * self.grid[1] * self.grid[2]
        self.taps = check_taps(taps, encoder_depth)
        self.visible = visible_count(self.tokens, mask_ratio, published)
        patch_voxels = in_channels * self.patch_size[0] * self.patch_size[1] * self.patch_size[2]

        self.fold = PatchTokens(self.patch_size)
        self.encoder = TokenEncoder(
            TokenProjection(self.patch_size, in_channels, encoder_width),
            encoder_width,
            encoder_depth,
            encoder_heads,
            recompute=recompute,
        )
        # One projection per tap, shallowest first, and the last for the encoder's normalised output.
        self.encoder_to_decoder = nn.ModuleList(
            nn.Linear(encoder_width, decoder_width) for _ in range(len(self.taps) + 1)
        )
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_width))
        self.decoder = CrossTapDecoder(
            decoder_width, decoder_self_depth, len(self.taps), decoder_heads, patch_voxels, recompute
        )
        self.encoder_pos_embed = frozen(sincos_positions(self.grid, encoder_width))
        self.decoder_pos_embed = frozen(sincos_positions(self.grid, decoder_width))
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    @classmethod
    def base_p16(cls, **overrides: Any) -> Self:
        """Return the published base model with 16-voxel patches, 101.6 M trainable parameters."""
        return cls(**{**ENCODERS["base_p16"], "decoder_width": 384, "decoder_heads": 12, **overrides})

    @classmethod
    def large_p16(cls, **overrides: Any) -> Self:
        """Return the published large model with 16-voxel patches, 371.8 M trainable parameters."""
        return cls(**{**ENCODERS["large_p16"], **overrides})

    @classmethod
    def large_p12(cls, **overrides: Any) -> Self:
        """Return the published large model with 12-voxel patches, 366.9 M trainable parameters."""
        return cls(**{**ENCODERS["large_p12"], **overrides})

    @classmethod
    def tiny(
        cls,
        image_size: int | Sequence[int] = (48, 48, 48),
        patch_size: int | Sequence[int] = (8, 8, 8),
        **overrides: Any,
    ) -> Self:
        """Return a model of 1.6 M parameters for tests and demonstrations; it has no published weights."""
        small = {"decoder_width": 48, "decoder_self_depth": 1, "decoder_heads": 4}
        return cls(image_size, patch_size, **{**ENCODERS["tiny"], **small, **overrides})

    def forward(self, image: Tensor, shuffle_indices: Tensor | None = None) -> MAEOutput:
        # First, for what is compiled begins after it: random numbers of the CPU are drawn as ever.
        shuffle = self.shuffle_for(image, shuffle_indices)
        patches = self.patches(image)
        masked = shuffle[:, self.visible :]
        hidden, encoded = self.encode(patches, shuffle)
        decoded = self.decode(hidden, encoded, shuffle)
        prediction = self.decoder.head(decoded[:, 1 + self.visible :])
        return MAEOutput(prediction, normalise_patches(take_tokens(patches, masked)), shuffle)

    def patches(self, image: Tensor) -> Tensor:
        """Fold an image of the right size: ``(b, c, x, y, z) -> (b, n, p)``.

        Raises:
            ValueError: the image has other channels or another size than the network.
        """
        expected = [self.in_channels, self.image_size[0], self.image_size[1], self.image_size[2]]
        if list(image.shape[1:]) != expected:
            raise ValueError(
                f"image: shape {list(image.shape)} is not [batch] + {expected}; "
                "crop or pad it to that size, or build the network with another image_size or in_channels"
            )
        return self.fold(image)

    def shuffle_for(self, samples: Tensor, shuffle_indices: Tensor | None = None) -> Tensor:
        """Return the token order of each sample on the device of the samples, drawn if none is given.

        Shape:
            samples ``(b, ...)``, shuffle_indices ``(b, n)`` or ``None`` ``-> (b, n)`` int64

        Raises:
            ValueError: the indices have another shape, or a row is not a permutation.
        """
        batch = samples.shape[0]
        if shuffle_indices is None:
            if torch.jit.is_scripting():
                return draw_shuffle(batch, self.tokens).to(samples.device)
            else:  # TorchScript reads no code after a return
                return send_shuffle(batch, self.tokens, samples.device)
        if list(shuffle_indices.shape) != [batch, self.tokens]:
            raise ValueError(
                f"shuffle_indices: shape {list(shuffle_indices.shape)} is not [{batch}, {self.tokens}]; "
                "give one row of token numbers per sample"
            )
        order = torch.arange(self.tokens, device=shuffle_indices.device)
        if not bool((shuffle_indices.sort(dim=1)[0] == order).all()):
            raise ValueError(
                f"shuffle_indices: a row does not hold every number from 0 to {self.tokens - 1} once; "
                "draw it with monai_ext.networks.draw_shuffle"
            )
        return shuffle_indices.to(samples.device)

    def encode(self, patches: Tensor, shuffle_indices: Tensor) -> tuple[list[Tensor], Tensor]:
        """Encode the visible patches.

        Shape:
            patches ``(b, n, p)``, shuffle_indices ``(b, n)`` ``->`` the output of every block and the
            last one normalised, all ``(b, 1 + s, d)`` with the class token first
        """
        visible = shuffle_indices[:, : self.visible]
        embedded = self.encoder.patch_embedding(take_tokens(patches, visible))
        return self.encoder(embedded + take_tokens(self.encoder_pos_embed, visible))

    def decode(self, hidden: list[Tensor], encoded: Tensor, shuffle_indices: Tensor) -> Tensor:
        """Decode all patches from what :meth:`encode` returned.

        Shape:
            ``-> (b, 1 + n, d)``, class row first, then in shuffled order; ``decoder.head`` makes voxels of it
        """
        memories: list[Tensor] = []
        queries = encoded
        for number, project in enumerate(self.encoder_to_decoder):
            if number < len(self.taps):
                memories.insert(0, project(hidden[self.taps[number] - 1]))
            else:
                queries = project(encoded)
        masks = self.mask_token.expand(queries.shape[0], self.tokens - self.visible, -1).to(queries.dtype)
        tokens = torch.cat([queries[:, 1:], masks], dim=1)
        tokens = tokens + take_tokens(self.decoder_pos_embed, shuffle_indices)
        return self.decoder(torch.cat([queries[:, :1], tokens], dim=1), memories)

    def predict(self, patches: Tensor, shuffle_indices: Tensor) -> Tensor:
        """Predict the normalised voxels of every patch, visible ones too, in the order of the grid.

        Shape:
            patches ``(b, n, p)``, shuffle_indices ``(b, n)`` ``-> (b, n, p)``
        """
        hidden, encoded = self.encode(patches, shuffle_indices)
        decoded = self.decode(hidden, encoded, shuffle_indices)
        return take_tokens(self.decoder.head(decoded[:, 1:]), shuffle_indices.argsort(dim=1))


def frozen(table: Tensor) -> nn.Parameter:
    """Return a parameter that is saved with the weights but never trained."""
    return nn.Parameter(table, requires_grad=False)
