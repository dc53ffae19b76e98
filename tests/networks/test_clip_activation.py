import pytest
import torch
from open_clip.transformer import QuickGELU
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from monai_ext.networks.clip_activation import FrugalQuickGELU, frugal_activation


def kept_bytes(activation: nn.Module, tokens: Tensor) -> int:
    """Return how many bytes beside the tokens themselves wait for the backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.ndim:  # the factor is a number
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        activation(tokens)
    kept.pop(tokens.data_ptr(), None)
    return sum(kept.values())


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float64])
def test_no_bit_differs_from_open_clip(kind: torch.dtype) -> None:
    tokens = 4 * torch.randn(3, 7, 13, generator=torch.Generator().manual_seed(0)).to(kind)
    plain, frugal = (tokens.clone().requires_grad_() for _ in range(2))
    expected, found = QuickGELU()(plain), FrugalQuickGELU()(frugal)
    assert torch.equal(found, expected)
    weights = torch.randn(3, 7, 13, generator=torch.Generator().manual_seed(1)).to(kind)
    (expected * weights).sum().backward()
    (found * weights).sum().backward()
    assert torch.equal(frugal.grad, plain.grad)
    before = tokens.clone()
    assert torch.equal(FrugalQuickGELU()(tokens), expected)
    assert torch.equal(tokens, before)


def test_the_input_alone_waits_for_the_backward_pass() -> None:
    tokens = torch.randn(5, 7, requires_grad=True)
    assert kept_bytes(QuickGELU(), tokens) == 4 * 5 * 7
    assert kept_bytes(FrugalQuickGELU(), tokens) == 0


def test_blocks_get_their_activation_back() -> None:
    tower = nn.Module()
    tower.resblocks = nn.ModuleList([nn.Module(), nn.Module(), nn.Module()])
    for block, activation in zip(tower.resblocks, (QuickGELU(), nn.GELU(), None), strict=True):
        block.mlp = nn.Module()
        if activation is not None:
            block.mlp.gelu = activation
    quick, other = tower.resblocks[0].mlp.gelu, tower.resblocks[1].mlp.gelu
    with frugal_activation(tower):
        assert isinstance(tower.resblocks[0].mlp.gelu, FrugalQuickGELU)
        assert tower.resblocks[1].mlp.gelu is other
    assert tower.resblocks[0].mlp.gelu is quick
