"""Tensors of which each rank holds a part, as FSDP2 leaves them: put together for a file, and parted again."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # reading scans loads this room, and needs no torch
    from torch import Tensor


def whole(state: Any) -> Any:
    """Return a state whose parted tensors are put together, on the CPU; the rest as it is.

    All ranks must call it with the same state, or those that do wait. Without parted tensors it gives the state back.

    Args:
        state: a tensor, or mappings and lists of any depth that hold some.
    """
    kind = _parted_kind()
    if kind is None:
        return state
    if isinstance(state, kind):
        return state.full_tensor().cpu()
    if isinstance(state, Mapping) and any(_holds(value, kind) for value in state.values()):
        return {key: whole(value) for key, value in state.items()}
    if isinstance(state, list | tuple) and any(_holds(value, kind) for value in state):
        return [whole(value) for value in state]
    return state


def parted(state: Any, item: Any) -> Any:
    """Return a state of whole tensors as an item loads it, each rank its part; the reverse of :func:`whole`.

    Args:
        state: that :func:`whole` gave, or the same item without ranks.
        item: a network or an optimizer whose parameters are parted, or anything else, for which nothing is done.
    """
    if not is_parted(item):
        return state
    if hasattr(item, "param_groups"):
        of = [parameter for group in item.param_groups for parameter in group["params"]]
        return {**state, "state": {number: _like_parameter(one, of[number]) for number, one in state["state"].items()}}
    own = item.state_dict()
    return {name: _part(value, own.get(name)) for name, value in state.items()}


def is_parted(item: Any) -> bool:
    """Tell whether a network or an optimizer has parameters of which each rank holds a part."""
    kind = _parted_kind()
    if kind is not None and hasattr(item, "param_groups"):
        return any(isinstance(one, kind) for group in item.param_groups for one in group["params"])
    # Gathered for a pass a network shows whole parameters, so it is told by its modules.
    module = getattr(sys.modules.get("torch.distributed.fsdp"), "FSDPModule", None)
    return module is not None and hasattr(item, "modules") and any(isinstance(one, module) for one in item.modules())


def own_part(tensor: "Tensor") -> "Tensor":
    """Return what this rank holds of a tensor, all of it if it is not parted."""
    kind = _parted_kind()
    return tensor.to_local() if kind is not None and isinstance(tensor, kind) else tensor


def own_part_is_finite(network: Any) -> bool:
    """Tell whether all weights that this rank holds of a network are finite."""
    return all(bool(own_part(weights).isfinite().all()) for weights in network.parameters())


def _holds(value: Any, kind: type) -> bool:
    if isinstance(value, Mapping):
        return any(_holds(one, kind) for one in value.values())
    if isinstance(value, list | tuple):
        return any(_holds(one, kind) for one in value)
    return isinstance(value, kind)


def _like_parameter(values: Mapping[str, Any], parameter: Any) -> dict[str, Any]:
    # Running averages lie as their parameter does; the count of steps is one number.
    shape = tuple(parameter.shape)
    return {
        name: _part(value, parameter) if shape and tuple(getattr(value, "shape", ())) == shape else value
        for name, value in values.items()
    }


def _part(value: Any, like: Any) -> Any:
    kind = _parted_kind()
    if kind is None or not isinstance(like, kind) or tuple(value.shape) != tuple(like.shape):
        return value  # of another size: whoever loads it says so
    from torch.distributed.tensor import distribute_tensor

    # Every rank has read the whole, so nothing is sent.
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def _parted_kind() -> Any:
    # torch's DTensor, if somebody has loaded it: whoever parts tensors has.
    module = sys.modules.get("torch.distributed.tensor")
    return getattr(module, "DTensor", None)
