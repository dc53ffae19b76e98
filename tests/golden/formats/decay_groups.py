"""Which parameters decay: every name of every group, and what the optimiser saw."""

from typing import Any

import torch
from torch import nn

from formats import mae
from formats.comparison import Comparison
from formats.golden import Golden
from formats.hi_end_mae import build, compare_config, mark_of, marked
from monai_ext.engines import adamw_groups, make_adamw
from monai_ext.networks import HiEndMAE, convert

TOLERANCES = ()

_OF_A_GROUP = ("lr_scale", "weight_decay_seen_by_optimizer", "num_tensors", "num_parameters")


def recognises(golden: Golden) -> bool:
    """Tell by the groups: names and a scale of the decay each."""
    groups = golden.content.get("groups")
    return (
        isinstance(groups, list)
        and bool(groups)
        and all(isinstance(group, dict) and {"names", "weight_decay_scale"} <= group.keys() for group in groups)
    )


def check(golden: Golden, compare: Comparison) -> None:
    """Sort the parameters of the network that the file is about."""
    stored = golden.content["groups"]
    config = _config(golden)
    network = build(config, device="meta")
    compare.words("config_of")  # a file name, and files may be renamed
    compare_config("config", config, network, compare)
    compare.expect("frozen", "no_decay_name_keys")
    _check_optimizer(golden, network, compare)

    decay = golden.content["optimizer"]["weight_decay"]
    groups = adamw_groups(network, decay)
    seen = adamw_groups(network, decay, published=True)
    members = _members(network, groups)
    scales = [group["weight_decay"] / decay for group in groups]
    for number, group in enumerate(stored):
        place = f"groups[{number}]"
        if group["weight_decay_scale"] not in scales:
            compare.note(f"{place}: no group decays {group['weight_decay_scale']} times as much")
            continue
        which = scales.index(group["weight_decay_scale"])
        names = list(members[which])
        compare.expect(*(f"{place}.{key}" for key in _OF_A_GROUP))
        compare(f"{place}.weight_decay_scale", scales[which])
        compare(f"{place}.lr_scale", groups[which]["lr_scale"])
        compare(f"{place}.weight_decay_seen_by_optimizer", seen[which]["weight_decay"])
        compare(f"{place}.num_tensors", len(names))
        compare(f"{place}.num_parameters", sum(members[which].values()))
        compare(f"{place}.names", names)
    for scale in set(scales) - {group["weight_decay_scale"] for group in stored}:
        compare.fail(f"groups[weight_decay_scale={scale}]", "not in the file")
    compare("frozen", list(members[None]))
    undecayed = [key for key in golden.content.get("no_decay_name_keys", ()) if _never_decays(key)]
    compare("no_decay_name_keys", undecayed)


def _config(golden: Golden) -> dict[str, Any]:
    """Return the settings of the file itself, of the sibling it names, or of one with the same tensors."""
    if "config" in golden.content:
        return golden.content["config"]
    runs = [sibling for sibling in golden.siblings() if mae.recognises(sibling)]
    named = [run for run in runs if run.path.stem == golden.content["config_of"]]
    listed = {name for group in golden.content["groups"] for name in group["names"]}
    trained = listed | set(golden.content.get("frozen", ()))
    alike = [run for run in runs if {f"state.{n}" for n in trained} == {n for n in run.tensors if n[:6] == "state."}]
    if not named + alike:
        raise ValueError(f"no file beside it holds the settings of {golden.content['config_of']}")
    return (named + alike)[0].content["config"]


def _members(network: HiEndMAE, groups: list[dict[str, Any]]) -> dict[int | None, dict[str, int]]:
    """Return the parameters of each group under the authors' names, with their sizes; ``None``: in no group."""
    absent = len(groups)
    state = network.state_dict()
    marks = dict.fromkeys(state, absent)
    for number, group in enumerate(groups):
        marks |= {name: number for name, _ in group["params"]}
    members: dict[int | None, dict[str, int]] = {number: {} for number in [None, *range(absent)]}
    for name, tensor in convert(marked(state, marks), "authors").tensors.items():
        mark = mark_of(tensor)
        members[None if mark == absent else mark][name] = tensor.numel()
    return members


def _check_optimizer(golden: Golden, network: HiEndMAE, compare: Comparison) -> None:
    stored = golden.content["optimizer"]
    optimizer = make_adamw(network, stored["lr"], tuple(stored["betas"]), stored["weight_decay"], published=True)
    compare("optimizer.name", type(optimizer).__name__)
    for key, value in optimizer.defaults.items():
        compare(f"optimizer.{key}", list(value) if isinstance(value, tuple) else value)


def _never_decays(part_of_name: str) -> bool:
    probe = nn.Module()
    probe.register_parameter(part_of_name, nn.Parameter(torch.zeros(2, 3)))
    group: dict[str, Any] = adamw_groups(probe, 1.0)[0]
    return group["weight_decay"] == 0
