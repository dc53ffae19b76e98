import pytest
import torch
from torch.testing import assert_close

from monai_ext.base import SettingError, WeightsError
from monai_ext.networks import HiEndMAE, HiEndReconstructor, HiEndSegmenter, convert, load_into, sincos_positions
from monai_ext.networks.checkpoints import convert_file

SIZES = {"image_size": (12, 10, 21), "patch_size": (4, 5, 3), "in_channels": 2, "encoder_width": 24}
SIZES |= {"encoder_depth": 5, "encoder_heads": 3, "taps": (1, 2, 4)}
DECODER = {"decoder_width": 18, "decoder_self_depth": 1, "decoder_heads": 2, "mask_ratio": 0.6}


def mae(**changes):
    return HiEndMAE(**{**SIZES, **DECODER, **changes})


def segmenter(**changes):
    return HiEndSegmenter(**{"out_channels": 4, "feature_size": 2, **SIZES, **changes})


def test_weights_of_every_kind_fill_the_network(random_mae):
    own = random_mae.state_dict()
    for state in (own, convert(own, "authors").tensors):
        for network in (mae(), HiEndReconstructor(**SIZES, **DECODER)):
            account = load_into(network, state)
            assert set(account.loaded) == set(own)
            assert not account.dropped
            assert not account.initialised
            assert all(torch.equal(tensor, own[name]) for name, tensor in network.state_dict().items())


def test_recorded_weights_become_the_recorded_network(golden):
    network = golden.network()
    for parameter in network.parameters():
        parameter.data.zero_()
    account = load_into(network, {f"module.{name}": tensor for name, tensor in golden.state.items()})
    assert len(account.loaded) == len(network.state_dict())
    output = network(golden.tensors["input.image"].float(), golden.tensors["input.shuffle_indices"])
    recorded = golden.tensors["decoder.out"][:, 1 + network.visible :]
    assert_close(output.prediction, recorded, rtol=0, atol=5e-5)  # as recorded: noise 5e-6


def test_an_encoder_leaves_the_decoder_random_and_says_so(random_mae):
    encoder = convert(random_mae.state_dict(), "authors_encoder").tensors
    network = mae()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    account = load_into(network, encoder)
    assert set(account.loaded) | set(account.initialised) == set(before)
    assert set(account.initialised) == {n for n in before if n.startswith(("decoder", "mask", "encoder_to"))}
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]) == (name in account.initialised or name == "encoder_pos_embed")


@pytest.mark.parametrize("published", [False, True])
def test_segmenter_gets_the_encoder(random_mae, published):
    network = segmenter(published=published)
    account = load_into(network, random_mae.state_dict())
    assert set(account.loaded) == {name for name in network.state_dict() if name.startswith("vit.")}
    assert set(account.initialised) == {name for name in network.state_dict() if not name.startswith("vit.")}
    assert ("encoder.cls_token" in account.dropped) == published
    assert {name for name in account.dropped if name.startswith("encoder.")} <= {"encoder.cls_token"}
    assert "mask_token" in account.dropped


def test_fine_tuned_network_into_another():
    torch.manual_seed(0)
    source, target = segmenter(), segmenter()
    source.vit.patch_embedding.position_embeddings.data += 0.3  # fine-tuning moves the positions
    account = load_into(target, source.state_dict())
    assert len(account.loaded) == len(source.state_dict())
    image = torch.rand(1, 2, 12, 10, 21)
    assert torch.equal(source(image), target(image))
    with pytest.raises(WeightsError, match=r"vit\.cls_token is missing"):
        load_into(segmenter(), segmenter(published=True).state_dict())
    account = load_into(segmenter(published=True), source.state_dict())
    assert list(account.dropped) == ["vit.cls_token"]


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"patch_size": (4, 5, 7)}, "patch_size"),
        ({"in_channels": 1}, "in_channels"),
        ({"encoder_width": 12}, "encoder_width"),
        ({"encoder_depth": 6}, "encoder_depth"),
        ({"encoder_depth": 4}, "encoder_depth"),
        ({"decoder_width": 12}, "decoder_width"),
        ({"decoder_self_depth": 2}, "decoder_self_depth"),
        ({"decoder_self_depth": 0}, "decoder_self_depth"),
        ({"taps": (1, 4)}, "taps"),
        ({"taps": (1, 2, 3, 4)}, "taps"),
    ],
)
def test_other_sizes_name_the_setting_and_change_nothing(random_mae, changes, setting):
    network = mae(**changes)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(WeightsError, match=rf"build (it|the network) with the {setting} of the weights"):
        load_into(network, random_mae.state_dict())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"out_channels": 7}, "out_channels"),
        ({"feature_size": 3}, "feature_size"),
        ({"encoder_width": 12}, "encoder_width"),
        ({"patch_size": (4, 5, 7)}, "patch_size or in_channels"),
        ({"patch_size": (4, 3, 5), "image_size": (12, 6, 35)}, "patch_size or decoder_stride"),
        ({"decoder_stride": 2}, "patch_size or decoder_stride"),
    ],
)
def test_other_segmenters_name_the_setting(changes, setting):
    with pytest.raises(WeightsError, match=rf"build it with the {setting} of the weights"):
        load_into(segmenter(**changes), segmenter().state_dict())


