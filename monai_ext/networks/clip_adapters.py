"""The trainable parts of AA-CLIP: small linear layers beside a frozen CLIP, named as in the authors' files."""

import torch
from torch import Tensor, nn

SLOPE = 0.01  # of every LeakyReLU here
_SHORTEST = 1e-12  # of an answer that is rescaled: that of torch.nn.functional.normalize


class BiaslessLayer(nn.Module):
    """A linear layer without bias, with LeakyReLU where it is ``active``.

    The names ``fc.0.weight`` (active) and ``fc.weight`` (not) are those of the authors' adapter files.

    Shape:
        ``(..., d_in) -> (..., d_out)``
    """

    def __init__(self, width_in: int, width_out: int, active: bool) -> None:
        super().__init__()
        linear = nn.Linear(width_in, width_out, bias=False)
        nn.init.xavier_uniform_(linear.weight)
        self.fc: nn.Module = nn.Sequential(linear, nn.LeakyReLU(SLOPE)) if active else linear

    @property
    def weight(self) -> Tensor:
        """The matrix, ``(d_out, d_in)``."""
        return next(self.parameters())

    def forward(self, tokens: Tensor) -> Tensor:
        # The adapters stay in their own precision beside a CLIP in half precision.
        return self.fc(tokens.to(self.weight.dtype)).to(tokens.dtype)


class ResidualAdapter(nn.Module):
    """Mix tokens with an adapted version of the same length: ``w * r + (1 - w) * x``.

    ``r`` is the layer's answer to ``x``, rescaled token by token to the norm of ``x``; 0 where the answer is.

    Args:
        layer: answers with tokens of the same width.
        weight: the share ``w`` of the answer, 0 to 1.

    Shape:
        ``(..., d) -> (..., d)``
    """

    def __init__(self, layer: nn.Module, weight: float) -> None:
        super().__init__()
        self.layer, self.weight = layer, weight

    def forward(self, tokens: Tensor) -> Tensor:
        answer = self.layer(tokens)
        length = answer.norm(dim=-1, keepdim=True).clamp_min(max(_SHORTEST, torch.finfo(answer.dtype).tiny))
        rescaled = answer * tokens.norm(dim=-1, keepdim=True) / length
        return self.weight * rescaled + (1 - self.weight) * tokens


class TextAdapter(nn.ModuleList):
    """Residual adapters after the first text blocks, then the final text projection in place of CLIP's.

    Args:
        width: of a text token.
        embed_dim: of the space that images and texts share.
        until: text blocks with an adapter, counted from the first.
        weight: share of an adapter's answer.
    """

    def __init__(self, width: int, embed_dim: int, until: int, weight: float) -> None:
        sizes = [width] * until + [embed_dim]
        super().__init__(BiaslessLayer(width, size, active=True) for size in sizes)
        self.weight = weight

    def residuals(self) -> list[ResidualAdapter]:
        """Return what changes the output of each adapted block, in the order of the blocks."""
        return [ResidualAdapter(layer, self.weight) for layer in list(self)[:-1]]

    def project(self, tokens: Tensor) -> Tensor:
        """Project end-of-text tokens: ``(n, d) -> (n, embed)``."""
        return self[-1](tokens)


class ImageAdapter(nn.Module):
    """Residual adapters after the first image blocks, and projections of patch tokens.

    Args:
        width: of an image token.
        embed_dim: of the space that images and texts share.
        until: image blocks with an adapter, counted from the first.
        weight: share of an adapter's answer.
        levels: levels with a projection for the map.
        relu: whether the projections end in LeakyReLU.
    """

    def __init__(self, width: int, embed_dim: int, until: int, weight: float, levels: int, relu: bool) -> None:
        super().__init__()
        self.layer_adapters = nn.ModuleList(BiaslessLayer(width, width, active=True) for _ in range(until))
        self.seg_proj = nn.ModuleList(BiaslessLayer(width, embed_dim, active=relu) for _ in range(levels))
        self.det_proj = BiaslessLayer(width, embed_dim, active=relu)
        self.weight = weight

    def residuals(self) -> list[ResidualAdapter]:
        """Return what changes the output of each adapted block, in the order of the blocks."""
        return [ResidualAdapter(layer, self.weight) for layer in self.layer_adapters]


class AAClipAdapters(nn.Module):
    """All that AA-CLIP trains; its state dict has the authors' names.

    Attributes:
        text_adapter: trained in stage 1.
        image_adapter: trained in stage 2.
    """

    def __init__(self, text_adapter: TextAdapter, image_adapter: ImageAdapter) -> None:
        super().__init__()
        self.text_adapter, self.image_adapter = text_adapter, image_adapter
