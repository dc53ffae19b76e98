"""AA-CLIP against its formulas, and what it leaves behind on a lent CLIP."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from monai_ext.base import SettingError
from monai_ext.networks import AAClip, AnomalyMaps, ClipModel, load_clip

TOLERANCE = {"rtol": 0, "atol": 2e-5}  # float32 against the same formula summed in another order


@pytest.fixture
def pictures() -> Tensor:
    return torch.randn(3, 3, 35, 25, generator=torch.Generator().manual_seed(1))


# The formulas, one image and one head at a time


def layer_norm(norm: nn.LayerNorm, tokens: Tensor) -> Tensor:
    centred = tokens - tokens.mean(dim=-1, keepdim=True)
    return centred / (centred.square().mean(dim=-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


def attention(layer: nn.MultiheadAttention, tokens: Tensor, value_value: bool = False) -> Tensor:
    """Attention of one image's tokens, ``(n, d)``."""
    queries, keys, values = (tokens @ layer.in_proj_weight.T + layer.in_proj_bias).chunk(3, dim=-1)
    if value_value:
        queries = keys = values
    size = tokens.shape[-1] // layer.num_heads
    heads = []
    for head in range(layer.num_heads):
        part = slice(head * size, (head + 1) * size)
        weights = (queries[:, part] @ keys[:, part].T / size**0.5).softmax(dim=-1)
        heads.append(weights @ values[:, part])
    return torch.cat(heads, dim=-1) @ layer.out_proj.weight.T + layer.out_proj.bias


def embedded(visual: nn.Module, picture: Tensor) -> Tensor:
    """Tokens of one picture before the first block, ``(1 + n, d)``; patches row by row."""
    rows = [picture[:, y : y + 5, x : x + 5] for y in range(0, 35, 5) for x in range(0, 25, 5)]
    patches = torch.stack([(visual.conv1.weight * row).sum(dim=(1, 2, 3)) for row in rows])
    tokens = torch.cat([visual.class_embedding[None], patches]) + visual.positional_embedding
    return layer_norm(visual.ln_pre, tokens)


def mixed(tokens: Tensor, weight: Tensor, share: float) -> Tensor:
    """Residual adapter, token by token."""
    out = []
    for token in tokens:
        answer = weight @ token
        answer = torch.where(answer > 0, answer, 0.01 * answer)
        out.append(share * answer * token.norm() / answer.norm() + (1 - share) * token)
    return torch.stack(out)


def blocks_of(model: AAClip, picture: Tensor, adapted: bool, values_from: int) -> dict[int, Tensor]:
    """Tokens after each block, counted from 1."""
    visual, adapters = model.clip.visual, model.adapters.image_adapter.layer_adapters
    tokens, after = embedded(visual, picture), {}
    for number, block in enumerate(visual.transformer.resblocks, start=1):
        tokens = tokens + attention(block.attn, layer_norm(block.ln_1, tokens), number > values_from)
        hidden = F.gelu(layer_norm(block.ln_2, tokens) @ block.mlp.c_fc.weight.T + block.mlp.c_fc.bias)
        tokens = tokens + hidden @ block.mlp.c_proj.weight.T + block.mlp.c_proj.bias
        if adapted and number <= len(adapters):
            tokens = mixed(tokens, adapters[number - 1].weight, model.adapters.image_adapter.weight)
        after[number] = tokens
    return after


def test_stage_2_is_the_formula(random_aa_clip, two_classes, pictures):
    model, adapter = random_aa_clip, random_aa_clip.adapters.image_adapter
    anchors = model.anchors([two_classes[0]] * 3)
    output = model.stage2(pictures, anchors)
    for image in range(3):
        after = blocks_of(model, pictures[image], adapted=True, values_from=99)
        for place, level in enumerate((2, 5)):
            tokens = layer_norm(model.clip.visual.ln_post, after[level])[1:]
            assert_close(
                output.patches[place][image],
                F.normalize(tokens @ adapter.seg_proj[place].weight.T, dim=-1),
                **TOLERANCE,
            )
        patches = F.normalize(tokens @ adapter.det_proj.weight.T, dim=-1)
        detection = patches.mean(dim=0)
        assert_close(output.detection[image], detection, **TOLERANCE)
        assert_close(output.logits[image], detection @ anchors[image], **TOLERANCE)