def test_size_mismatch_names_key_and_both_shapes(random_mae):
    sentence = (
        r"weights: encoder\.patch_embedding\.weight has shape \[24, 2, 4, 5, 3\], the network needs \[24, 2, 4, 5, 7\]"
    )
    with pytest.raises(WeightsError, match=sentence):
        load_into(mae(patch_size=(4, 5, 7)), random_mae.state_dict())


@pytest.mark.parametrize("name", ["encoder.norm.weight", "encoder.cls_token", "decoder.head.bias", "mask_token"])
def test_one_tensor_short(random_mae, name):
    state = random_mae.state_dict()
    del state[name]
    with pytest.raises(WeightsError, match=rf"{name} is missing"):
        load_into(mae(), state)


class TestPositions:
    """Frozen in pretraining, so that those in a checkpoint tell its grid."""

    def test_another_grid_is_named(self, random_mae):
        network = mae(image_size=(8, 20, 21))
        with pytest.raises(WeightsError, match=r"encoder_pos_embed are those of 3x2x7 patches, the network has 2x4x7"):
            load_into(network, random_mae.state_dict())
        with pytest.raises(
            WeightsError, match=r"position_embeddings are those of 3x2x7 patches, the network has 2x4x7"
        ):
            load_into(segmenter(image_size=(8, 20, 21)), random_mae.state_dict())

    def test_same_number_in_another_order_is_named(self, random_mae):
        with pytest.raises(WeightsError, match=r"are those of 3x2x7 patches, the network has 2x3x7"):
            load_into(mae(image_size=(8, 15, 21)), random_mae.state_dict())

    def test_positions_of_no_grid(self, random_mae):
        state = random_mae.state_dict()
        state["decoder_pos_embed"] = state["decoder_pos_embed"].roll(1, dims=1)  # off by one
        with pytest.raises(WeightsError, match=r"decoder_pos_embed are no grid's \(42 rows\)"):
            load_into(mae(), state)

    @pytest.mark.parametrize("build", [mae, segmenter])
    def test_recomputed_on_request(self, random_mae, build):
        network = build(image_size=(8, 20, 21))
        account = load_into(network, random_mae.state_dict(), positions="recomputed")
        name = "encoder_pos_embed" if build is mae else "vit.patch_embedding.position_embeddings"
        assert torch.equal(network.state_dict()[name], sincos_positions((2, 4, 7), 24))
        assert "computed anew for 2x4x7 patches" in account.dropped[name]
        assert name in account.initialised
        assert name not in account.loaded

    def test_half_precision_positions_are_still_recognised(self, random_mae):
        state = {name: tensor.half() for name, tensor in random_mae.state_dict().items()}
        network = mae()
        load_into(network, state)
        assert network.mask_token.dtype == torch.float32


def test_account_reads_as_text(random_mae):
    encoder = convert(random_mae.state_dict(), "authors_encoder").tensors
    text = str(load_into(segmenter(published=True), {**encoder}))
    assert text.startswith("weights: 65 loaded, 1 dropped, ")
    assert "dropped encoder.cls_token: the published segmentation network has no class token" in text
    assert "initialised out.conv.conv.weight: the checkpoint holds an encoder only" in text


def test_networks_of_others_are_refused(random_mae):
    with pytest.raises(SettingError, match="cannot load into Linear"):
        load_into(torch.nn.Linear(2, 2), random_mae.state_dict())
    with pytest.raises(SettingError, match="positions='guess'"):
        load_into(random_mae, random_mae.state_dict(), positions="guess")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda state: {"a": torch.ones(3)}, r"no Hi-End-MAE patch embedding among 1 tensors \(a, \.\.\.\); give"),
        (lambda state: {**state, "odd": torch.ones(3)}, "odd: not a tensor of Hi-End-MAE; remove it"),
        (lambda state: {**state, "module.odd": torch.ones(3)}, ".*has no prefix 'module.' while module.odd has one"),
    ],
)
def test_weights_of_another_network_name_their_file(tmp_path, random_mae, change, sentence):
    torch.save(change(random_mae.state_dict()), tmp_path / "foreign.pt")
    with pytest.raises(WeightsError, match=f"^foreign\\.pt: {sentence}"):
        load_into(mae(), tmp_path / "foreign.pt")
    with pytest.raises(WeightsError, match=f"^foreign\\.pt: {sentence}"):
        convert_file(tmp_path / "foreign.pt", tmp_path / "out.pt", "authors")
    assert not (tmp_path / "out.pt").exists()
