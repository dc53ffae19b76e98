"""The activation of OpenAI's CLIPs on a CPU, with less memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from open_clip.transformer import QuickGELU
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from monai_ext.networks.clip_towers import scoped_parts


class FrugalQuickGELU(nn.Module):
    """QuickGELU, ``x * sigmoid(1.702 x)``, that keeps its input alone for the backward pass.

    Written plainly, autograd keeps the sigmoid too: half a gigabyte over the image blocks of ViT-L-14-336 at 518
    pixels. Here it is computed again, by the same operations, so that no bit changes. On a card the host that starts
    kernels is what a step of one picture waits for, and memory is not short: tensors there take the plain way.

    Shape:
        any, kept
    """

    def forward(self, tokens: Tensor) -> Tensor:
        if tokens.device.type != "cpu":
            return tokens * torch.sigmoid(1.702 * tokens)
        return cast(Tensor, _Frugal.apply(tokens))


class _Frugal(torch.autograd.Function):
    # What is computed in place leaves no holes in the heap, which would be as large as what is kept.

    @staticmethod
    def forward(ctx: Any, tokens: Tensor) -> Tensor:
        ctx.save_for_backward(tokens)
        return (1.702 * tokens).sigmoid_().mul_(tokens)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (tokens,) = ctx.saved_tensors
        share = (1.702 * tokens).sigmoid_()
        through = torch.ops.aten.sigmoid_backward(gradient * tokens, share).mul_(1.702)
        return through.add_(share.mul_(gradient))


@contextmanager
def frugal_activation(transformer: Any) -> Iterator[None]:
    """Let the blocks of a tower that run QuickGELU run :class:`FrugalQuickGELU`, until the end of the scope."""
    parents = [block.mlp for block in transformer.resblocks if isinstance(getattr(block.mlp, "gelu", None), QuickGELU)]
    with scoped_parts(parents, "gelu", [FrugalQuickGELU() for _ in parents]):
        yield
