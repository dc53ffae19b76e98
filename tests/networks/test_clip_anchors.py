import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from monai_ext.base import SettingError
from monai_ext.networks import AAClip, ClassPrompts, load_clip
from monai_ext.networks.clip_anchors import anchors_of
from monai_ext.networks.clip_towers import text_features


@pytest.fixture
def counted(random_aa_clip, monkeypatch) -> tuple[AAClip, list[int]]:
    """The network, and a list that grows with every sentence that runs through the text tower."""
    made: list[int] = []
    original = random_aa_clip.text.features

    def features(sentences, adapted=True):
        made.append(len(sentences))
        return original(sentences, adapted)

    monkeypatch.setattr(random_aa_clip.text, "features", features)
    return random_aa_clip, made


def test_prompts_are_normalised_before_they_are_averaged():
    normal, abnormal = torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, -2.0]])
    expected = torch.tensor([[0.5**0.5, 0.0], [0.5**0.5, -1.0]])
    assert_close(anchors_of([normal, abnormal]), expected)


def test_features_of_the_plain_tower_are_open_clip_s(random_aa_clip):
    sentences = ["a liver.", "the damaged liver of a patient.", "x"]
    ids = random_aa_clip.clip.tokenizer(sentences)
    # Ours leaves out what follows the last end of text: exact under a causal mask, up to rounding.
    expected = random_aa_clip.open_clip.encode_text(ids)
    assert_close(random_aa_clip.text.features(sentences, adapted=False), expected, rtol=0, atol=1e-5)


def test_the_adapted_tower_is_the_formula(random_aa_clip):
    model, adapter = random_aa_clip.open_clip, random_aa_clip.adapters.text_adapter
    ids = random_aa_clip.clip.tokenizer(["a damaged liver.", "liver"])
    tokens = model.token_embedding(ids) + model.positional_embedding
    for number, block in enumerate(model.transformer.resblocks):
        tokens = block(tokens, attn_mask=model.attn_mask)
        if number < 2:
            answer = F.leaky_relu(tokens @ adapter[number].weight.T, 0.01)
            length = tokens.norm(dim=-1, keepdim=True) / answer.norm(dim=-1, keepdim=True)
            tokens = 0.2 * answer * length + 0.8 * tokens
    ends = model.ln_final(tokens)[torch.arange(2), ids.argmax(dim=-1)]
    expected = F.leaky_relu(ends @ adapter[2].weight.T, 0.01)
    assert_close(random_aa_clip.text.features(["a damaged liver.", "liver"]), expected, rtol=0, atol=1e-5)


def test_anchors_follow_the_order_of_the_prompts(random_aa_clip, two_classes):
    first, second = two_classes
    anchors = random_aa_clip.anchors([second, first, second])
    assert anchors.shape == (3, 14, 2)
    assert torch.equal(anchors[0], anchors[2])
    assert not torch.allclose(anchors[0], anchors[1])
    features = [random_aa_clip.text.features(sentences) for sentences in (first.normal, first.abnormal)]
    assert_close(anchors[1], anchors_of(features), rtol=0, atol=1e-6)
    assert_close(anchors.norm(dim=1), torch.ones(3, 2))


def test_a_class_is_made_once(counted, two_classes):
    model, made = counted
    with torch.no_grad():
        model.anchors([two_classes[0], two_classes[1], two_classes[0]])
        again = model.anchors([ClassPrompts(two_classes[0].normal, two_classes[0].abnormal)])  # the same content
        model.anchors(two_classes, adapted=False)
        model.anchors(two_classes, adapted=False)
    assert sorted(made) == [3, 3, 5, 5]
    assert not again.requires_grad


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.adapters.text_adapter[0].weight.add_(0.1),
        lambda model: model.adapters.text_adapter[1].weight.data.mul_(1.1),  # unnoticed by version counters
        lambda model: model.adapters.load_state_dict(
            {name: value + 0.1 for name, value in model.adapters.state_dict().items()}
        ),
        lambda model: model.open_clip.ln_final.bias.add_(0.1),
        lambda model: setattr(model.open_clip, "text_projection", nn.Parameter(torch.randn(20, 14))),
    ],
)
def test_weights_that_changed_are_noticed(counted, two_classes, change):
    model, made = counted
    with torch.no_grad():
        model.anchors(two_classes)
        change(model)
        after = model.anchors(two_classes)
        expected = torch.stack([model.text._make(entry, True) for entry in two_classes])
    assert torch.equal(after, expected)
    assert len(made) == 6


def test_gradients_are_never_cut_by_the_cache(counted, two_classes):
    model, _ = counted
    with torch.no_grad():
        model.anchors(two_classes)
    assert model.anchors(two_classes).requires_grad
    model.set_stage(2)
    assert not model.anchors(two_classes).requires_grad


def test_kept_anchors_may_be_trained_against(random_aa_clip, two_classes):
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        random_aa_clip.anchors(two_classes)
    random_aa_clip.set_stage(2)
    pictures = torch.randn(2, 3, 35, 25)
    random_aa_clip(pictures, two_classes).maps[0][:, 1].mean().backward()
    exact = torch.stack([random_aa_clip.text._make(entry, True) for entry in two_classes])
    assert torch.equal(random_aa_clip.anchors(two_classes), exact.detach())  # not bfloat16's


def test_no_prompts_are_refused(random_aa_clip):
    with pytest.raises(SettingError, match=r"prompts: none given"):
        random_aa_clip.anchors([])


@pytest.mark.parametrize("text", [{"pool_type": "eos", "eos_id": 49407}, {"pool_type": "last", "no_causal_mask": True}])
def test_towers_of_other_kinds_read_as_open_clip_does(clip_config, text):
    """Custom text towers: an end of text by its id, and one without a causal mask, where nothing may be left out."""
    config = {**clip_config, "custom_text": True, "text_cfg": {**clip_config["text_cfg"], **text}}
    torch.manual_seed(2)
    clip = load_clip(config, None)
    ids = clip.tokenizer(["a liver.", "the broken liver of a patient"])
    assert_close(text_features(clip.model, ids), clip.model.encode_text(ids), rtol=0, atol=1e-5)
    model = AAClip(clip, levels=(2, 5))
    assert model.anchors([ClassPrompts(("a",), ("b",))]).isfinite().all()
