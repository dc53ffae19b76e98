import pytest
import torch
from torch import nn
from torch.testing import assert_close

from monai_ext.networks.clip_attention import TokenAttention, is_plain, token_attention


@pytest.fixture
def layer() -> nn.MultiheadAttention:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(12, 3, batch_first=True)
    nn.init.normal_(layer.in_proj_bias)
    return layer.eval()


@pytest.mark.parametrize("masked", [False, True])
def test_it_is_torch_s_layer(layer: nn.MultiheadAttention, masked: bool) -> None:
    tokens = torch.randn(3, 5, 12, generator=torch.Generator().manual_seed(1))
    mask = torch.full((5, 5), float("-inf")).triu(1) if masked else None
    expected = layer(tokens, tokens, tokens, need_weights=False, attn_mask=mask)[0]
    found, weights = TokenAttention(layer)(tokens, tokens, tokens, need_weights=False, attn_mask=mask)
    assert weights is None
    assert_close(found, expected)


def test_weights_are_the_layer_s_own(layer: nn.MultiheadAttention) -> None:
    assert [p.data_ptr() for p in TokenAttention(layer).parameters()] == [p.data_ptr() for p in layer.parameters()]


def test_other_layers_are_left_alone(layer: nn.MultiheadAttention) -> None:
    assert is_plain(layer)
    others = [
        nn.MultiheadAttention(12, 3),
        nn.MultiheadAttention(12, 3, batch_first=True, kdim=7),
        nn.MultiheadAttention(12, 3, batch_first=True, add_bias_kv=True),
        nn.MultiheadAttention(12, 3, batch_first=True, add_zero_attn=True),
        nn.MultiheadAttention(12, 3, batch_first=True, dropout=0.1),
        nn.Identity(),
        None,
    ]
    assert not any(is_plain(other) for other in others)
    assert is_plain(nn.MultiheadAttention(12, 3, batch_first=True, dropout=0.1).eval())


def test_blocks_get_their_layers_back(layer: nn.MultiheadAttention) -> None:
    tower = nn.Module()
    tower.resblocks = nn.ModuleList([nn.Module(), nn.Module()])
    tower.resblocks[0].attn, tower.resblocks[1].attn = layer, nn.Identity()
    with token_attention(tower):
        assert isinstance(tower.resblocks[0].attn, TokenAttention)
        assert isinstance(tower.resblocks[1].attn, nn.Identity)
    assert tower.resblocks[0].attn is layer
