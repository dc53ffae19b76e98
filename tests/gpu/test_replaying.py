"""AA-CLIP replayed on a card, bit for bit beside what is computed each time, and wider heads beside MONAI's."""

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

SMALL = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 112, "layers": 4, "width": 64, "head_width": 16, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 4},
}


@pytest.fixture
def localizer(card: Any) -> Callable[..., Any]:
    from monai_ext.networks import AAClip, AnomalyLocalizer, PromptTable, load_clip

    def build(replay: bool) -> Any:
        torch.manual_seed(6)
        model = AAClip(load_clip(SMALL, None, activation="quick_gelu"))
        prompts = PromptTable.published().of_class("Liver")
        return AnomalyLocalizer(model, prompts, replay=replay).eval().to(card)

    return build


def pictures(card: Any, batch: int, number: int = 7) -> Any:
    return torch.randn(batch, 3, 112, 112, generator=torch.Generator().manual_seed(number)).to(card)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_replayed_maps_are_the_same_bit_for_bit(localizer: Any, card: Any, precision: str) -> None:
    from monai_ext.engines.precision import autocast, choose_precision

    plain, fast = localizer(False), localizer(True)
    with torch.inference_mode(), autocast(choose_precision(precision, card), card):
        for batch, number in ((3, 1), (3, 2), (2, 3), (3, 4)):
            images = pictures(card, batch, number)
            for ours, theirs in zip(fast.localize(images), plain.localize(images), strict=True):
                if isinstance(ours, list):
                    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
                else:
                    assert torch.equal(ours, theirs)


def test_a_replay_sees_weights_and_classes_that_change_and_leaves_results_alone(localizer: Any, card: Any) -> None:
    from monai_ext.networks import PromptTable

    plain, fast = localizer(False), localizer(True)
    images = pictures(card, 2)
    first = fast(images)
    kept = first.clone()
    for one in (plain, fast):
        with torch.no_grad():
            for weights in one.model.adapters.image_adapter.parameters():
                weights.mul_(1.5)
    assert torch.equal(fast(images), plain(images))
    assert torch.equal(first, kept)
    assert not torch.equal(fast(images), first)
    for one in (plain, fast):
        one.prompts = PromptTable.published().of_class("Brain")
    assert torch.equal(fast(images), plain(images))
    for one in (plain, fast):  # other memory
        one.model.adapters.image_adapter.load_state_dict(
            {k: v * 0.5 for k, v in one.model.adapters.image_adapter.state_dict().items()}, assign=True
        )
    assert torch.equal(fast(images), plain(images))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_replayed_steps_of_stage_2_train_to_the_same_adapters(localizer: Any, card: Any, precision: str) -> None:
    from types import SimpleNamespace

    from monai_ext.engines import StageLoss, StageNetwork, TrainingStep

    seen = []
    for replay in (False, True):
        model = localizer(False).model
        network = StageNetwork(model, 2, replay)
        learning = model.adapters.image_adapter.parameters()
        job = SimpleNamespace(
            network=network,
            optimizer=torch.optim.SGD(learning, lr=0.1),
            inferer=lambda image, net: net(image),
            loss_function=StageLoss(2),
            prepare_batch=lambda batch, *_: (batch, batch),
            non_blocking=True,
            fire_event=lambda event: None,
            state=SimpleNamespace(iteration=0, epoch_length=100, device=card, output=None),
        )
        step = TrainingStep(precision=precision)
        from monai_ext.networks import PromptTable

        prompts = PromptTable.published().of_class("Liver")
        losses = []
        for number, batch in enumerate((2, 2, 1, 2, 2), start=1):  # a smaller one is computed
            job.state.iteration = number
            given = {"image": pictures(card, batch, number), "prompts": [prompts] * batch}
            given |= {"mask": torch.zeros(batch, 1, 112, 112, device=card), "label": torch.ones(batch, device=card)}
            given["mask"][..., :30, :40] = 1
            losses.append(float(step(job, given)[0]["loss"]))
        seen.append((losses, [p.detach().clone() for p in model.adapters.image_adapter.parameters()]))
    # The same kernels, some of which add up in any order: in bf16 that turns last digits, of 0.4 % a number.
    assert seen[1][0] == pytest.approx(seen[0][0], rel={"fp32": 1e-5, "bf16": 2e-3}[precision])
    assert seen[0][0][3] != pytest.approx(seen[0][0][1], rel=1e-4)
    for ours, theirs in zip(seen[1][1], seen[0][1], strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < {"fp32": 1e-5, "bf16": 2e-3}[precision]


@pytest.mark.parametrize("cross", [False, True])
def test_widened_heads_compute_what_monai_s_block_does(card: Any, cross: bool) -> None:
    from monai.networks.blocks.transformerblock import TransformerBlock

    from monai_ext.networks.transformer import pre_norm_block

    torch.manual_seed(1)
    block = pre_norm_block(528, 16, cross=cross).to(card)
    given = [torch.randn(3, n, 528, device=card, requires_grad=True) for n in ((65, 17) if cross else (65,))]
    seen = []
    for forward in (type(block).forward, TransformerBlock.forward):
        block.zero_grad()
        answer = forward(block, *given)
        answer.square().sum().backward()
        seen.append([answer, *(p.grad for p in block.parameters())])
    for ours, theirs in zip(*seen, strict=True):
        # float32 sums in another order; biases of keys have no gradient but rounding.
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
