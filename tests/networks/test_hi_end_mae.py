import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from monai_ext.networks import (
    HiEndMAE,
    HiEndReconstructor,
    convert,
    denormalise_patches,
    hide_tokens,
    take_tokens,
)

# The recorded model's own tolerances: float32 against float64 noise, times about five.
TOLERANCES = {
    "patches": 0,
    "sel_patches": 0,
    "sel_pos_embed": 2e-6,
    "masked": 0,
    "encoder.tokens_in": 2e-5,
    "encoder.hidden": 1e-4,
    "encoder.out": 3e-5,
    "decoder.kv": 1e-4,
    "decoder.tokens_in": 1e-4,
    "decoder.self_out": 1e-4,
    "decoder.cross_out": 2e-4,
    "decoder.norm_out": 5e-5,
    "decoder.out": 5e-5,
    "target": 1e-4,
    "loss": 2e-6,
    "recon": 5e-6,
}


def trace(network: HiEndMAE, image: Tensor, shuffle: Tensor) -> dict[str, Tensor]:
    """Compute everything the goldens record, through public methods and hooks on submodules."""
    seen: dict[str, Tensor] = {}
    handles = [
        network.encoder.blocks[0].register_forward_pre_hook(
            lambda _, inputs: seen.update({"encoder.tokens_in": inputs[0]})
        ),
        network.decoder.register_forward_pre_hook(lambda _, inputs: seen.update({"decoder.tokens_in": inputs[0]})),
    ]
    watched = {
        "decoder.self_out": network.decoder.blocks[-1],
        "decoder.norm_out": network.decoder.norm,
        **{f"decoder.cross_out.{n}": block for n, block in enumerate(network.decoder.cross_attention_blocks)},
        **{
            f"decoder.kv.{tap - 1}": project
            for tap, project in zip(network.taps, network.encoder_to_decoder, strict=False)
        },
    }
    for name, part in watched.items():
        handles.append(part.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out})))
    patches = network.patches(image)
    hidden, encoded = network.encode(patches, shuffle)
    decoded = network.decode(hidden, encoded, shuffle)
    for handle in handles:
        handle.remove()
    visible, masked = shuffle[:, : network.visible], shuffle[:, network.visible :]
    output = network(image, shuffle)
    return {
        **seen,
        **{f"encoder.hidden.{n}": state for n, state in enumerate(hidden)},
        "encoder.out": encoded,
        "decoder.out": network.decoder.head(decoded),
        "patches": patches,
        "sel_patches": take_tokens(patches, visible),
        "sel_pos_embed": take_tokens(network.encoder_pos_embed, visible),
        "masked": hide_tokens(patches, masked),
        "recon": denormalise_patches(network.predict(patches, shuffle), patches, published=True),
        "target": output.target,
        "loss": (output.prediction - output.target).square().mean().reshape(1),
    }


