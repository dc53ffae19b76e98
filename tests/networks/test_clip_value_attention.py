import pytest
import torch
from open_clip.transformer import Attention
from torch import Tensor, nn
from torch.testing import assert_close

from monai_ext.networks.clip_value_attention import ValueAttention


def naive(layer: nn.Module, tokens: Tensor, over: str) -> Tensor:
    """``(b, n, d)``, one query at a time."""
    batch, count, width = tokens.shape
    size = width // layer.num_heads
    values = tokens @ layer.in_proj_weight[2 * width :].T + layer.in_proj_bias[2 * width :]
    out = torch.zeros_like(tokens)
    for b in range(batch):
        for n in range(count):
            for head in range(layer.num_heads):
                part = slice(head * size, (head + 1) * size)
                others = values[b, :, part] if over == "token" else values[:, n, part]
                out[b, n, part] = (others @ values[b, n, part] / size**0.5).softmax(dim=0) @ others
    return out


@pytest.fixture
def tokens() -> Tensor:
    return torch.randn(3, 5, 12, generator=torch.Generator().manual_seed(0))


def filled(layer: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer.eval()


@pytest.mark.parametrize("axis", ["token", "batch"])
@pytest.mark.parametrize("batch_first", [True, False])
def test_it_is_the_formula(tokens, axis, batch_first):
    layer = filled(nn.MultiheadAttention(12, 3, batch_first=batch_first))
    given = tokens if batch_first else tokens.transpose(0, 1)
    found, weights = ValueAttention(layer, axis)(given, given, given, need_weights=False, attn_mask=None)
    assert weights is None
    expected = naive(layer, tokens, axis) @ layer.out_proj.weight.T + layer.out_proj.bias
    assert_close(found if batch_first else found.transpose(0, 1), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("axis", ["token", "batch"])
def test_custom_blocks_keep_their_norms_and_scales(tokens, axis):
    layer = filled(Attention(12, 3, scale_heads=True, inner_norm=True))
    scale = layer.head_scale.flatten().repeat_interleave(4)
    expected = layer.out_proj(layer.ln_inner(naive(layer, tokens, axis) * scale))
    assert_close(ValueAttention(layer, axis)(tokens, attn_mask=None), expected, rtol=0, atol=1e-5)


def test_weights_are_the_layer_s_own():
    layer = nn.MultiheadAttention(12, 3, batch_first=True)
    assert {p.data_ptr() for p in ValueAttention(layer).parameters()} == {p.data_ptr() for p in layer.parameters()}
