"""A pretraining run: weights, input and mask in; every stage, loss and gradient out."""

import copy
import re
from typing import Any

import torch
from torch import Tensor, nn

from formats.comparison import Comparison, Tolerance
from formats.golden import Golden
from formats.hi_end_mae import authors_state, build, compare_config
from monai_ext.losses import MaskedPatchLoss
from monai_ext.networks import (
    TAPS,
    HiEndMAE,
    TokensToVolume,
    convert,
    denormalise_patches,
    hide_tokens,
    load_into,
    take_tokens,
)

TOLERANCES = (
    ("state.encoder_pos_embed", Tolerance(2e-6)),
    ("state.decoder_pos_embed", Tolerance(2e-6)),
    ("sel_pos_embed", Tolerance(2e-6)),
    ("encoder.tokens_in", Tolerance(2e-5)),
    ("encoder.hidden.*", Tolerance(1e-4)),
    ("encoder.out", Tolerance(3e-5)),
    ("decoder.kv.*", Tolerance(1e-4)),
    ("decoder.tokens_in", Tolerance(1e-4)),
    ("decoder.self_out", Tolerance(1e-4)),
    ("decoder.cross_out.*", Tolerance(2e-4)),
    ("decoder.norm_out", Tolerance(5e-5)),
    ("decoder.out", Tolerance(5e-5)),
    ("target", Tolerance(1e-4)),
    ("loss", Tolerance(2e-6)),
    ("loss_f64", Tolerance(2e-6)),
    ("recon", Tolerance(5e-6)),
    ("grad.*", Tolerance(1e-4, of_largest=True)),
    ("grad_norms.*", Tolerance(1e-4, of_largest=True)),
)


# What every file holds, whatever its sizes.
_DOCUMENTED = (
    "input.image", "input.noise", "input.shuffle_indices", "patches", "sel_patches", "sel_pos_embed", "masked",
    "encoder.tokens_in", "encoder.out", "decoder.tokens_in", "decoder.self_out", "decoder.norm_out", "decoder.out",
    "target", "loss", "loss_f64", "recon",
)  # fmt: skip

# Parameters whose gradient is stored, as far as a network is deep enough to have them.
_GRADIENTS = (
    "decoder.blocks.0.attn.qkv.weight",
    "decoder.cross_attention_blocks.0.self_attn.qkv.weight",
    "decoder.cross_attention_blocks.1.cross_attn.kv.weight",
    "decoder.cross_attention_blocks.1.cross_attn.q.weight",
    "decoder.cross_attention_blocks.2.mlp.fc1.weight",
    "decoder.head.bias",
    "encoder.blocks.0.attn.qkv.weight",
    "encoder.blocks.11.mlp.fc2.weight",
    "encoder.cls_token",
    "encoder.norm.weight",
    "encoder.patch_embed.proj.bias",
    "encoder.patch_embed.proj.weight",
    "encoder_to_decoder.0.weight",
    "encoder_to_decoder.3.weight",
    "mask_token",
)


def recognises(golden: Golden) -> bool:
    """Tell by the settings: an encoder, a decoder and weights."""
    config = golden.content.get("config")
    return (
        isinstance(config, dict)
        and "decoder_embed_dim" in config
        and any(name.startswith("state.") for name in golden.tensors)
    )


def check(golden: Golden, compare: Comparison) -> None:
    """Run the network forward and backward, and compare what passes through it."""
    config, tensors = golden.content["config"], golden.tensors
    network = build(config, _taps(tensors))
    compare_config("config", config, network, compare)
    _expect_all(network, compare)
    _check_weights(network, tensors, compare)

    image, shuffle = tensors["input.image"].float(), tensors["input.shuffle_indices"]
    compare("config.batch", image.shape[0])
    stages = _watch(network)
    output = network(image, shuffle)
    stages["decoder.out"] = network.decoder.head(stages["decoder.norm_out"])
    for name, stage in stages.items():
        compare(name, stage)
    compare("input.shuffle_indices", output.shuffle_indices)
    compare("target", output.target)
    loss = MaskedPatchLoss()(output.prediction, output.target)
    compare("loss", loss)
    _check_patches(network, image, shuffle, tensors, compare)
    _check_gradients(network, loss, compare)
    if "loss_f64" in tensors:
        exact = copy.deepcopy(network).double()(image.double(), shuffle)
        compare("loss_f64", MaskedPatchLoss()(exact.prediction, exact.target))


