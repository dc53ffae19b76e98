"""The activation of OpenAI's CLIPs on a CPU, with less memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from open_clip.transformer import QuickGELU
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from monai_ext.networks.clip_towers import scoped_parts


class FrugalQuickGELU(nn.Module):
    """QuickGELU, ``x * sigmoid(1.702 x)``, that keeps its input alone for the backward pass.

    Written plainly, autograd keeps the sigmoid too: half a gigabyte over the image blocks of ViT-L-14-336 at 518
    pixels. Here it is computed again, by the same operations, so that no bit changes. Without gradients it is
    multiplied in place. On a card the host that starts kernels is what a step of one picture waits for, and memory
    is not short: tensors there take the plain way.

    Shape:
        any, kept
    """

    def forward(self, tokens: Tensor) -> Tensor:
        if tokens.device.type != "cpu":
            return _quick_gelu(tokens)
        if torch.is_grad_enabled() and tokens.requires_grad:
            return checkpoint(_quick_gelu, tokens, use_reentrant=False, preserve_rng_state=False)
        return (1.702 * tokens).sigmoid_().mul_(tokens)


def _quick_gelu(tokens: Tensor) -> Tensor:
    return tokens * torch.sigmoid(1.702 * tokens)


@contextmanager
def frugal_activation(transformer: Any) -> Iterator[None]:
    """Let the blocks of a tower that run QuickGELU run :class:`FrugalQuickGELU`, until the end of the scope."""
    parents = [block.mlp for block in transformer.resblocks if isinstance(getattr(block.mlp, "gelu", None), QuickGELU)]
    with scoped_parts(parents, "gelu", [FrugalQuickGELU() for _ in parents]):
        yield