def test_every_recorded_tensor(golden):
    network = golden.network()
    assert network.visible == golden.config["visible_patches"]
    ours = trace(network, golden.tensors["input.image"].float(), golden.tensors["input.shuffle_indices"])
    recorded = {
        name: value for name, value in golden.tensors.items() if not name.startswith(("state.", "input.", "grad."))
    }
    assert set(ours) == set(recorded) - {"loss_f64"}
    for name, value in ours.items():
        tolerance = TOLERANCES[name if name in TOLERANCES else name.rpartition(".")[0]]
        assert_close(
            value, recorded[name].float(), rtol=0, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_gradients(golden):
    network = golden.network()
    output = network(golden.tensors["input.image"].float(), golden.tensors["input.shuffle_indices"])
    (output.prediction - output.target).square().mean().backward()
    gradients = convert({n: p.grad for n, p in network.named_parameters() if p.requires_grad}, "authors").tensors
    assert set(gradients) == set(golden.grad_norms)
    for name, norm in golden.grad_norms.items():
        assert gradients[name].norm().item() == pytest.approx(norm, rel=1e-4)
    for name, value in golden.tensors.items():
        if name.startswith("grad."):
            found = gradients[name.removeprefix("grad.")]
            assert (found - value).abs().max() <= 1e-4 * value.abs().max()  # recorded noise: 1.1e-5


def test_double_precision_loss(golden):
    network = golden.network().double()
    output = network(golden.tensors["input.image"].double(), golden.tensors["input.shuffle_indices"])
    loss = (output.prediction - output.target).square().mean()
    assert_close(loss.reshape(1), golden.tensors["loss_f64"], rtol=0, atol=1e-8)  # positions are float32 in both


def _eps(network: HiEndMAE) -> None:
    for part in network.modules():
        if isinstance(part, nn.LayerNorm):
            part.eps = 1e-5


def _swap_positions(network: HiEndMAE) -> None:
    for table in (network.encoder_pos_embed, network.decoder_pos_embed):
        third = table.shape[-1] // 3
        table.data = torch.cat([table[..., third : 2 * third], table[..., :third], table[..., 2 * third :]], dim=-1)


def _shift_positions(network: HiEndMAE) -> None:
    network.encoder_pos_embed.data = network.encoder_pos_embed.roll(1, dims=1)


def _reverse_taps(network: HiEndMAE) -> None:
    network.taps.reverse()


def _earlier_taps(network: HiEndMAE) -> None:
    network.taps = [tap - 1 for tap in network.taps]


def _later_taps(network: HiEndMAE) -> None:
    network.taps = [tap + 1 for tap in network.taps]


def _no_class_token_in_memory(network: HiEndMAE) -> None:
    for project in network.encoder_to_decoder[:-1]:
        project.register_forward_hook(lambda _, __, out: out[:, 1:])


@pytest.mark.parametrize(
    "mutate",
    [_eps, _swap_positions, _shift_positions, _reverse_taps, _earlier_taps, _later_taps, _no_class_token_in_memory],
)
def test_goldens_tell_a_changed_detail(golden, mutate):
    network = golden.network()
    mutate(network)
    output = network(golden.tensors["input.image"].float(), golden.tensors["input.shuffle_indices"])
    recorded = golden.tensors["decoder.out"][:, 1 + network.visible :]
    # The smallest published effect of these is 7e-3, a hundred times the tolerance.
    assert (output.prediction - recorded).abs().max() > 100 * TOLERANCES["decoder.out"]


def test_forward_predicts_masked_rows_only_and_says_which(random_mae):
    image = torch.rand(3, 2, 12, 10, 21)
    output = random_mae(image)
    tokens, visible = 42, 16
    assert (random_mae.tokens, random_mae.visible) == (tokens, visible)
    assert output.prediction.shape == output.target.shape == (3, tokens - visible, 120)
    again = random_mae(image, output.shuffle_indices)
    assert torch.equal(again.prediction, output.prediction)
    assert not torch.equal(output.shuffle_indices[0], output.shuffle_indices[1])
    assert not torch.equal(random_mae(image).shuffle_indices, output.shuffle_indices)


def test_hidden_patches_do_not_leak(random_mae):
    image = torch.rand(2, 2, 12, 10, 21)
    output = random_mae(image)
    order, visible = output.shuffle_indices, random_mae.visible
    changed = hide_tokens(random_mae.fold(image), order[:, visible:])
    unfold = HiEndReconstructor((12, 10, 21), (4, 5, 3), encoder_width=6, encoder_heads=1).unfold
    assert torch.equal(random_mae(unfold(changed), order).prediction, output.prediction)


def test_order_of_visible_patches_does_not_matter(random_mae):
    image = torch.rand(1, 2, 12, 10, 21)
    first = random_mae(image)
    visible = random_mae.visible
    order = torch.cat([first.shuffle_indices[:, :visible].flip(1), first.shuffle_indices[:, visible:]], dim=1)
    # Attention is a sum over tokens; another order rounds differently.
    assert_close(random_mae(image, order).prediction, first.prediction, rtol=0, atol=1e-5)


def test_attention_is_the_textbook_formula(random_mae):
    """Cross blocks: self-attention, then attention to un-normed memory, then the MLP; each on a residual."""
    block = random_mae.decoder.cross_attention_blocks[1]
    tokens, memory = torch.randn(2, 7, 18), torch.randn(2, 5, 18)

    def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        heads = [tensor.unflatten(-1, (2, 9)).transpose(1, 2) for tensor in (queries, keys, values)]
        weights = (heads[0] @ heads[1].transpose(-1, -2) / 9**0.5).softmax(-1)
        return (weights @ heads[2]).transpose(1, 2).flatten(2)

    expected = tokens
    queries, keys, values = block.attn.qkv(block.norm1(expected)).chunk(3, dim=-1)
    expected = expected + block.attn.out_proj(attend(queries, keys, values))
    cross = block.cross_attn
    queries = cross.to_q(block.norm_cross_attn(expected))
    expected = expected + cross.out_proj(attend(queries, cross.to_k(memory), cross.to_v(memory)))
    inner = nn.functional.gelu(block.mlp.linear1(block.norm2(expected)))
    expected = expected + block.mlp.linear2(inner)
    assert_close(block(tokens, memory), expected, rtol=0, atol=1e-5)  # fused attention sums in another order


def test_parameter_counts_of_the_published_models():
    counts = {}
    for build in (HiEndMAE.large_p12, HiEndMAE.base_p16, HiEndMAE.large_p16):
        with torch.device("meta"):
            network = build()
        parts = (network.encoder, network.decoder, network.encoder_to_decoder, network)
        counts[build.__name__] = [sum(p.numel() for p in part.parameters() if p.requires_grad) for part in parts]
    assert counts == {
        "large_p12": [342_638_592, 21_031_440, 3_246_144, 366_916_704],
        "base_p16": [88_203_264, 12_226_432, 1_181_184, 101_611_264],
        "large_p16": [346_275_840, 22_284_112, 3_246_144, 371_806_624],
    }


def test_every_trainable_parameter_learns(random_mae):
    output = random_mae(torch.rand(2, 2, 12, 10, 21))
    (output.prediction - output.target).square().mean().backward()
    idle = [n for n, p in random_mae.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert idle == []  # DistributedDataParallel waits for every gradient
    assert not random_mae.encoder_pos_embed.requires_grad
    assert not random_mae.decoder_pos_embed.requires_grad


def test_evaluation_is_training_without_gradients(random_mae):
    """No dropout: MONAI's fused attention would apply it in evaluation too."""
    image = torch.rand(1, 2, 12, 10, 21)
    trained = random_mae.train()(image)
    assert torch.equal(random_mae.eval()(image, trained.shuffle_indices).prediction, trained.prediction)


def test_other_shapes_are_refused(random_mae):
    with pytest.raises(ValueError, match=r"image: shape \[1, 2, 12, 10, 18\] is not \[batch\] \+ \[2, 12, 10, 21\]"):
        random_mae(torch.zeros(1, 2, 12, 10, 18))
    with pytest.raises(ValueError, match=r"image: shape \[1, 1, 12, 10, 21\]"):
        random_mae(torch.zeros(1, 1, 12, 10, 21))
    image = torch.zeros(2, 2, 12, 10, 21)
    with pytest.raises(ValueError, match=r"shuffle_indices: shape \[1, 42\] is not \[2, 42\]"):
        random_mae(image, torch.arange(42).unsqueeze(0))
    with pytest.raises(ValueError, match=r"shuffle_indices: a row does not hold every number from 0 to 41 once"):
        random_mae(image, torch.arange(42).clamp(max=40).repeat(2, 1))


def test_tap_count_sets_the_cross_depth():
    network = HiEndMAE.tiny(encoder_depth=6, taps=(2, 5), decoder_self_depth=0)
    assert len(network.decoder.cross_attention_blocks) == 2
    assert len(network.encoder_to_decoder) == 3
    assert network(torch.rand(1, 1, 48, 48, 48)).prediction.shape == (1, 162, 512)
