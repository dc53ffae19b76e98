import pytest
import torch
from torch.testing import assert_close

from monai_ext.base import SettingError
from monai_ext.losses import MaskedPatchLoss


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_is_the_mean_of_squares_over_every_value():
    prediction, target = draw(0, 2, 5, 7), draw(1, 2, 5, 7)
    total = 0.0
    for b in range(2):
        for m in range(5):
            for p in range(7):
                total += (float(prediction[b, m, p]) - float(target[b, m, p])) ** 2
    # float64 by hand against float32: 70 terms of a few units each
    assert_close(MaskedPatchLoss()(prediction, target), torch.tensor(total / 70), rtol=1e-6, atol=0)


def test_half_precision_inputs_are_squared_in_float32():
    prediction = torch.full((1, 3, 11), 300.0, dtype=torch.float16)  # 300^2 is infinite in float16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = MaskedPatchLoss()(prediction, torch.zeros_like(prediction))
    assert loss.dtype == torch.float32
    assert loss == 90000


def test_gradient_is_twice_the_difference_over_the_count():
    prediction, target = draw(2, 1, 3, 5).requires_grad_(), draw(3, 1, 3, 5)
    MaskedPatchLoss()(prediction, target).backward()
    assert_close(prediction.grad, 2 * (prediction.detach() - target) / 15)


@pytest.mark.parametrize(
    ("prediction", "target"),
    [((2, 5, 7), (2, 5, 11)), ((2, 5, 7), (1, 5, 7)), ((5, 7), (5, 7)), ((2, 0, 7), (2, 0, 7))],
)
def test_shapes_that_do_not_fit_are_named(prediction, target):
    with pytest.raises(SettingError, match=r"prediction \(.*\) and target \(.*\) must both be the same") as caught:
        MaskedPatchLoss()(torch.zeros(prediction), torch.zeros(target))
    assert caught.value.code == "setting.loss_shape"
