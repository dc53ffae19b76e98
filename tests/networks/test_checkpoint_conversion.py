import json

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from monai_ext.base import SettingError, WeightsError
from monai_ext.networks import HiEndMAE, HiEndSegmenter, PatchTokens, convert
from monai_ext.networks.checkpoints import kind_of


@pytest.fixture(scope="module")
def released(shared_goldens):
    return json.loads((shared_goldens / "hi_end_mae" / "released_checkpoint_keys.json").read_text())["models"]


@pytest.mark.parametrize("size", ["base_p16", "large_p16", "large_p12"])
def test_released_keys_and_shapes_both_ways(released, size):
    stored = {name: entry["shape"] for name, entry in released[f"vit_{size}"]["keys"].items()}
    with torch.device("meta"):
        own = getattr(HiEndMAE, size)().state_dict()
        theirs = {name: torch.empty(shape) for name, shape in stored.items()}
    to_authors = convert(own, "authors").tensors
    assert {f"module.{name}": list(tensor.shape) for name, tensor in to_authors.items()} == stored
    to_ours, account = convert(theirs, "monai_ext")
    assert {name: tensor.shape for name, tensor in to_ours.items()} == {n: t.shape for n, t in own.items()}
    assert not account.dropped


def test_segmenter_keys_are_the_published_map(shared_goldens):
    table = json.loads((shared_goldens / "hi_end_mae" / "pretrain_to_downstream_keys.json").read_text())
    torch.manual_seed(0)
    shapes = {row["pretrain_key"]: row["pretrain_shape"] for row in table["mapped"]}
    unused = dict.fromkeys(table["pretrain_keys_not_used"])
    with torch.device("meta"):
        whole = convert(HiEndMAE(96, 12, 1, 48, 12, 4, 24, 2, 4).state_dict(), "authors").tensors
    assert set(shapes) | set(unused) == {f"module.{name}" for name in whole}
    source = {f"module.{name}": torch.randn(tensor.shape) for name, tensor in whole.items()}
    found, account = convert(source, "segmenter", published=True)
    assert set(found) == {row["downstream_key"] for row in table["mapped"]}
    for row in table["mapped"]:
        assert list(found[row["downstream_key"]].shape) == row["downstream_shape"]
        expected = source[row["pretrain_key"]]
        expected = expected.flatten(1) if row["transform"].startswith("flatten") else expected
        assert torch.equal(found[row["downstream_key"]], expected)
    own_names = convert(source).tensors
    assert len(account.dropped) == len(own_names) - len(table["mapped"])
    assert "encoder.cls_token" in account.dropped
    assert "vit.cls_token" in convert(source, "segmenter").tensors


def test_patch_kernel_of_two_channels_does_the_same_in_the_segmenter():
    torch.manual_seed(1)
    source = HiEndMAE((6, 10, 7), (3, 5, 7), 2, 12, 3, 2, 6, 0, 1, taps=(1,), mask_ratio=0.5)
    linear = convert(source.state_dict(), "segmenter").tensors["vit.patch_embedding.patch_embeddings.1.weight"]
    kernel = convert(source.state_dict(), "authors").tensors["encoder.patch_embed.proj.weight"]
    volume = torch.randn(2, 2, 6, 10, 7)
    convolved = F.conv3d(volume, kernel, stride=(3, 5, 7)).flatten(2).transpose(1, 2)
    assert_close(F.linear(PatchTokens((3, 5, 7))(volume), linear), convolved, rtol=0, atol=1e-5)
    # What the published flatten(1) would give: right for one channel only.
    assert (F.linear(PatchTokens((3, 5, 7))(volume), kernel.flatten(1)) - convolved).abs().max() > 0.1


def test_names_come_in_the_authors_order(released):
    """Optimizer states number the parameters, so their order is part of the format."""
    stored = [name.removeprefix("module.") for name in released["vit_base_p16"]["keys"]]
    with torch.device("meta"):
        assert list(convert(HiEndMAE.base_p16().state_dict(), "authors").tensors) == stored


