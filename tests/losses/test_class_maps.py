import math

import pytest
import torch
from torch.testing import assert_close

from monai_ext.base import LabelError, SettingError
from monai_ext.losses import ClassMapLoss


@pytest.fixture
def maps() -> torch.Tensor:
    return torch.randn(3, 2, 5, 7, generator=torch.Generator().manual_seed(0)).softmax(dim=1)


@pytest.fixture
def mask() -> torch.Tensor:
    mask = torch.rand(3, 1, 5, 7, generator=torch.Generator().manual_seed(1)) < 0.3
    mask[2] = False  # a normal picture
    return mask


def by_hand(maps: torch.Tensor, mask: torch.Tensor) -> tuple[float, float, float]:
    s, focal, dice = 1e-5, 0.0, [0.0, 0.0]
    for image in range(3):
        sums = [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
        for y in range(5):
            for x in range(7):
                p, t = [float(maps[image, column, y, x]) for column in (0, 1)], int(mask[image, 0, y, x])
                pt = (1 - s) * p[t] + s * p[1 - t] + s
                focal -= (1 - pt) ** 2 * math.log(pt) / (3 * 5 * 7)
                for column, target in ((0, 1 - t), (1, t)):
                    for place, value in enumerate((p[column] * target, p[column], target)):
                        sums[column][place] += value
        for column, (both, found, there) in enumerate(sums):
            dice[column] += (1 - (2 * both + 1) / (found + there + 1)) / 3
    return focal, dice[0], dice[1]


def test_terms_are_the_formula(maps, mask):
    terms = ClassMapLoss().terms(maps, mask)
    # float32 against float64
    assert_close([float(term) for term in terms], list(by_hand(maps, mask)), rtol=1e-5, atol=0)
    assert_close(ClassMapLoss()(maps, mask), terms.focal + terms.dice_normal + terms.dice_abnormal)


def test_a_perfect_map_costs_nothing(mask):
    perfect = torch.cat([~mask, mask], dim=1).float()
    assert_close(ClassMapLoss()(perfect, mask), torch.tensor(0.0), rtol=0, atol=1e-6)


def test_certain_and_wrong_stays_finite(mask):
    wrong = torch.cat([mask, ~mask], dim=1).float().requires_grad_()
    loss = ClassMapLoss()(wrong, mask)
    loss.backward()
    assert loss.isfinite()
    assert wrong.grad.isfinite().all()


def test_masks_of_any_type_are_the_same(maps, mask):
    losses = {
        float(ClassMapLoss()(maps, mask.to(kind))) for kind in (torch.bool, torch.uint8, torch.int64, torch.float)
    }
    assert len(losses) == 1


def test_half_precision_is_computed_in_float32(maps, mask):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = ClassMapLoss()(maps.bfloat16(), mask)
    assert loss.dtype == torch.float32
    assert_close(loss, ClassMapLoss()(maps.bfloat16().float(), mask))
    assert ClassMapLoss()(maps.double(), mask).dtype == torch.float64


@pytest.mark.parametrize(
    ("maps", "mask"),
    [
        ((2, 2, 5, 7), (2, 5, 7)),
        ((2, 2, 5, 7), (2, 1, 7, 5)),
        ((2, 3, 5, 7), (2, 1, 5, 7)),
        ((0, 2, 5, 7), (0, 1, 5, 7)),
    ],
)
def test_shapes_that_do_not_fit_are_named(maps, mask):
    with pytest.raises(SettingError, match=r"map loss: probabilities \(.*\) need two columns, and the mask \(.*\)"):
        ClassMapLoss()(torch.zeros(maps), torch.zeros(mask))


@pytest.mark.parametrize("value", [255.0, 0.5, -1.0, math.nan])
def test_a_mask_of_other_values_is_refused(maps, mask, value):
    grey = mask.float()
    grey[1, 0, 2, 3] = value
    with pytest.raises(LabelError, match=r"mask: values from .* are not all 0 or 1; .* \(PNG, not JPEG\)"):
        ClassMapLoss()(maps, grey)
