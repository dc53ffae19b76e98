"""A transformer block on MONAI's parameters that a GPU computes faster: heads as wide as tensor cores take them."""

import torch.nn.functional as F
from monai.networks.blocks.transformerblock import TransformerBlock
from torch import Tensor
from torch.utils.checkpoint import checkpoint


class TokenBlock(TransformerBlock):
    """MONAI's pre-norm block with fused attention and no dropout: the same parameters, names and sums.

    Two things differ from how MONAI writes it. Queries, keys and values are parted so that their gradients come
    together in one copy. On a CUDA device a head whose width is no multiple of 8 (33 in the published large decoder) is
    widened by zeros, in the small weights that project to it and from it: torch would have to widen queries, keys,
    values and their gradients at every call, and then takes a slower kernel.

    Shape:
        x ``(b, n, d)``, context ``(b, m, d)`` where it attends to one ``-> (b, n, d)``
    """

    # TorchScript compiles this, and so takes no ``self.attn`` as an argument.
    def forward(self, x: Tensor, context: Tensor | None = None, attn_mask: Tensor | None = None) -> Tensor:
        x = x + self.attend(self.norm1(x), attn_mask)
        if self.with_cross_attention:
            x = x + self.read(self.norm_cross_attn(x), context)
        return x + self.mlp(self.norm2(x))

    def attend(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """Let tokens attend to one another: ``(b, n, d) -> (b, n, d)``."""
        own = self.attn
        parts = part_heads(x, own.qkv.weight, own.qkv.bias, own.num_heads, 3)
        mixed = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], attn_mask=attn_mask, scale=own.scale)
        return join_heads(mixed, own.out_proj.weight, own.out_proj.bias)

    def read(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Let tokens attend to a context, or to one another without one: ``(b, n, d), (b, m, d) -> (b, n, d)``."""
        other = self.cross_attn
        source = x if context is None else context
        query = part_heads(x, other.to_q.weight, other.to_q.bias, other.num_heads, 1)[0]
        key = part_heads(source, other.to_k.weight, other.to_k.bias, other.num_heads, 1)[0]
        value = part_heads(source, other.to_v.weight, other.to_v.bias, other.num_heads, 1)[0]
        mixed = F.scaled_dot_product_attention(query, key, value, scale=other.scale)
        return join_heads(mixed, other.out_proj.weight, other.out_proj.bias)


class RecomputedBlock(TokenBlock):
    """A block that keeps its inputs alone for the backward pass, and runs again there."""

    def forward(self, x: Tensor, context: Tensor | None = None, attn_mask: Tensor | None = None) -> Tensor:
        # Nothing in a block is random here: dropout is 0.
        again: Tensor = checkpoint(
            super().forward, x, context, attn_mask, use_reentrant=False, preserve_rng_state=False
        )
        return again


def part_heads(x: Tensor, weight: Tensor, bias: Tensor | None, heads: int, parts: int) -> list[Tensor]:
    """Project tokens to the heads of each part, widened by zeros where the device wants that.

    Shape:
        x ``(b, n, d)``, weight ``(parts * heads * w, d)`` ``->`` for each part ``(b, heads, n, w + zeros)``
    """
    width = weight.shape[0] // (parts * heads)
    zeros = missing(width, x)
    if zeros > 0:
        weight = F.pad(weight.view(parts * heads, width, -1), [0, 0, 0, zeros]).flatten(0, 1)
        if bias is not None:
            bias = F.pad(bias.view(parts * heads, width), [0, zeros]).flatten()
    projected = F.linear(x, weight, bias).view(x.shape[0], x.shape[1], parts, heads, width + zeros)
    return [part.transpose(1, 2) for part in projected.unbind(2)]


def join_heads(mixed: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Project the heads back to tokens.

    Shape:
        mixed ``(b, heads, n, w + zeros)``, weight ``(d, heads * w)`` ``-> (b, n, d)``
    """
    heads, whole = mixed.shape[1], mixed.shape[3]
    width = weight.shape[1] // heads
    if whole > width:
        weight = F.pad(weight.view(-1, heads, width), [0, whole - width]).flatten(1)
    return F.linear(mixed.transpose(1, 2).flatten(2), weight, bias)


def missing(width: int, x: Tensor) -> int:
    """Return how many zeros make a head of that width one that fused attention takes as it is, on that device."""
    # Multiples of 16 bytes, which are 8 numbers of 16 bits.
    return -width % 8 if x.is_cuda else 0
