"""Transformer parts of Hi-End-MAE, made of MONAI's blocks."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monai_ext.networks.token_block import RecomputedBlock, TokenBlock

EPSILON = 1e-6  # of every LayerNorm in pretraining; the published segmentation network uses torch's 1e-5


def pre_norm_block(
    width: int, heads: int, epsilon: float = EPSILON, cross: bool = False, recompute: bool = False
) -> TokenBlock:
    """Return a pre-norm transformer block with biased qkv, an MLP four times as wide and exact GELU.

    Args:
        width: size of a token.
        heads: attention heads; they divide the width.
        epsilon: of its LayerNorms.
        cross: attend to a second sequence between self-attention and MLP.
        recompute: compute the block again in the backward pass instead of keeping what it computed.
    """
    block = (RecomputedBlock if recompute else TokenBlock)(
        hidden_size=width,
        mlp_dim=4 * width,
        num_heads=heads,
        dropout_rate=0.0,  # with fused attention MONAI would apply it in eval mode too
        qkv_bias=True,
        with_cross_attention=cross,
        use_flash_attention=True,
    )
    if not cross:
        del block.norm_cross_attn  # never used then: DDP would wait for its gradient
    for part in block.modules():
        if isinstance(part, nn.LayerNorm):
            part.eps = epsilon
    return block


def initialise_(network: nn.Module) -> None:
    """Fill linear layers as masked autoencoders do: Xavier-uniform weights, zero biases."""
    for part in network.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)


class TokenProjection(nn.Module):
    """Project patch tokens to the width of a transformer.

    The weight is kept as a convolution kernel ``(d, c, px, py, pz)``, so that a checkpoint tells its
    patch size and channels, but applied to tokens, so that hidden patches cost nothing.

    Args:
        patch_size: voxels per patch along x, y, z.
        in_channels: channels of the volume.
        width: size of a projected token.

    Shape:
        ``(b, n, px*py*pz*c) -> (b, n, d)``
    """

    def __init__(self, patch_size: tuple[int, int, int], in_channels: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, in_channels, *patch_size))
        self.bias = nn.Parameter(torch.zeros(width))
        nn.init.xavier_uniform_(self.weight.data.view(width, -1))

    def forward(self, tokens: Tensor) -> Tensor:
        return F.linear(tokens, self.weight.permute(0, 2, 3, 4, 1).flatten(1), self.bias)


class TokenEncoder(nn.Module):
    """A vision transformer over embedded tokens that keeps what every block says.

    Args:
        patch_embedding: what makes embedded tokens; held here because it belongs to the encoder's weights.
        width: size of a token.
        depth: number of blocks.
        heads: attention heads.
        class_token: put a learned token without position before the others.
        epsilon: of every LayerNorm.
        recompute: see `pre_norm_block`.

    Shape:
        ``(b, n, d) ->`` the output of each block and the last one normalised, all ``(b, 1 + n, d)``,
        or ``(b, n, d)`` without class token
    """

    def __init__(
        self,
        patch_embedding: nn.Module,
        width: int,
        depth: int,
        heads: int,
        class_token: bool = True,
        epsilon: float = EPSILON,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.patch_embedding = patch_embedding
        self.cls_token: nn.Parameter | None = None
        if class_token:
            self.cls_token = nn.Parameter(nn.init.trunc_normal_(torch.zeros(1, 1, width), std=0.02))
        self.blocks = nn.ModuleList(pre_norm_block(width, heads, epsilon, recompute=recompute) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=epsilon)
        initialise_(self.blocks)

    def forward(self, tokens: Tensor) -> tuple[list[Tensor], Tensor]:
        if self.cls_token is not None:
            tokens = torch.cat([self.cls_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        hidden: list[Tensor] = []
        for block in self.blocks:
            tokens = block(tokens)
            hidden.append(tokens)
        return hidden, self.norm(tokens)


class CrossTapDecoder(nn.Module):
    """Self-attention blocks over all tokens, then blocks that each attend to one encoder stage.

    Args:
        width: size of a token.
        self_depth: self-attention blocks; may be 0.
        cross_depth: blocks with cross-attention.
        heads: attention heads.
        patch_voxels: numbers that the head predicts per token.
        recompute: see `pre_norm_block`.

    Shape:
        tokens ``(b, 1 + n, d)`` and one memory ``(b, 1 + s, d)`` per cross block
        ``-> (b, 1 + n, d)`` normalised, ready for ``head``: ``(..., d) -> (..., p)``
    """

    def __init__(
        self, width: int, self_depth: int, cross_depth: int, heads: int, patch_voxels: int, recompute: bool = False
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(pre_norm_block(width, heads, recompute=recompute) for _ in range(self_depth))
        self.cross_attention_blocks = nn.ModuleList(
            pre_norm_block(width, heads, cross=True, recompute=recompute) for _ in range(cross_depth)
        )
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.head = nn.Linear(width, patch_voxels)
        initialise_(self)

    def forward(self, tokens: Tensor, memories: list[Tensor]) -> Tensor:
        for block in self.blocks:
            tokens = block(tokens)
        for number, block in enumerate(self.cross_attention_blocks):
            tokens = block(tokens, memories[number])
        return self.norm(tokens)
