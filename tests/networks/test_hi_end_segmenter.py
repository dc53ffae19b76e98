import json
import math

import pytest
import torch
from safetensors import safe_open
from torch.testing import assert_close

from monai_ext.networks import HiEndMAE, HiEndSegmenter, load_into
from monai_ext.networks.unetr_parts import up_steps

STAGES = ("encoder1", "encoder2", "encoder3", "encoder4", "decoder5", "decoder4", "decoder3", "decoder2")


@pytest.fixture(scope="module")
def recorded(shared_goldens):
    with safe_open(shared_goldens / "hi_end_mae" / "unetr_p12.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        return json.loads(file.metadata()["config"]), tensors


def state_of(tensors):
    return {n.removeprefix("state."): t.float() for n, t in tensors.items() if n.startswith("state.")}


def build(config, **settings):
    return HiEndSegmenter(
        config["out_channels"],
        config["img_size"],
        config["patch_size"],
        config["in_channels"],
        config["hidden_size"],
        config["num_layers"],
        config["num_heads"],
        config["feature_size"],
        **settings,
    )


@pytest.fixture(scope="module")
def published_run(recorded):
    """One forward and backward pass of the published network, with everything it computes on the way."""
    config, tensors = recorded
    network = build(config, published=True)
    network.load_state_dict(state_of(tensors))
    seen = {}
    for name in STAGES:
        getattr(network, name).register_forward_hook(lambda _, __, out, name=name: seen.update({name: out.detach()}))
    network.vit.register_forward_hook(lambda _, __, out: seen.update({"vit": out}))
    logits = network(tensors["input.image_u8"].float() / 255)
    objective = logits.softmax(1)[:, 1:].square().mean()
    objective.backward()
    return network, seen, logits.detach(), objective.detach()


def test_published_logits(recorded, published_run):
    _, tensors = recorded
    _, _, logits, objective = published_run
    assert_close(logits[:, :, ::4, ::4, ::4], tensors["logits.stride4"], rtol=0, atol=5e-4)  # noise 7e-5
    assert_close(logits[:, :, 40:56, 40:56, 40:56], tensors["logits.block_40_56"], rtol=0, atol=5e-4)
    flat = logits.double().flatten(2)[0]
    assert_close(flat.mean(1), tensors["logits.channel_mean"], rtol=0, atol=1e-5)
    assert_close(flat.std(1, unbiased=False), tensors["logits.channel_std"], rtol=0, atol=1e-5)
    voxels = torch.bincount(logits.argmax(1).flatten(), minlength=3)
    assert (voxels - tensors["argmax_counts"]).abs().max() <= 50  # noise 3
    assert_close(objective.reshape(1), tensors["objective"], rtol=0, atol=1e-6)


def test_published_stages(recorded, published_run):
    _, tensors = recorded
    seen = published_run[1]
    for name in STAGES:
        sizes = seen[name].shape[2:]
        strides = [slice(None, None, size // 4) for size in sizes]
        assert_close(seen[name][:, :, *strides], tensors[f"stage.{name}.sample"], rtol=0, atol=2e-4)  # noise 1.5e-5
        flat = seen[name].double().flatten(2)[0]
        assert_close(flat.mean(1), tensors[f"stage.{name}.mean"], rtol=0, atol=1e-5)
        assert_close(flat.std(1, unbiased=False), tensors[f"stage.{name}.std"], rtol=0, atol=1e-5)
    hidden, out = seen["vit"]
    for block in (3, 6, 9):
        assert_close(hidden[block][:, ::4], tensors[f"vit.hidden.{block}.every4th"], rtol=0, atol=1e-4)
    assert_close(out[:, ::4], tensors["vit.norm_out.every4th"], rtol=0, atol=1e-4)


def test_published_gradients(recorded, published_run):
    _, tensors = recorded
    parameters = dict(published_run[0].named_parameters())
    for name, value in tensors.items():
        if name.startswith("grad."):
            key = name.removeprefix("grad.")
            found = parameters[key.removesuffix(".every4th")].grad
            found = found[:, ::4] if key.endswith(".every4th") else found
            assert (found - value).abs().max() <= 2e-3 * value.abs().max()  # noise 4e-4


@pytest.mark.parametrize("shift", [-1, 1])
@pytest.mark.parametrize(("skip", "block"), [("encoder2", 3), ("encoder3", 6), ("encoder4", 9)])
def test_golden_tells_a_tap_that_is_off_by_one(recorded, published_run, skip, block, shift):
    network, seen, _, _ = published_run
    with torch.no_grad():
        stage = getattr(network, skip)(network.volume(seen["vit"][0][block + shift]))
    strides = [slice(None, None, size // 4) for size in stage.shape[2:]]
    assert (stage[:, :, *strides] - recorded[1][f"stage.{skip}.sample"]).abs().max() > 100 * 2e-4  # the tolerance


def _order(tokens):
    return tokens.unflatten(1, (8, 8, 8)).transpose(1, 3).flatten(1, 3)


@pytest.mark.parametrize("change", [lambda table: table.roll(1, dims=1), _order], ids=["off by one", "z for x"])
def test_golden_tells_other_positions(recorded, published_run, change):
    network = published_run[0]
    with torch.no_grad():
        image = recorded[1]["input.image_u8"].float() / 255
        table = network.vit.patch_embedding.position_embeddings
        hidden, _ = network.vit(network.vit.patch_embedding(image) - table + change(table))
    moved = (hidden[3][:, ::4] - recorded[1]["vit.hidden.3.every4th"]).abs().max()
    assert moved > 100 * 1e-4  # the tolerance


def test_default_encoder_is_that_of_pretraining(recorded):
    """Class token and eps 1e-6: the hidden states are those that pretraining learned to make."""
    config, tensors = recorded
    network = build(config)
    state = {n: t for n, t in state_of(tensors).items() if n.startswith("vit.")}
    load_into(network, {**state, "vit.cls_token": tensors["pretrain.cls_token"].float()})
    with torch.no_grad():
        hidden, out = network.vit(network.vit.patch_embedding(tensors["input.image_u8"].float() / 255))
    for block in (3, 6, 9):
        assert_close(hidden[block][:, ::4], tensors[f"pretrain.hidden.{block}.every4th"], rtol=0, atol=1e-4)
    assert_close(out[:, ::4], tensors["pretrain.out.every4th"], rtol=0, atol=1e-4)
    # The published network, without class token, strays a hundred times further than the tolerance.
    published = tensors["vit.hidden.9.every4th"]
    shared = hidden[9][:, 1:][:, ::4]
    assert (shared - published).abs().max() > 1e-2


def test_default_eps_is_that_of_pretraining():
    default, published = HiEndSegmenter.tiny(2), HiEndSegmenter.tiny(2, published=True)
    for network, eps in ((default, 1e-6), (published, 1e-5)):
        norms = [part for part in network.vit.modules() if isinstance(part, torch.nn.LayerNorm)]
        assert len(norms) == 25
        assert {part.eps for part in norms} == {eps}


@pytest.mark.parametrize(
    ("patch", "steps"),
    [
        ((12, 12, 12), [(2, 2, 2), (2, 2, 2), (2, 2, 2)]),  # as published
        ((16, 16, 16), [(2, 2, 2), (2, 2, 2), (2, 2, 2)]),  # as in UNETR, with a resize for its fourth step
        ((8, 8, 8), [(1, 1, 1), (2, 2, 2), (2, 2, 2)]),
        ((16, 12, 4), [(2, 2, 1), (2, 2, 1), (2, 2, 2)]),
        ((1, 2, 3), [(1, 1, 1), (1, 1, 1), (1, 1, 2)]),
    ],
)
def test_up_steps_follow_the_patch(patch, steps):
    assert up_steps(patch) == steps
    for axis in range(3):
        left = patch[axis] / math.prod(step[axis] for step in steps)
        assert left <= 2 or patch[axis] > 16


@pytest.mark.parametrize(
    ("image", "patch", "channels"),
    [
        ((32, 16, 48), (16, 16, 16), 1),
        ((24, 12, 36), (12, 12, 12), 1),
        ((16, 24, 8), (8, 8, 8), 1),
        ((12, 10, 21), (4, 5, 3), 2),
        ((16, 24, 40), (2, 6, 10), 2),
        ((9, 14, 5), (3, 7, 5), 1),
        ((3, 4, 2), (1, 1, 1), 1),
        ((20, 40, 20), (20, 20, 4), 1),
    ],
)
@pytest.mark.parametrize("stride", [1, 2])
def test_output_has_the_size_of_the_input(image, patch, channels, stride):
    network = HiEndSegmenter(5, image, patch, channels, 12, 3, 2, 2, taps=(1, 2, 3), decoder_stride=stride)
    logits = network(torch.rand(2, channels, *image))
    assert logits.shape == (2, 5, *image)
    logits.square().mean().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


def test_tiny_shares_its_encoder_with_the_pretraining_network():
    pretrained, network = HiEndMAE.tiny(), HiEndSegmenter.tiny(4)
    account = load_into(network, pretrained.state_dict())
    assert {name.partition(".")[0] for name in account.initialised} == {*STAGES, "out"}
    image = torch.rand(1, 1, 48, 48, 48)
    order = torch.arange(216).unsqueeze(0)
    pretrained.visible = 216  # all patches, in the order of the grid
    hidden, out = pretrained.encode(pretrained.patches(image), order)
    ours, ours_out = network.vit(network.vit.patch_embedding(image))
    assert_close(ours, hidden, rtol=0, atol=1e-5)  # one sum as a matrix product, one as another
    assert_close(ours_out, out, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", ["base_p16", "large_p16", "large_p12"])
def test_published_encoders_hold_as_many_parameters_as_in_pretraining(size):
    with torch.device("meta"):
        network, pretrained = getattr(HiEndSegmenter, size)(5), getattr(HiEndMAE, size)()
    vit = {n: p.numel() for n, p in network.vit.named_parameters()}
    positions = vit.pop("patch_embedding.position_embeddings")  # frozen in pretraining, kept outside its encoder
    assert sum(vit.values()) == sum(p.numel() for p in pretrained.encoder.parameters())
    assert positions == pretrained.encoder_pos_embed.numel()
    assert network.encoder1.layer.conv1.out_channels == 32


@pytest.mark.parametrize("published", [False, True])
def test_tokens_return_to_their_place_and_the_class_token_to_none(published):
    network = HiEndSegmenter.tiny(2, (16, 18, 25), (8, 6, 5), encoder_width=6, encoder_heads=1, published=published)
    numbers = torch.arange(30.0).reshape(1, 30, 1).expand(1, 30, 6)  # a 2x3x5 grid, z fastest
    class_token = torch.full((1, 0 if published else 1, 6), -1.0)
    volume = network.volume(torch.cat([class_token, numbers], dim=1))
    assert torch.equal(volume[0, 4], torch.arange(30.0).reshape(2, 3, 5))


def test_layers_count_from_the_input_to_the_decoder():
    network = HiEndSegmenter.tiny(2)
    layers = {name: network.layer_of(name) for name, _ in network.named_parameters()}
    assert layers["vit.cls_token"] == layers["vit.patch_embedding.position_embeddings"] == 0
    assert layers["vit.patch_embedding.patch_embeddings.1.weight"] == 0
    assert layers["vit.blocks.0.norm1.weight"] == 1
    assert layers["vit.blocks.11.mlp.linear2.bias"] == 12
    assert layers["vit.norm.weight"] == layers["vit.norm.bias"] == 13
    assert {layer for name, layer in layers.items() if not name.startswith("vit.")} == {13}
    assert set(layers.values()) == set(range(14))
    encoder = {id(parameter) for parameter in network.encoder_parameters()}
    assert {name for name, p in network.named_parameters() if id(p) in encoder} == {
        name for name, layer in layers.items() if layer < 13 or name.startswith("vit.norm.")
    }


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"image: shape \[1, 1, 48, 40, 48\] is not \[batch\] \+ \[1, 48, 48, 48\]"):
        HiEndSegmenter.tiny(2)(torch.zeros(1, 1, 48, 40, 48))
