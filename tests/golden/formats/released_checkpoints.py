"""Names, shapes and sizes of published checkpoints, compared without memory for the weights."""

from typing import Any

from torch import Tensor

from formats.comparison import Comparison
from formats.golden import Golden
from formats.hi_end_mae import authors_state, build, compare_config
from monai_ext.networks import HiEndMAE, convert

TOLERANCES = ()


def recognises(golden: Golden) -> bool:
    """Tell by the models: settings and keys each."""
    models = golden.content.get("models")
    return (
        isinstance(models, dict)
        and bool(models)
        and all(isinstance(model, dict) and {"config", "keys"} <= model.keys() for model in models.values())
    )


def check(golden: Golden, compare: Comparison) -> None:
    """Build each model on the meta device and list what its checkpoint would hold."""
    compare.words(*(name for name in compare.stored if name.startswith("checkpoint_container.")))
    for name, model in golden.content["models"].items():
        network = build(model["config"], device="meta")
        place = f"models.{name}"
        compare.words(f"{place}.trainer_model_name")
        compare_config(f"{place}.config", model["config"], network, compare)
        _check_keys(place, model, authors_state(network), compare)
        _check_counts(place, network, compare)


def _check_keys(place: str, model: dict[str, Any], state: dict[str, Tensor], compare: Comparison) -> None:
    prefix = "module." if all(key.startswith("module.") for key in model["keys"]) else ""
    for key, tensor in state.items():
        entry = f"{place}.keys.{prefix}{key}"
        if prefix + key not in model["keys"]:
            compare.fail(entry, "not in the file")
        compare(f"{entry}.shape", list(tensor.shape))
        compare(f"{entry}.dtype", str(tensor.dtype).removeprefix("torch."))
    dtypes = {str(tensor.dtype).removeprefix("torch.") for tensor in state.values()}
    compare.expect(f"{place}.num_keys", f"{place}.dtype_all")
    compare(f"{place}.num_keys", len(state))
    compare(f"{place}.dtype_all", ", ".join(sorted(dtypes)))


def _check_counts(place: str, network: HiEndMAE, compare: Comparison) -> None:
    state = network.state_dict()
    trainable = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    counts = {
        part: _numbers({n: t for n, t in state.items() if n.startswith(f"{part}.")})
        for part in ("encoder", "decoder", "encoder_to_decoder")
    }
    counts |= {
        "mask_token": state["mask_token"].numel(),
        "trainable_total": _numbers({n: t for n, t in state.items() if n in trainable}),
        "frozen_position_embeddings": _numbers({n: t for n, t in state.items() if n not in trainable}),
        "total_in_state_dict": _numbers(state),
    }
    compare.expect(*(f"{place}.parameter_counts.{key}" for key in counts))
    for key, count in counts.items():
        compare(f"{place}.parameter_counts.{key}", count)
    encoder = convert(state, "authors_encoder").tensors
    for key, tensors in (("total_in_state_dict", state), ("encoder_plus_encoder_pos_embed", encoder)):
        compare.expect(f"{place}.float32_bytes.{key}")
        compare(f"{place}.float32_bytes.{key}", sum(t.numel() * t.element_size() for t in tensors.values()))


def _numbers(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())