@pytest.mark.parametrize("wrap", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_round_trips_lose_nothing(random_mae, wrap):
    own = random_mae.state_dict()
    authors = {f"{wrap}{name}": tensor for name, tensor in convert(own, "authors").tensors.items()}
    assert kind_of(convert(authors, "authors").tensors) == "authors"
    back = convert(authors).tensors
    assert {n: t.shape for n, t in back.items()} == {n: t.shape for n, t in own.items()}
    assert all(torch.equal(back[name], own[name]) for name in own)


def test_encoder_survives_the_segmenter_and_back(random_mae):
    own = random_mae.state_dict()
    there = convert(own, "segmenter").tensors
    with pytest.raises(WeightsError, match="120 columns are not patches of 5x5x5 voxels with 1 channels"):
        convert(there)
    first = {"encoder1.layer.conv1.conv.weight": torch.zeros(4, 2, 3, 3, 3)}  # tells the channels
    back, account = convert({**there, **first}, patch_size=(4, 5, 3))
    assert list(account.dropped) == list(first)
    assert back == {name: back[name] for name in own if name.startswith("encoder.") or name == "encoder_pos_embed"}
    assert all(torch.equal(back[name], own[name]) for name in back)


def test_encoder_only_forms(random_mae):
    encoder, account = convert(random_mae.state_dict(), "authors_encoder")
    assert all(name.startswith("encoder.") or name == "encoder_pos_embed" for name in encoder)
    assert set(account.dropped) == {
        n for n in random_mae.state_dict() if n.startswith(("decoder", "mask_token", "encoder_to_decoder"))
    }
    by_itself = {name.removeprefix("encoder."): tensor for name, tensor in encoder.items()}
    assert set(convert(by_itself).tensors) == set(convert(encoder).tensors)


def test_a_class_token_stays_unless_published():
    with torch.device("meta"):
        state = HiEndSegmenter.tiny(3).state_dict()
    assert not convert(state, "segmenter").account.dropped
    tensors, account = convert(state, "segmenter", published=True)
    assert list(account.dropped) == ["vit.cls_token"]
    assert set(tensors) == set(state) - {"vit.cls_token"}


def test_norms_that_monai_never_uses_are_left_out():
    with torch.device("meta"):
        state = HiEndSegmenter.tiny(3).state_dict()
        unused = {
            f"vit.blocks.{n}.norm_cross_attn.{leaf}": torch.empty(96) for n in range(12) for leaf in ("weight", "bias")
        }
    for target in ("segmenter", "monai_ext"):
        tensors, account = convert({**state, **unused}, target)
        assert set(unused) <= set(account.dropped)
        assert not any("norm_cross_attn" in name for name in tensors)


def test_nothing_unknown_passes(random_mae):
    own = random_mae.state_dict()
    stranger = {"encoder.gamma": torch.zeros(3), "encoder.head.weight": torch.zeros(3)}
    for state in ({**own, **stranger}, {**convert(own, "authors").tensors, **stranger}):
        with pytest.raises(WeightsError, match=r"encoder\.gamma and 1 more: not a tensor of Hi-End-MAE"):
            convert(state)
    with pytest.raises(WeightsError, match=r"encoder\.gamma: not a tensor"):
        convert({**convert(own, "segmenter").tensors, "vit.gamma": torch.zeros(3)}, patch_size=(4, 5, 6))


def test_half_a_pair_is_refused(random_mae):
    own = random_mae.state_dict()
    del own["decoder.cross_attention_blocks.1.cross_attn.to_v.bias"]
    with pytest.raises(WeightsError, match=r"blocks\.1\.cross_attn\.to_v\.bias: absent, but stacked with .*to_k\.bias"):
        convert(own, "authors")


def test_other_networks_are_refused():
    with pytest.raises(WeightsError, match=r"no Hi-End-MAE patch embedding among 2 tensors \(conv\.bias, conv\.weight"):
        convert({"conv.weight": torch.zeros(1), "conv.bias": torch.zeros(1)})
    mixed = {"module.encoder.cls_token": torch.zeros(1), "mask_token": torch.zeros(1)}
    with pytest.raises(WeightsError, match=r"mask_token: has no prefix 'module\.' while module\.encoder\.cls_token"):
        convert(mixed)
    with torch.device("meta"), pytest.raises(SettingError, match="to: 'timm' is none of"):
        convert(HiEndMAE.tiny().state_dict(), "timm")
