"""A segmentation run: weights and image in; hidden states, stages, logits and gradients out."""

import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from formats.comparison import Comparison, Tolerance
from formats.golden import Golden
from formats.hi_end_segmenter import build, compare_config
from monai_ext.networks import TAPS, HiEndSegmenter, load_into

TOLERANCES = (
    ("vit.*", Tolerance(1e-4)),
    ("pretrain.cls_token", Tolerance(0.0)),
    ("pretrain.*", Tolerance(1e-4)),
    ("stage.*.sample", Tolerance(2e-4)),
    ("stage.*.mean", Tolerance(1e-5)),
    ("stage.*.std", Tolerance(1e-5)),
    ("logits.channel_*", Tolerance(1e-5)),
    ("logits.*", Tolerance(5e-4)),
    ("argmax_counts", Tolerance(50)),
    ("objective", Tolerance(1e-6)),
    ("grad.*", Tolerance(2e-3, of_largest=True)),
)

_DOCUMENTED = (
    "input.image_u8", "vit.norm_out*", "logits.stride*", "logits.block_*", "logits.channel_mean", "logits.channel_std",
    "argmax_counts", "objective", "pretrain.cls_token", "pretrain.out*",
)  # fmt: skip
_GRADIENTS = (
    "decoder2.conv3d.weight",
    "encoder4.transp_conv_init.conv.weight",
    "out.conv.conv.weight",
    "vit.blocks.3.attn.qkv.weight",
    "vit.patch_embedding.position_embeddings",
)
_STAGES = ("encoder1", "encoder2", "encoder3", "encoder4", "decoder5", "decoder4", "decoder3", "decoder2")


def recognises(golden: Golden) -> bool:
    """Tell by the settings: classes, and the width of the convolutional part."""
    config = golden.content.get("config")
    return (
        isinstance(config, dict)
        and {"out_channels", "feature_size"} <= config.keys()
        and any(name.startswith("state.") for name in golden.tensors)
    )


def check(golden: Golden, compare: Comparison) -> None:
    """Run the network forward and backward, and its encoder once more as in pretraining."""
    config, tensors = golden.content["config"], golden.tensors
    taps = _taps(tensors)
    prefix = "state."
    state = {n.removeprefix(prefix): t.float() for n, t in tensors.items() if n.startswith(prefix)}
    network = build(config, taps)
    _expect_all(network, compare)
    load_into(network, state)
    compare_config("config", config, network, compare)
    for name, tensor in network.state_dict().items():
        compare(prefix + name, tensor)

    image = tensors["input.image_u8"].float() / 255
    compare("input.image_u8", (image * 255).round())
    stages = _watch(network)
    logits = network(image)
    _check_stages(stages, compare)
    _check_logits(logits, compare)
    objective = logits.softmax(dim=1)[:, 1:].square().mean()
    compare("objective", objective)
    objective.backward()
    for name, parameter in network.named_parameters():
        _compare_rows(f"grad.{name}", parameter.grad, compare)
    if "pretrain.cls_token" in tensors:
        _check_pretraining_encoder(golden, state, image, taps, compare)


def _expect_all(network: HiEndSegmenter, compare: Comparison) -> None:
    compare.expect(*_DOCUMENTED)
    compare.expect(*(f"state.{name}" for name in network.state_dict()))
    compare.expect(*(f"stage.{name}.{what}" for name in _STAGES for what in ("sample", "mean", "std")))
    tapped = [f"hidden.{tap - 1}" for tap in network.taps]
    compare.expect(*(f"{encoder}.{name}*" for encoder in ("vit", "pretrain") for name in tapped))
    compare.expect(*(f"stage_shapes.{name}" for name in (*(f"vit.{tap}" for tap in tapped), "vit.norm_out", *_STAGES)))
    parameters = dict(network.named_parameters())
    compare.expect(*(f"grad.{name}*" for name in _GRADIENTS if name in parameters))


def _taps(tensors: dict[str, Tensor]) -> list[int]:
    found = (re.match(r"vit\.hidden\.(\d+)(?:\.|$)", name) for name in tensors)
    blocks = sorted({int(match[1]) + 1 for match in found if match})
    return blocks if len(blocks) == len(TAPS) else list(TAPS)  # a file may hold other blocks than the tapped


def _watch(network: HiEndSegmenter) -> dict[str, Tensor]:
    """Return a dictionary that the next forward pass fills with every stage, by the goldens' names."""
    stages: dict[str, Tensor] = {}

    def keep(name: str, part: nn.Module) -> None:
        part.register_forward_hook(lambda part, args, out: stages.__setitem__(name, out))

    for number, block in enumerate(network.vit.blocks):
        keep(f"vit.hidden.{number}", block)
    keep("vit.norm_out", network.vit.norm)
    for name in _STAGES:
        keep(name, network.get_submodule(name))
    return stages


@torch.no_grad()
def _check_stages(stages: dict[str, Tensor], compare: Comparison) -> None:
    for name, stage in stages.items():
        compare(f"stage_shapes.{name}", list(stage.shape))
        if name.startswith("vit."):
            _compare_rows(name, stage, compare)
        else:
            sx, sy, sz = (max(1, size // 4) for size in stage.shape[2:])
            compare(f"stage.{name}.sample", stage[:, :, ::sx, ::sy, ::sz])
            _compare_statistics(f"stage.{name}.", stage, compare)


@torch.no_grad()
def _check_logits(logits: Tensor, compare: Comparison) -> None:
    for name in compare.stored:
        if found := re.fullmatch(r"logits\.stride(\d+)", name):
            step = int(found[1])
            compare(name, logits[:, :, ::step, ::step, ::step])
        if found := re.fullmatch(r"logits\.block_(\d+)_(\d+)", name):
            cut = slice(int(found[1]), int(found[2]))
            compare(name, logits[:, :, cut, cut, cut])
    _compare_statistics("logits.channel_", logits, compare)
    compare("argmax_counts", logits.argmax(dim=1).flatten().bincount(minlength=logits.shape[1]))


@torch.no_grad()
def _check_pretraining_encoder(
    golden: Golden, state: dict[str, Tensor], image: Tensor, taps: list[int], compare: Comparison
) -> None:
    # By default the segmentation network keeps the class token and the eps of pretraining.
    network = build(golden.content["config"], taps, published=False)
    load_into(network, {**state, "vit.cls_token": golden.tensors["pretrain.cls_token"].float()})
    compare("pretrain.cls_token", network.vit.cls_token)
    hidden, normed = network.vit(network.vit.patch_embedding(image))
    for number, tokens in enumerate(hidden):
        _compare_rows(f"pretrain.hidden.{number}", tokens, compare)
    _compare_rows("pretrain.out", normed, compare)


def _compare_rows(name: str, tokens: Tensor, compare: Comparison) -> None:
    """Compare a tensor stored whole, or every k-th row of it."""
    compare(name, tokens)
    for stored, step in _row_steps(name, compare):
        compare(stored, tokens[:, ::step])


def _row_steps(name: str, compare: Comparison) -> Iterator[tuple[str, int]]:
    for stored in compare.stored:
        if found := re.fullmatch(re.escape(name) + r"\.every(\d+)th", stored):
            yield stored, int(found[1])


def _compare_statistics(prefix: str, stage: Tensor, compare: Comparison) -> None:
    voxels = stage.double().transpose(0, 1).flatten(1)
    compare(f"{prefix}mean", voxels.mean(dim=1))
    compare(f"{prefix}std", voxels.std(dim=1, unbiased=False))
