import pytest
import torch
from torch.testing import assert_close

from monai_ext.base import SettingError
from monai_ext.losses import ClassMapLoss, ImageStageLoss, TextStageLoss, anchor_overlap


@pytest.fixture
def batch() -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Maps of three levels, anchors, mask."""
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 2, 5, 7, generator=generator).softmax(dim=1) for _ in range(3)]
    mask = (torch.rand(2, 1, 5, 7, generator=generator) < 0.4).float()
    return maps, torch.randn(2, 11, 2, generator=generator), mask


def overlap(anchors: torch.Tensor) -> float:
    dots = [sum(float(a[e, 0]) * float(a[e, 1]) for e in range(11)) for a in anchors]
    return (sum(dots) / len(dots)) ** 2


def test_levels_are_summed_and_the_overlap_counted_once(batch):
    maps, anchors, mask = batch
    levels = sum(float(ClassMapLoss()(level, mask)) for level in maps)
    assert float(TextStageLoss()(maps, anchors, mask)) == pytest.approx(levels + 0.1 * overlap(anchors), rel=1e-5)
    assert float(anchor_overlap(anchors)) == pytest.approx(overlap(anchors), rel=1e-5)


def test_the_published_loss_keeps_the_last_level_alone(batch):
    maps, anchors, mask = batch
    published = float(TextStageLoss(loss="last", orthogonality=0.3)(maps, anchors, mask))
    assert published == pytest.approx(float(ClassMapLoss()(maps[2], mask)) + 0.3 * overlap(anchors), rel=1e-5)


@pytest.mark.parametrize(("loss", "trained"), [("sum", [True, True, True]), ("last", [False, False, True])])
def test_which_levels_learn(batch, loss, trained):
    maps, anchors, mask = batch
    maps = [level.clone().requires_grad_() for level in maps]
    TextStageLoss(loss=loss)(maps, anchors, mask).backward()
    assert [level.grad is not None for level in maps] == trained


def test_the_image_stage_adds_the_cross_entropy_of_the_labels(batch):
    maps, _, mask = batch
    logits, labels = (
        torch.tensor([[0.3, -0.2], [0.1, 0.5]]),
        torch.tensor([1.0, 0.0]),
    )  # the published lists have floats
    chances = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    entropy = -(chances[0, 1].log() + chances[1, 0].log()) / 2
    levels = torch.stack([ClassMapLoss()(level, mask) for level in maps]).sum()
    assert_close(ImageStageLoss()(maps, logits, mask, labels), levels + entropy)


def test_settings_are_checked(batch):
    _, anchors, mask = batch
    with pytest.raises(SettingError, match=r"loss: 'mean' is none; choose 'sum' or 'last'"):
        TextStageLoss(loss="mean")
    for loss in (lambda: TextStageLoss()([], anchors, mask), lambda: ImageStageLoss()([], anchors, mask, mask)):
        with pytest.raises(SettingError, match=r"map loss: no level"):
            loss()
