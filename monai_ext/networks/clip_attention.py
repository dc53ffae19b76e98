"""The attention of CLIP's blocks on tokens as they lie, batch first."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional as F

from monai_ext.networks.clip_towers import scoped_parts


class TokenAttention(nn.Module):
    """A view of torch's multi-head attention that projects all tokens of all pictures in one product.

    torch's own layer turns ``(b, n, d)`` to ``(n, b, d)`` first. What is turned is not contiguous, so its product with
    the weights is taken as n products of b rows each, which fill no tile: on an H200 that took two fifths of a forward
    pass of 8 pictures. The weights are the layer's own; nothing is copied.

    Args:
        attention: that :func:`is_plain` tells to be fit.

    Shape:
        ``(b, n, d) -> (b, n, d)``
    """

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = cast(Any, attention)

    def forward(self, tokens: Tensor, *_others: Tensor, attn_mask: Tensor | None = None, **_options: Any) -> Any:
        layer = self.attention
        projected = F.linear(tokens, layer.in_proj_weight, layer.in_proj_bias)
        parts = projected.unflatten(2, (3, layer.num_heads, -1)).unbind(2)
        query, key, value = (part.transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask)
        # torch's layer answers with the weights too.
        return layer.out_proj(mixed.transpose(1, 2).flatten(2)), None


def is_plain(attention: nn.Module | None) -> bool:
    """Tell whether a layer is torch's attention, batch first, of a sequence to itself without dropout."""
    return (
        type(attention) is nn.MultiheadAttention
        and attention.batch_first
        and attention.in_proj_weight is not None
        and attention.bias_k is None
        and not attention.add_zero_attn
        and (not attention.training or attention.dropout == 0)
    )


@contextmanager
def token_attention(transformer: Any) -> Iterator[None]:
    """Let the blocks of a tower attend through :class:`TokenAttention` where that fits, until the end of the scope."""
    plain = [block for block in transformer.resblocks if is_plain(getattr(block, "attn", None))]
    with scoped_parts(plain, "attn", [TokenAttention(block.attn) for block in plain]):
        yield