def _taps(tensors: dict[str, Tensor]) -> list[int]:
    found = [int(name.rpartition(".")[2]) + 1 for name in tensors if re.fullmatch(r"decoder\.kv\.\d+", name)]
    return sorted(found) or list(TAPS)


def _expect_all(network: HiEndMAE, compare: Comparison) -> None:
    compare.expect(*_DOCUMENTED, "param_order")
    compare.expect(*(f"encoder.hidden.{number}" for number in range(len(network.encoder.blocks))))
    compare.expect(*(f"decoder.kv.{tap - 1}" for tap in network.taps))
    compare.expect(*(f"decoder.cross_out.{number}" for number in range(len(network.taps))))
    state = authors_state(network)
    compare.expect(*(f"state.{name}" for name in state))
    compare.expect(*(f"grad.{name}" for name in _GRADIENTS if name in state))
    compare.expect(*(f"grad_norms.{name}" for name in state if not name.endswith("pos_embed")))


def _check_weights(network: HiEndMAE, tensors: dict[str, Tensor], compare: Comparison) -> None:
    computed = authors_state(network)
    for name in ("encoder_pos_embed", "decoder_pos_embed"):
        compare(f"state.{name}", computed[name])
    prefix = "state."
    load_into(network, {n.removeprefix(prefix): t.float() for n, t in tensors.items() if n.startswith(prefix)})
    there_and_back = authors_state(network)
    for name, tensor in there_and_back.items():
        if not name.endswith("pos_embed"):
            compare(prefix + name, tensor)
    compare("param_order", list(there_and_back))


def _watch(network: HiEndMAE) -> dict[str, Tensor]:
    """Return a dictionary that the next forward pass fills with every stage, by the goldens' names."""
    stages: dict[str, Tensor] = {}

    def keep(name: str, part: nn.Module) -> None:
        part.register_forward_hook(lambda part, args, out: stages.__setitem__(name, out))

    def keep_input(name: str, part: nn.Module) -> None:
        part.register_forward_pre_hook(lambda part, args: stages.__setitem__(name, args[0]))

    keep_input("encoder.tokens_in", network.encoder.blocks[0])
    for number, block in enumerate(network.encoder.blocks):
        keep(f"encoder.hidden.{number}", block)
    keep("encoder.out", network.encoder.norm)
    for tap, projection in zip(network.taps, network.encoder_to_decoder, strict=False):
        keep(f"decoder.kv.{tap - 1}", projection)
    keep_input("decoder.tokens_in", network.decoder)
    keep_input("decoder.self_out", network.decoder.cross_attention_blocks[0])
    for number, block in enumerate(network.decoder.cross_attention_blocks):
        keep(f"decoder.cross_out.{number}", block)
    keep("decoder.norm_out", network.decoder)
    return stages


@torch.no_grad()
def _check_patches(
    network: HiEndMAE, image: Tensor, shuffle: Tensor, tensors: dict[str, Tensor], compare: Comparison
) -> None:
    patches = network.patches(image)
    visible, hidden = shuffle[:, : network.visible], shuffle[:, network.visible :]
    compare("patches", patches)
    unfold = TokensToVolume(network.patch_size, network.grid)
    compare("input.image", unfold(tensors.get("patches", patches).float()))
    compare("sel_patches", take_tokens(patches, visible))
    compare("sel_pos_embed", take_tokens(network.encoder_pos_embed, visible))
    compare("masked", hide_tokens(patches, hidden))
    compare("recon", denormalise_patches(network.predict(patches, shuffle), patches, published=True))
    if "input.noise" in tensors:
        # The mask follows from the noise: put in the shuffled order, it must rise.
        rising = tensors["input.noise"].sort(dim=1).values
        compare("input.noise", torch.zeros_like(rising).scatter(1, shuffle, rising))


def _check_gradients(network: HiEndMAE, loss: Tensor, compare: Comparison) -> None:
    loss.backward()
    gradients: dict[str, Any] = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in network.named_parameters()
    }
    for name, gradient in convert(gradients, "authors").tensors.items():
        compare(f"grad.{name}", gradient)
        compare(f"grad_norms.{name}", float(gradient.double().norm()))
