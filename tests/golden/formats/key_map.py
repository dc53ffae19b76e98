"""Which pretraining tensor lands where in the segmentation network."""

from typing import Any

import torch
from torch import Tensor

from formats import hi_end_mae, hi_end_segmenter
from formats.comparison import Comparison
from formats.golden import Golden
from monai_ext.networks import convert

TOLERANCES = ()

_FLATTEN = "flatten(start_dim=1)"


def recognises(golden: Golden) -> bool:
    """Tell by the two networks and the map between them."""
    return {"mapped", "pretrain_config", "downstream_config"} <= golden.content.keys()


def check(golden: Golden, compare: Comparison) -> None:
    """Convert marked tensors and see where each mark comes out."""
    content = golden.content
    pretraining = hi_end_mae.build(content["pretrain_config"], device="meta")
    segmenter = hi_end_segmenter.build(content["downstream_config"], device="meta")
    hi_end_mae.compare_config("pretrain_config", content["pretrain_config"], pretraining, compare)
    hi_end_segmenter.compare_config("downstream_config", content["downstream_config"], segmenter, compare)

    source, target = hi_end_mae.authors_state(pretraining), segmenter.state_dict()
    names = list(source)
    marks = {name: number for number, name in enumerate(names)}
    landed = convert(hi_end_mae.marked(source, marks), "segmenter", published=True).tensors
    came_from = {name: names[hi_end_mae.mark_of(tensor) or 0] for name, tensor in landed.items()}
    prefix = "module." if all(row["pretrain_key"].startswith("module.") for row in content["mapped"]) else ""
    _check_rows(content["mapped"], prefix, came_from, source, target, compare)

    compare.expect("pretrain_keys_not_used", "downstream_keys_not_filled", "unexpected_keys")
    unused = [prefix + name for name in names if name not in came_from.values()]
    unfilled = [name for name in target if name not in came_from]
    compare("pretrain_keys_not_used", _in_stored_order(content.get("pretrain_keys_not_used"), unused))
    compare("downstream_keys_not_filled", _in_stored_order(content.get("downstream_keys_not_filled"), unfilled))
    compare("unexpected_keys", [name for name in came_from if name not in target])


def _check_rows(
    rows: list[dict[str, Any]],
    prefix: str,
    came_from: dict[str, str],
    source: dict[str, Tensor],
    target: dict[str, Tensor],
    compare: Comparison,
) -> None:
    goes_to = {origin: name for name, origin in came_from.items()}
    for number, row in enumerate(rows):
        place = f"mapped[{number}]"
        origin = came_from.get(row["downstream_key"])
        name = goes_to.get(row["pretrain_key"].removeprefix(prefix))
        if origin is None or name is None or name not in target:
            compare.note(f"{place}: this package has no such pair")
            continue
        compare(f"{place}.pretrain_key", prefix + origin)
        compare(f"{place}.pretrain_shape", list(source[origin].shape))
        compare(f"{place}.downstream_key", name)
        compare(f"{place}.downstream_shape", list(target[name].shape))
        compare(f"{place}.transform", _transform(origin, source, name))
    for name in set(came_from) - {row["downstream_key"] for row in rows}:
        compare.fail(f"mapped.{name}", "not in the file")


def _transform(origin: str, source: dict[str, Tensor], name: str) -> str | None:
    """Return the stored word for what the conversion does to the values of a tensor."""
    before = torch.arange(source[origin].numel(), dtype=torch.float64).view(source[origin].shape)
    others = {key: torch.zeros(()).expand(tensor.shape) for key, tensor in source.items()}
    after = convert({**others, origin: before}, "segmenter", published=True).tensors[name]
    if torch.equal(after, before):
        return "identity"
    # With several channels the published loader's order is not the network's: there, channel goes last.
    flat = before.flatten(1), before.movedim(1, -1).flatten(1)
    return _FLATTEN if any(torch.equal(after, values) for values in flat) else None


def _in_stored_order(stored: list[str] | None, computed: list[str]) -> list[str]:
    # These lists are sets: their order says nothing.
    return stored if stored is not None and sorted(stored) == sorted(computed) else computed
