"""A network parted by FSDP2 in a group of one rank; two ranks are tested with the bundle."""

import pytest
import torch
from torch import Tensor, nn

from monai_ext.base import SettingError, own_part
from monai_ext.engines import ReconstructionLoss, over_ranks
from monai_ext.networks import HiEndMAE, draw_shuffle

CPU = torch.device("cpu")


def fresh() -> HiEndMAE:
    torch.manual_seed(3)
    return HiEndMAE((16, 16, 24), (8, 8, 8), 1, 24, 3, 3, 18, 1, 3, (1, 2))


def gradients(network: nn.Module, given: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    output = network(*given)
    output.prediction.mul_(2)
    ReconstructionLoss()(output).backward()
    return {name: own_part(p.grad) for name, p in network.named_parameters() if p.grad is not None}


def test_an_output_changed_in_place_has_the_gradients_of_a_whole_network(alone: None) -> None:
    # Of a batch of one masked tokens lie in one piece, and the prediction is a view. FSDP2 warns of it: an error here.
    given = torch.rand(1, 1, 16, 16, 24), draw_shuffle(1, 12)
    assert fresh()(*given).prediction._is_view()
    whole, parted = (gradients(network, given) for network in (fresh(), over_ranks(fresh(), CPU, shard=True)))
    assert whole.keys() == parted.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(parted[name], gradient, rtol=1e-5, atol=1e-7, msg=name)  # sums in another order


def test_a_network_without_blocks_is_not_parted() -> None:
    with pytest.raises(SettingError, match="Linear has no transformer blocks") as caught:
        over_ranks(nn.Linear(2, 3), CPU, shard=True)
    assert caught.value.code == "setting.shard"
