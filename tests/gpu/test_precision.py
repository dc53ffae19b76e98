"""Half precision on a card against float32: outputs, gradients and losses of every network."""

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

# Relative errors in norm. bfloat16 keeps 8 binary digits (4e-3), float16 11 (5e-4); a dozen blocks add up to a few of
# these, and gradients pass through the blocks twice.
OUTPUTS = {"bf16": 3e-2, "fp16": 5e-3}
GRADIENTS = {"bf16": 8e-2, "fp16": 2e-2}
# Of a mean over many numbers, whose errors cancel.
LOSSES = {"bf16": 3e-3, "fp16": 1e-3}
PRECISIONS = ["bf16", "fp16"]


def cast(precision: str, card: Any) -> Any:
    from monai_ext.engines.precision import autocast, choose_precision

    return autocast(choose_precision(precision, card), card)


def far(ours: Any, exact: Any) -> float:
    """Return the relative error in norm; NaN is never small."""
    return float((ours.double() - exact.double()).norm() / exact.double().norm())


def gradient(network: Any) -> Any:
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("size", ["base_p16", "large_p12"])
def test_pretraining(
    pretraining_network: Callable[..., Any], volumes: Callable[..., Any], card: Any, size: str, precision: str
) -> None:
    from monai_ext.engines import ReconstructionLoss
    from monai_ext.networks import draw_shuffle

    network = pretraining_network(size)
    image = volumes(1)["image"].to(card)
    shuffle = draw_shuffle(2, network.tokens, torch.Generator().manual_seed(2)).to(card)
    seen = {}
    for name in ("fp32", precision):
        network.zero_grad()
        with cast(name, card):
            output = network(image, shuffle)
            loss = ReconstructionLoss()(output)
        # As the scaler does it: small gradients would be lost in float16.
        (loss * 2**14).backward()
        seen[name] = output.prediction.detach(), gradient(network) / 2**14, loss.detach()
    ours, exact = seen[precision], seen["fp32"]
    assert far(ours[0], exact[0]) < OUTPUTS[precision]
    assert far(ours[1], exact[1]) < GRADIENTS[precision]
    assert far(ours[2], exact[2]) < LOSSES[precision]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_segmentation(volumes: Callable[..., Any], card: Any, precision: str) -> None:
    from monai_ext.networks import HiEndSegmenter

    torch.manual_seed(5)
    network = HiEndSegmenter.base_p16(14).to(card).eval()
    image = volumes(3)["image"].to(card)
    with torch.inference_mode():
        exact = network(image)
        with cast(precision, card):
            ours = network(image)
    assert far(ours, exact) < OUTPUTS[precision]
    assert float((ours.argmax(1) != exact.argmax(1)).float().mean()) < OUTPUTS[precision]


@pytest.fixture(scope="module")
def localizer(card: Any) -> Any:
    """ViT-L-14-336 at 518 pixels with random weights, which needs no network."""
    from monai_ext.networks import AAClip, AnomalyLocalizer, PromptTable, load_clip

    torch.manual_seed(6)
    clip = load_clip("ViT-L-14-336", None, image_size=518, activation="quick_gelu")
    return AnomalyLocalizer(AAClip(clip), PromptTable.published().of_class("Liver")).eval().to(card)


@pytest.fixture
def pictures(card: Any) -> Any:
    return torch.randn(2, 3, 518, 518, generator=torch.Generator().manual_seed(7)).to(card)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_localization(localizer: Any, pictures: Any, card: Any, precision: str) -> None:
    with torch.inference_mode():
        exact = localizer.localize(pictures)
        with cast(precision, card):
            ours = localizer.localize(pictures)
    assert ours.anomaly.dtype == torch.float32
    # Of the map's own contrast: random weights leave it far smaller than its mean.
    strays = (ours.anomaly - exact.anomaly).abs() / exact.anomaly.std()
    assert float(strays.mean()) < {"bf16": 0.15, "fp16": 0.03}[precision]
    assert float((ours.score - exact.score).abs().max()) < OUTPUTS[precision]


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_losses_of_both_stages_do_not_overflow(
    localizer: Any, pictures: Any, card: Any, precision: str, stage: int
) -> None:
    from monai_ext.engines import StageLoss, StageNetwork

    network = StageNetwork(localizer.model, stage)
    # A whole picture of lesion: its sums of 268,324 pixels are above what float16 holds.
    label = {"mask": torch.ones(2, 1, 518, 518, device=card), "label": torch.ones(2, device=card)}
    seen = {}
    for name in ("fp32", precision):
        network.zero_grad()
        with cast(name, card):
            loss = StageLoss(stage)(network({"image": pictures, "prompts": [localizer.prompts] * 2}), label)
        (loss * 2**8).backward()
        seen[name] = loss.detach(), gradient(network)
    assert far(seen[precision][0], seen["fp32"][0]) < 1e-2
    assert bool(torch.isfinite(seen[precision][1]).all())


def test_the_reconstruction_loss_does_not_overflow(card: Any) -> None:
    from monai_ext.losses import MaskedPatchLoss

    # 300 squared is above 65504, the largest number of float16.
    prediction = torch.full((2, 5, 1728), 300.0, device=card, dtype=torch.float16, requires_grad=True)
    with torch.autocast("cuda", torch.float16):
        loss = MaskedPatchLoss()(prediction, torch.zeros_like(prediction))
    loss.backward()
    assert float(loss) == 90000.0
    assert bool(torch.isfinite(prediction.grad).all())
