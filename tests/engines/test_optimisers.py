import json

import pytest
import torch
from torch import nn

from monai_ext.base import SettingError
from monai_ext.engines.optimisers import adamw_groups, make_adamw
from monai_ext.networks import HiEndMAE, HiEndSegmenter, convert

DEPTH = 5


class Small(nn.Module):
    """Every kind of parameter that must not decay, and two that must."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.ones(1, 1, 7))
        self.linear = nn.Linear(7, 3)
        self.norm = nn.LayerNorm(3)
        self.pos_embed = nn.Parameter(torch.ones(1, 2, 3))
        self.gamma = nn.Parameter(torch.ones(2, 3))
        self.conv = nn.Conv3d(3, 2, 1)
        self.frozen = nn.Parameter(torch.ones(2, 3), requires_grad=False)


@pytest.fixture
def segmenter() -> HiEndSegmenter:
    return HiEndSegmenter(
        2, 8, 4, encoder_width=12, encoder_depth=DEPTH, encoder_heads=3, feature_size=2, taps=(2, 3, 4)
    )


def names(group: dict) -> list[str]:
    return [name for name, _ in group["params"]]


def rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    return {name: group["lr"] for group in optimizer.param_groups for name in group["param_names"]}


def test_only_matrices_and_kernels_decay():
    kept, decayed = adamw_groups(Small(), 0.3)
    assert names(decayed) == ["linear.weight", "conv.weight"]
    assert names(kept) == [
        "cls_token", "pos_embed", "gamma", "linear.bias", "norm.weight", "norm.bias", "conv.bias",
    ]  # fmt: skip
    assert (kept["weight_decay"], decayed["weight_decay"]) == (0.0, 0.3)


def test_published_decay_is_that_of_both_groups():
    groups = adamw_groups(Small(), 0.3, published=True)
    assert [names(group) for group in groups] == [names(group) for group in adamw_groups(Small(), 0.3)]
    assert [group["weight_decay"] for group in groups] == [0.3, 0.3]


def test_a_step_without_gradient_shrinks_only_what_decays():
    network = Small()
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    optimizer = make_adamw(network, lr=0.5, weight_decay=0.3)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in network.named_parameters():
        shrink = 1 - 0.5 * 0.3 if name in ("linear.weight", "conv.weight") else 1
        torch.testing.assert_close(parameter, before[name] * shrink)


def test_pretraining_groups_are_the_published_ones(shared_goldens):
    golden = json.loads((shared_goldens / "hi_end_mae" / "weight_decay_groups.json").read_text())
    network = HiEndMAE(
        (32, 32, 16), 8, encoder_width=48, encoder_heads=3, decoder_width=30, decoder_heads=5,
        decoder_self_depth=1, mask_ratio=0.6,
    )  # fmt: skip
    decayed = set(names(adamw_groups(network, 0.05)[1]))
    marks = {n: torch.full(p.shape, float(n in decayed)) for n, p in network.named_parameters()}
    marks = convert(marks, "authors").tensors  # stacks ours as theirs are
    kept, shrunk = ({n for n, mark in marks.items() if (mark == value).all()} for value in (0, 1))
    assert kept - set(golden["frozen"]) == set(golden["groups"][0]["names"])
    assert shrunk == set(golden["groups"][1]["names"])


def test_layer_decay_slows_the_encoder_towards_the_input(segmenter):
    found = rates(make_adamw(segmenter, lr=2.0, layer_decay=0.5))
    assert found["out.conv.conv.weight"] == found["decoder2.conv3d.bias"] == 2.0
    assert found["vit.norm.weight"] == 2.0  # as in BEiT and MAE: with the head
    for block in range(DEPTH):
        assert found[f"vit.blocks.{block}.mlp.linear1.weight"] == 2.0 * 0.5 ** (DEPTH - block)
    assert found["vit.patch_embedding.position_embeddings"] == 2.0 * 0.5 ** (DEPTH + 1)


def test_encoder_scale_leaves_the_decoder_alone(segmenter):
    found = rates(make_adamw(segmenter, lr=2.0, encoder_lr_scale=0.25))
    assert {rate for name, rate in found.items() if name.startswith("vit.")} == {0.5}
    assert {rate for name, rate in found.items() if not name.startswith("vit.")} == {2.0}


def test_every_trainable_parameter_is_in_one_group(segmenter):
    optimizer = make_adamw(segmenter, lr=2.0, layer_decay=0.5, encoder_lr_scale=0.25)
    found = [name for group in optimizer.param_groups for name in group["param_names"]]
    assert sorted(found) == sorted(name for name, _ in segmenter.named_parameters())


def test_a_frozen_encoder_keeps_its_weights(segmenter):
    optimizer = make_adamw(segmenter, lr=0.1, freeze_encoder=True)
    before = {name: tensor.clone() for name, tensor in segmenter.state_dict().items()}
    segmenter(torch.rand(1, 1, 8, 8, 8)).square().mean().backward()
    optimizer.step()
    changed = {name for name, tensor in segmenter.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert not any(name.startswith("vit.") for name in changed | rates(optimizer).keys())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"lr": 0.0}, "lr 0.0 and encoder_lr_scale 1.0 must be above 0"),
        ({"lr": 1.0, "layer_decay": 1.5}, r"layer_decay 1.5 in \(0, 1\]"),
        ({"lr": 1.0, "encoder_lr_scale": 0.0}, "use freeze_encoder"),
        ({"lr": "fast"}, "lr 'fast' and encoder_lr_scale 1.0 must be above 0"),
        ({"lr": 1.0, "weight_decay": "none"}, "weight_decay: 'none' is not a number from 0 up"),
        ({"lr": 1.0, "weight_decay": -0.1}, "weight_decay: -0.1"),
        ({"lr": 1.0, "layer_decay": 0.5}, r"Small has no layer_of\(name\) or encoder_parameters\(\)"),
    ],
)
def test_impossible_settings_are_named(arguments, words):
    with pytest.raises(SettingError, match=words):
        make_adamw(Small(), **arguments)


def test_nothing_to_train_is_said():
    with pytest.raises(SettingError, match="every parameter is frozen"):
        adamw_groups(Small().requires_grad_(False), 0.1)
