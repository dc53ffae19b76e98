"""Value-value attention: tokens attend by what they would say, on the weights of the ordinary attention."""

from typing import Any, Literal, cast

from einops import rearrange
from open_clip.transformer import Attention
from torch import Tensor, nn
from torch.nn import functional as F

VVAxis = Literal["token", "batch"]


class ValueAttention(nn.Module):
    """A view of an attention layer that uses its value projection as query, key and value.

    The scale is that of the layer, ``1 / sqrt(d / heads)``. The weights are the layer's own; nothing is copied.

    Args:
        attention: ``torch.nn.MultiheadAttention``, or the attention of open_clip's custom blocks.
        axis: ``"token"`` attends over the tokens of an image. ``"batch"`` attends over the images of a batch
            at one token position, as the published code does by an accident of layout.

    Shape:
        ``(b, n, d) -> (b, n, d)``; ``(n, b, d)`` where the layer is not batch-first
    """

    def __init__(self, attention: nn.Module, axis: VVAxis = "token") -> None:
        super().__init__()
        self.attention = cast(Any, attention)
        self.axis = axis
        first = "b" if getattr(attention, "batch_first", True) else "n"
        self.layout = "b n" if first == "b" else "n b"

    def forward(self, tokens: Tensor, *_others: Tensor, **_options: Any) -> Any:
        layer = self.attention
        width = tokens.shape[-1]
        weight, bias = layer.in_proj_weight[2 * width :], layer.in_proj_bias
        values = F.linear(tokens, weight, None if bias is None else bias[2 * width :])
        attended = "n" if self.axis == "token" else "b"
        beside = "b" if self.axis == "token" else "n"
        heads = f"{beside} heads {attended} d"
        values = rearrange(values, f"{self.layout} (heads d) -> {heads}", heads=layer.num_heads)
        mixed = F.scaled_dot_product_attention(values, values, values)
        if not isinstance(layer, Attention):
            # torch's layer answers with the weights too.
            return layer.out_proj(rearrange(mixed, f"{heads} -> {self.layout} (heads d)")), None
        if layer.head_scale is not None:
            mixed = mixed * layer.head_scale
        return layer.out_drop(layer.out_proj(layer.ln_inner(rearrange(mixed, f"{heads} -> {self.layout} (heads d)"))))
