import pytest
import torch
from torch import nn
from torch.testing import assert_close

from monai_ext.networks.clip_adapters import BiaslessLayer, ResidualAdapter


def test_the_answer_has_the_length_of_the_token():
    torch.manual_seed(0)
    layer, tokens = BiaslessLayer(7, 7, active=True), torch.randn(2, 3, 7)
    answer = ResidualAdapter(layer, 1.0)(tokens)
    assert_close(answer.norm(dim=-1), tokens.norm(dim=-1))
    assert_close(answer / answer.norm(dim=-1, keepdim=True), layer(tokens) / layer(tokens).norm(dim=-1, keepdim=True))


def test_weight_0_changes_nothing():
    tokens = torch.randn(2, 3, 7)
    assert torch.equal(ResidualAdapter(BiaslessLayer(7, 7, active=True), 0.0)(tokens), tokens)


def test_an_answer_of_0_leaves_the_share_of_the_token():
    layer = BiaslessLayer(7, 7, active=True)
    nn.init.zeros_(layer.weight)
    tokens = torch.randn(2, 3, 7, requires_grad=True)
    mixed = ResidualAdapter(layer, 0.25)(tokens)
    assert_close(mixed, 0.75 * tokens)
    mixed.sum().backward()
    assert tokens.grad.isfinite().all()


@pytest.mark.parametrize(("active", "expected"), [(True, [2.0, -0.03]), (False, [2.0, -3.0])])
def test_the_slope_of_the_activation(active, expected):
    layer = BiaslessLayer(1, 2, active)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[2.0], [-3.0]]))
    assert_close(layer(torch.ones(1)), torch.tensor(expected))