def test_stage_1_is_the_formula(random_aa_clip, two_classes, pictures):
    model, visual = random_aa_clip, random_aa_clip.clip.visual
    output = model.stage1(pictures, model.anchors([two_classes[1]] * 3))
    for image in range(3):
        plain = blocks_of(model, pictures[image], adapted=False, values_from=99)[6]
        cls_token = F.normalize(layer_norm(visual.ln_post, plain)[0] @ visual.proj, dim=-1)
        after = blocks_of(model, pictures[image], adapted=False, values_from=2)  # the last 4 of 6
        for place, level in enumerate((2, 5)):
            tokens = layer_norm(visual.ln_post, after[level])[1:]
            assert_close(
                output.patches[place][image], F.normalize(tokens @ visual.proj, dim=-1) + cls_token, **TOLERANCE
            )


def test_training_maps_are_the_formula(random_aa_clip, two_classes, pictures):
    """Also that the grid of 7 x 5 patches is laid out row by row."""
    model = random_aa_clip
    anchors = model.anchors([two_classes[0], two_classes[1], two_classes[0]]).detach()
    output = model.stage2(pictures, anchors)
    for image in range(3):
        logits = torch.zeros(2, 7, 5)
        for patch in range(35):
            logits[:, patch // 5, patch % 5] = 100 * output.patches[1][image, patch] @ anchors[image]
        grown = F.interpolate(logits[None], (35, 25), mode="bilinear", align_corners=True)[0]
        # Probabilities of logits up to 100, which float32 rounds at 1e-5.
        assert_close(output.maps[1][image], grown.exp() / grown.exp().sum(dim=0), rtol=0, atol=1e-4)


def test_localization_sums_the_levels(random_aa_clip, two_classes, pictures):
    model, maps = random_aa_clip, AnomalyMaps(blur=(3, 0.7))
    anchors = model.anchors([two_classes[0]])[0]
    found = model.localize(pictures, anchors, maps)
    assert found.anomaly.shape == (3, 1, 35, 25)
    assert torch.equal(found.anomaly, found.levels[0] + found.levels[1])
    assert not found.anomaly.requires_grad
    assert_close(found.score, (model.stage2(pictures, anchors.expand(3, -1, -1)).logits[:, 1] + 1) / 2)
    each = [model.localize(pictures, own, maps).anomaly[0] for own in model.anchors([*two_classes, two_classes[0]])]
    assert not torch.equal(each[0], each[1])
    by_image = model.localize(pictures[:1].expand(3, -1, -1, -1), model.anchors([*two_classes, two_classes[0]]), maps)
    # A batch of copies sums in another order.
    assert_close(by_image.anomaly, torch.stack(each), rtol=0, atol=1e-4)


def test_pictures_do_not_depend_on_their_neighbours(random_aa_clip, pictures):
    alone = random_aa_clip.value_patches(pictures[:1])[1]
    assert_close(random_aa_clip.value_patches(pictures)[1][:1], alone, **TOLERANCE)
    random_aa_clip.vv_axis = "batch"  # as published
    beside = random_aa_clip.value_patches(pictures)[1][:1]
    assert (beside - random_aa_clip.value_patches(pictures[[0, 2, 2]])[1][:1]).abs().max() > 1e-3


# A lent CLIP


def condition(model: nn.Module) -> tuple[object, ...]:
    hooks = [
        len(found)
        for part in model.modules()
        for name, found in vars(part).items()
        if name.endswith("_hooks") and isinstance(found, dict)
    ]
    parts = [(name, id(part), part.training) for name, part in model.named_modules()]
    parameters = [(name, p.data_ptr(), p.requires_grad, p.grad is None) for name, p in model.named_parameters()]
    return hooks, parts, parameters, model.transformer.grad_checkpointing, model.visual.transformer.grad_checkpointing


def test_a_lent_clip_comes_back_unchanged(random_clip, two_classes, pictures):
    lent = random_clip.model.train()
    lent.visual.requires_grad_(True)
    lent.set_grad_checkpointing(True)
    text = random_clip.tokenizer(["a liver."])
    before, weights = condition(lent), {name: value.clone() for name, value in lent.state_dict().items()}
    expected = [value.detach().clone() for value in lent(pictures, text)]
    fast = torch.backends.mha.get_fastpath_enabled()

    model = AAClip(lent, levels=(2, 5), vv_blocks=3)
    assert model.open_clip is lent
    assert not any(parameter.requires_grad for parameter in lent.parameters())
    for stage in (1, 2):
        model.set_stage(stage)
        model.train()
        output = model(pictures, [two_classes[0]] * 3, stage=stage)
        output.maps[0][:, 1].mean().backward()
    model.localize(pictures, model.anchors([two_classes[1]])[0], AnomalyMaps(blur=(3, 1.0)))
    model.adapters.image_adapter.layer_adapters[0].register_forward_hook(stumble)
    with pytest.raises(RuntimeError, match="stumbled"):
        model(pictures, [two_classes[0]] * 3)

    assert model.release() is lent
    assert condition(lent) == before
    assert all(torch.equal(value, weights[name]) for name, value in lent.state_dict().items())
    assert all(torch.equal(value, old) for value, old in zip(lent(pictures, text), expected, strict=True))
    assert torch.backends.mha.get_fastpath_enabled() == fast


def stumble(*_: object) -> None:
    raise RuntimeError("stumbled")


def test_parts_are_in_place_between_calls(random_aa_clip, two_classes, pictures):
    parts = [id(part) for part in random_aa_clip.clip.model.modules()]
    random_aa_clip.value_patches(pictures)
    random_aa_clip(pictures, [two_classes[0]] * 3)
    assert [id(part) for part in random_aa_clip.clip.model.modules()] == parts
    assert not any(part._forward_hooks for part in random_aa_clip.clip.model.modules())


def test_gradient_checkpointing_of_a_lent_clip_changes_nothing(random_clip, two_classes, pictures):
    gradients = []
    for checkpointing in (False, True):
        random_clip.model.set_grad_checkpointing(checkpointing)
        torch.manual_seed(3)
        model = AAClip(random_clip, levels=(2, 5), image_adapt_until=2)
        model(pictures, [two_classes[0]] * 3).maps[0][:, 1].mean().backward()
        gradients.append(model.adapters.image_adapter.layer_adapters[0].weight.grad)
    assert torch.equal(*gradients)
    assert gradients[0].any()


# Training


def test_each_stage_trains_its_adapter_and_nothing_else(random_aa_clip, two_classes, pictures):
    model = random_aa_clip.train()
    assert not model.open_clip.training
    for stage, own, other in ((1, "text", "image"), (2, "image", "text")):
        model.zero_grad()
        model.set_stage(stage)
        output = model(pictures, [two_classes[0], two_classes[1], two_classes[0]], stage=stage)
        loss = sum(level[:, 1].square().mean() for level in output.maps)
        if stage == 2:
            loss = loss + output.logits[:, 1].square().mean()
        loss.backward()
        for name, parameter in model.named_parameters():
            if name.startswith(f"adapters.{own}"):
                assert parameter.requires_grad
                assert parameter.grad.any(), name  # DistributedDataParallel waits for every gradient
            else:
                assert parameter.grad is None
                assert parameter.requires_grad is False, (name, other)


def test_a_zero_adapter_leaves_finite_gradients(random_aa_clip, two_classes, pictures):
    nn.init.zeros_(random_aa_clip.adapters.image_adapter.layer_adapters[1].weight)
    output = random_aa_clip(pictures, [two_classes[0]] * 3)
    output.maps[1][:, 1].mean().backward()
    gradients = [parameter.grad for parameter in random_aa_clip.adapters.image_adapter.layer_adapters.parameters()]
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert all(bool(level.isfinite().all()) for level in output.maps)


def test_maps_are_float32_under_autocast(random_aa_clip, two_classes, pictures):
    prompts = [two_classes[0]] * 3
    exact = random_aa_clip(pictures, prompts)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = random_aa_clip(pictures, prompts)
    assert {level.dtype for level in (*output.maps, output.logits)} == {torch.float32}
    assert (output.maps[1] - exact.maps[1]).abs().mean() < 0.1  # bfloat16 has three digits, the factor is 100


def test_a_clip_in_half_precision_works(clip_config, two_classes, pictures):
    clip = load_clip(clip_config, None)
    clip.model.to(torch.bfloat16)
    model = AAClip(clip, levels=(2, 5))
    model.adapters.float()
    output = model(pictures.bfloat16(), [two_classes[0]] * 3)
    assert output.maps[0].dtype == torch.float32
    output.maps[0][:, 1].mean().backward()
    assert model.adapters.image_adapter.seg_proj[0].weight.grad.dtype == torch.float32


def test_a_copy_stands_alone(random_aa_clip, two_classes, pictures):
    twin = copy.deepcopy(random_aa_clip)
    assert twin.clip.model is twin.open_clip
    nn.init.zeros_(twin.adapters.image_adapter.seg_proj[0].weight)
    nn.init.zeros_(twin.adapters.text_adapter[-1].weight)
    prompts = [two_classes[0]] * 3
    assert random_aa_clip(pictures, prompts).patches[0].any()
    assert not twin(pictures, prompts).patches[0].any()
    assert not twin.anchors(prompts).any()


def test_evaluation_is_training_without_gradients(random_aa_clip, two_classes, pictures):
    with torch.no_grad():
        quiet = random_aa_clip(pictures, [two_classes[0]] * 3)
    learning = random_aa_clip.train()(pictures, [two_classes[0]] * 3)
    assert torch.equal(learning.maps[1], quiet.maps[1])


# Settings


@pytest.mark.parametrize(
    ("depth", "levels", "vv_blocks", "until"), [(24, (6, 12, 18, 24), 19, 6), (12, (3, 6, 9, 12), 9, 3)]
)
def test_defaults_scale_with_the_depth(clip_config, depth, levels, vv_blocks, until):
    config = {**clip_config, "vision_cfg": {**clip_config["vision_cfg"], "layers": depth}}
    settings = AAClip(load_clip(config, None)).settings()
    assert (tuple(settings["levels"]), settings["vv_blocks"], settings["image_adapt_until"]) == (
        levels,
        vv_blocks,
        until,
    )
    assert (settings["vv_axis"], settings["text_adapt_until"], settings["relu"]) == ("token", 3, False)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"levels": (5, 2)}, r"levels: \[5, 2\] are not rising numbers of the 6 image blocks"),
        ({"levels": (0, 2)}, r"levels: \[0, 2\]"),
        ({"levels": (2, 7)}, r"levels: \[2, 7\]"),
        ({"levels": ()}, r"levels: \[\]"),
        ({"vv_blocks": 7}, r"vv_blocks: 7 of 6 blocks; give 0 to 6"),
        ({"image_adapt_until": -1}, r"image_adapt_until: -1 of 6 blocks"),
        ({"text_adapt_until": 5}, r"text_adapt_until: 5 of 4 blocks"),
        ({"image_adapt_weight": 1.5}, r"image_adapt_weight: 1.5 is no share; give 0 to 1"),
        ({"vv_axis": "channel"}, r"vv_axis: 'channel' is no axis; give 'token' or 'batch'"),
    ],
)
def test_settings_that_do_not_fit_are_named(random_clip, settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        AAClip(random_clip, **settings)


def test_a_refused_network_leaves_the_clip_as_it_was(random_clip):
    random_clip.model.train().requires_grad_(True)
    before = condition(random_clip.model)
    with pytest.raises(SettingError):
        AAClip(random_clip, levels=(9,))
    assert condition(random_clip.model) == before


def test_pictures_of_another_size_are_refused(random_aa_clip, two_classes):
    turned = torch.zeros(1, 3, 25, 35)  # as many patches, the other way round
    for stage in (1, 2):
        with pytest.raises(SettingError, match=r"shape \(1, 3, 25, 35\) is not \(batch, 3, 35, 25\); resize them"):
            random_aa_clip(turned, two_classes[:1], stage=stage)


def test_prompts_and_stages_are_checked(random_aa_clip, two_classes, pictures):
    with pytest.raises(SettingError, match=r"prompts: 2 for 3 images; give one ClassPrompts per image"):
        random_aa_clip(pictures, two_classes)
    with pytest.raises(SettingError, match=r"stage: 3 is none; give 1 or 2"):
        random_aa_clip(pictures, [two_classes[0]] * 3, stage=3)


def test_settings_build_the_same_network(random_aa_clip):
    twin = AAClip(random_aa_clip.clip, **random_aa_clip.settings())
    assert twin.settings() == random_aa_clip.settings()
    assert {name: value.shape for name, value in twin.adapters.state_dict().items()} == {
        name: value.shape for name, value in random_aa_clip.adapters.state_dict().items()
    }


def test_adapters_bear_the_authors_names(random_clip):
    adapters = AAClip(random_clip, levels=(3, 6), image_adapt_until=1, text_adapt_until=1).adapters
    assert list(adapters.state_dict()) == [
        "text_adapter.0.fc.0.weight",
        "text_adapter.1.fc.0.weight",
        "image_adapter.layer_adapters.0.fc.0.weight",
        "image_adapter.seg_proj.0.fc.weight",
        "image_adapter.seg_proj.1.fc.weight",
        "image_adapter.det_proj.fc.weight",
    ]
    active = AAClip(ClipModel(random_clip.model), levels=(6,), relu=True).adapters
    assert "image_adapter.det_proj.fc.0.weight" in active.state_dict()
