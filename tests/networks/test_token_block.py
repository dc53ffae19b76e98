"""The block that a GPU computes faster, beside MONAI's own forward pass on the same parameters."""

import pytest
import torch
from monai.networks.blocks.transformerblock import TransformerBlock
from torch import Tensor
from torch.testing import assert_close

from monai_ext.networks import token_block
from monai_ext.networks.transformer import pre_norm_block

WIDTH, HEADS = 21, 3  # heads of 7


@pytest.fixture
def widened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have heads widened on the CPU as on a card."""
    monkeypatch.setattr(token_block, "missing", lambda width, x: -width % 8)


def outcome(block: TransformerBlock, forward: object, cross: bool) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens, memory = (torch.randn(2, n, WIDTH, generator=generator, requires_grad=True) for n in (5, 4))
    block.zero_grad()
    answer = forward(block, tokens, memory) if cross else forward(block, tokens)
    (answer * torch.randn(answer.shape, generator=generator)).sum().backward()
    return [answer, tokens.grad, *([memory.grad] if cross else []), *(p.grad for p in block.parameters())]


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("cross", [False, True])
def test_it_is_monai_s_block(widened: None, cross: bool, recompute: bool) -> None:
    torch.manual_seed(0)
    block = pre_norm_block(WIDTH, HEADS, cross=cross, recompute=recompute)
    ours, theirs = (outcome(block, kind.forward, cross) for kind in (type(block), TransformerBlock))
    for one, other in zip(ours, theirs, strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-5)  # sums in another order


def test_a_context_is_read_and_a_mask_obeyed(widened: None) -> None:
    block = pre_norm_block(WIDTH, HEADS, cross=True)
    tokens = torch.randn(2, 5, WIDTH)
    assert_close(block(tokens), TransformerBlock.forward(block, tokens))
    own = pre_norm_block(WIDTH, HEADS)
    mask = torch.ones(5, 5).tril().bool()
    assert_close(own(tokens, attn_mask=mask), TransformerBlock.forward(own, tokens, attn_mask=mask))
    assert not torch.allclose(own(tokens, attn_mask=mask), own(tokens), atol=1e-3)


def test_widened_heads_are_multiples_of_eight(widened: None) -> None:
    weight, bias = torch.randn(3 * WIDTH, WIDTH), torch.randn(3 * WIDTH)
    parts = token_block.part_heads(torch.randn(2, 5, WIDTH), weight, bias, HEADS, 3)
    assert [list(part.shape) for part in parts] == [[2, HEADS, 5, 8]] * 3
    assert all(not part[..., 7:].any() for part in parts)


def test_on_a_cpu_nothing_is_widened() -> None:
    assert token_block.missing(33, torch.zeros(1)) == 0
