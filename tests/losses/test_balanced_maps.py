"""The balanced map loss against a sum by hand, and on lesions so small that the published loss gives them up."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from monai_ext.base import SettingError
from monai_ext.losses import BalancedMapLoss, ClassMapLoss, ImageStageLoss, TextStageLoss


@pytest.fixture
def maps() -> torch.Tensor:
    return torch.randn(3, 2, 5, 7, generator=torch.Generator().manual_seed(0)).softmax(dim=1)


@pytest.fixture
def mask() -> torch.Tensor:
    return torch.rand(3, 1, 5, 7, generator=torch.Generator().manual_seed(1)) < 0.2


def test_it_is_the_mean_of_both_kinds_means(maps: torch.Tensor, mask: torch.Tensor) -> None:
    costs: dict[int, list[float]] = {0: [], 1: []}
    for image in range(3):
        for y in range(5):
            for x in range(7):
                t = int(mask[image, 0, y, x])
                costs[t].append(-math.log(float(maps[image, t, y, x])))
    by_hand = sum(sum(one) / len(one) for one in costs.values()) / 2
    assert len(costs[1]) != len(costs[0])
    assert_close(float(BalancedMapLoss()(maps, mask)), by_hand, rtol=1e-5, atol=0)  # float32 against float64


@pytest.mark.parametrize("kind", [0, 1])
def test_a_batch_of_one_kind_counts_that_kind(maps: torch.Tensor, mask: torch.Tensor, kind: int) -> None:
    alone = torch.full_like(mask, bool(kind))
    assert_close(BalancedMapLoss()(maps, alone), -maps[:, kind].log().mean() / 2)


def test_certain_and_wrong_stays_finite(mask: torch.Tensor) -> None:
    wrong = torch.cat([mask, ~mask], dim=1).float().requires_grad_()
    loss = BalancedMapLoss()(wrong, mask)
    loss.backward()
    assert loss.isfinite()
    assert wrong.grad is not None
    assert wrong.grad.isfinite().all()
    assert float(loss.detach()) == pytest.approx(-math.log(1e-6), rel=1e-5)


@pytest.mark.parametrize(("loss", "finds"), [(BalancedMapLoss(), True), (ClassMapLoss(), False)])
def test_small_lesions_survive_only_the_balanced_loss(loss: nn.Module, finds: bool) -> None:
    # A hundredth of the pixels is abnormal, and a feature tells them apart with much overlap.
    generator = torch.Generator().manual_seed(2)
    mask = (torch.rand(16, 1, 32, 32, generator=generator) < 0.01).float()
    feature = torch.randn(16, 1, 32, 32, generator=generator) + 1.5 * mask
    scale = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.Adam([scale], lr=0.1)
    for _ in range(200):
        odds = scale[0] * feature + scale[1]
        value = loss(torch.cat([-odds, odds], dim=1).softmax(dim=1), mask)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    found = (scale[0] * feature + scale[1])[mask > 0] > 0
    assert (float(found.float().mean()) > 0.5) is finds


def test_stages_take_either_and_refuse_another() -> None:
    assert isinstance(TextStageLoss(map_loss="balanced").level, BalancedMapLoss)
    assert isinstance(ImageStageLoss("balanced").level, BalancedMapLoss)
    assert isinstance(ImageStageLoss().level, ClassMapLoss)
    with pytest.raises(SettingError, match="map_loss: 'dice' is none; choose published or balanced"):
        ImageStageLoss("dice")
