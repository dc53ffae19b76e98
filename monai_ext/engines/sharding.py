"""How a network is trained by several ranks: copied to each, or parted among them."""

import os
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.networks.blocks.transformerblock import TransformerBlock
from torch import Tensor, nn

from monai_ext.base import SettingError
from monai_ext.engines.switches import switch


def check_shard(wish: bool | str) -> None:
    """Refuse to part a network among the ranks of a run that has none.

    Raises:
        SettingError: it is neither true nor false, or true in a run that was not started as one rank of several.
    """
    if switch("shard", wish) and "WORLD_SIZE" not in os.environ:
        raise SettingError(
            "shard: true parts the network among ranks and this run has none; start it by torchrun with "
            "multi_gpu_train.json, or set it to false",
            code="setting.shard",
        )


def over_ranks(network: nn.Module, device: torch.device, shard: bool = False) -> nn.Module:
    """Return the network for training by the ranks that have joined.

    Copied, each rank holds parameters, gradients and the optimizer's averages. Parted (FSDP2), each holds its part of
    all three, and gathers the parameters for its passes: of 16 bytes a parameter, 5.9 GB for the large model, each of
    eight ranks keeps 0.7 GB, and up to 1.5 GB of gathered parameters. The steps are the same but for the order of sums.

    Args:
        network: on the device, alike on all ranks or not: the first one's numbers are taken.
        device: of this rank.
        shard: part it instead of copying it. The optimizer must be made after that.

    Raises:
        SettingError: parting was asked for and the network has no transformer blocks.
    """
    if not shard:
        ids = [device] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(network, device_ids=ids)
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    blocks = [part for part in network.modules() if isinstance(part, TransformerBlock)]
    if not blocks:
        raise SettingError(
            f"shard: {type(network).__name__} has no transformer blocks of MONAI's to part one by one; set it to false",
            code="setting.shard",
        )
    for tensor in (*network.parameters(), *network.buffers()):
        torch.distributed.broadcast(tensor.detach(), 0)
    mesh = torch.distributed.init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    network.register_forward_hook(_own_tensors)  # before that of FSDP2, which then hooks on to the copies
    for part in (*blocks, network):
        # Kept gathered from the forward pass to the backward one: half the traffic, and no rank waits in validation.
        fully_shard(part, mesh=mesh, reshard_after_forward=False)
    if hasattr(network, "predict"):
        # Previews call it, on the first rank alone; its blocks must know that they are part of a whole.
        register_fsdp_forward_method(network, "predict")
    return network


def _own_tensors(_module: nn.Module, _inputs: Any, output: Any) -> Any:
    # Changed in place, a view would lose the hook by which FSDP2 gathers parameters for the backward pass.
    if isinstance(output, Tensor):
        return output.clone() if output.requires_grad and output._is_view() else output
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*(_own_tensors(_module, _inputs, one) for one in output))
    return output


class GatheredWeights:
    """Gather a parted network for the length of a validation, in which ranks see different numbers of batches.

    Attach it to the evaluator. It does nothing for a network that is not parted.

    Args:
        network: that is validated.
    """

    def __init__(self, network: Any) -> None:
        self.network = network

    def attach(self, engine: Engine) -> None:
        """Gather before the first batch, part again at the end."""
        engine.add_event_handler(Events.STARTED, self._gather)
        engine.add_event_handler(Events.COMPLETED, self._part)

    def _gather(self, _: Engine) -> None:
        for part in parted_modules(self.network):
            part.unshard()

    def _part(self, _: Engine) -> None:
        for part in parted_modules(self.network):
            part.reshard()


def parted_modules(network: Any) -> list[Any]:
    """Return the modules that are gathered and parted by themselves, none of a network that is not parted."""
    from torch.distributed.fsdp import FSDPModule

    return [part for part in network.modules() if isinstance(part, FSDPModule)]
