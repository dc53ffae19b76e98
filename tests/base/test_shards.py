"""States whose tensors ranks share; what two ranks do with them is tested with the bundle."""

import copy

import torch
from torch import nn

from monai_ext.base import is_parted, own_part, parted, whole


def test_what_is_not_parted_stays_as_it_is() -> None:
    network = nn.Linear(2, 3)
    state = network.state_dict()
    assert whole(state) is state
    assert parted(state, network) is state
    assert not is_parted(network)
    assert not is_parted(object())
    assert own_part(network.weight) is network.weight


def test_a_parted_network_and_its_optimizer_come_back(alone: None) -> None:
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(3)
    plain = nn.Linear(2, 3)
    network = nn.Linear(2, 3)
    network.load_state_dict(plain.state_dict())
    fully_shard(network, mesh=torch.distributed.init_device_mesh("cpu", (1,)))
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    network(torch.ones(1, 2)).sum().backward()
    # Of one rank the whole is its part, which the optimizer changes.
    saved = copy.deepcopy(whole([network.state_dict(), {}])[0])
    assert {name: type(value) for name, value in saved.items()} == {"weight": torch.Tensor, "bias": torch.Tensor}
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in saved.items())
    optimizer.step()
    averages = whole(optimizer.state_dict())
    assert all(type(value) is torch.Tensor for values in averages["state"].values() for value in values.values())
    assert is_parted(network)
    assert is_parted(optimizer)
    network.unshard()
    assert is_parted(network)  # though its parameters are whole now
    network.load_state_dict(parted(saved, network))
    assert torch.equal(own_part(network.weight), plain.weight)
    again = torch.optim.AdamW(network.parameters(), lr=0.1)
    again.load_state_dict(parted(averages, again))
    assert str(whole(again.state_dict())) == str(averages)
