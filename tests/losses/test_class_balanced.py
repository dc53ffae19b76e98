import math

import pytest
import torch
from monai.losses import DiceCELoss
from torch.testing import assert_close

from monai_ext.base import LabelError, SettingError
from monai_ext.losses import ClassBalancedDiceCE

CLASSES = 3
WEIGHTS = (0.2, 1.0, 5.0)


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(7)
    logits = 2 * torch.randn(2, CLASSES, 2, 3, 5, generator=draw)
    labels = torch.randint(0, CLASSES, (2, 1, 2, 3, 5), generator=draw)
    labels[0][labels[0] == 2] = 1  # one sample without the last class
    return logits, labels


def naive(logits, labels, weights, batch_dice, include_background=True, dice_weight=1.0, ce_weight=1.0):
    """Both terms voxel by voxel, from their definitions; smoothing 1e-5 as in MONAI."""
    voxels = [  # (sample, class, probabilities)
        (b, int(labels[b, 0, x, y, z]), logits[b, :, x, y, z].double().softmax(0).tolist())
        for b, x, y, z in torch.cartesian_prod(*(torch.arange(n) for n in (2, 2, 3, 5))).tolist()
    ]
    ce = -sum(weights[c] * math.log(p[c]) for _, c, p in voxels) / sum(weights[c] for _, c, _ in voxels)
    losses = []
    for group in [(0, 1)] if batch_dice else [(0,), (1,)]:
        for c in range(0 if include_background else 1, CLASSES):
            part = [(label == c, p[c]) for b, label, p in voxels if b in group]
            overlap = sum(p for is_class, p in part if is_class)
            size = sum(is_class + p for is_class, p in part)
            losses.append(1 - (2 * overlap + 1e-5) / (size + 1e-5))
    return dice_weight * sum(losses) / len(losses) + ce_weight * ce


@pytest.mark.parametrize(
    "options",
    [
        {"batch_dice": True},
        {"batch_dice": False},
        {"batch_dice": True, "include_background": False},
        {"batch_dice": False, "dice_weight": 0.3, "ce_weight": 0.7},
    ],
)
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_agrees_with_the_voxel_by_voxel_sum(batch, weights, options):
    loss = ClassBalancedDiceCE(weights, **options)(*batch)
    expected = naive(*batch, weights or (1.0,) * CLASSES, **options)
    assert float(loss) == pytest.approx(expected, rel=1e-5)  # float32 sums of 60 voxels


def test_plain_settings_are_monais_dice_ce(batch):
    plain = DiceCELoss(to_onehot_y=True, softmax=True)
    assert_close(ClassBalancedDiceCE(batch_dice=False)(*batch), plain(*batch), rtol=0, atol=0)


def test_a_rare_class_pulls_harder_with_its_weight(batch):
    logits, labels = batch
    labels = torch.zeros_like(labels)
    labels[0, 0, 0, 0, 0] = 2
    pulls = []
    for weights in (None, WEIGHTS):
        voxel = torch.zeros_like(logits, requires_grad=True)
        ClassBalancedDiceCE(weights, dice_weight=0)(voxel, labels).backward()
        pulls.append(-float(voxel.grad[0, 2, 0, 0, 0]))
    # closed form at equal logits: (2/3) * weight / sum of weights
    assert pulls == pytest.approx([2 / 3 / 60, 2 / 3 * 5 / (5 + 59 * 0.2)], rel=1e-5)


def test_labels_from_a_float_reader_and_half_logits_work(batch):
    logits, labels = batch
    exact = ClassBalancedDiceCE(WEIGHTS)(logits.bfloat16().float(), labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = ClassBalancedDiceCE(WEIGHTS)(logits.bfloat16(), labels.float())
    assert loss.dtype == torch.float32
    assert_close(loss, exact, rtol=0, atol=0)


def test_weights_stay_out_of_checkpoints():
    assert not ClassBalancedDiceCE(WEIGHTS).state_dict()


@pytest.mark.parametrize("weights", [(1.0, -1.0, 1.0), (1.0, math.nan, 1.0), (0.0, 0.0, 0.0)])
def test_impossible_weights_are_named(weights):
    with pytest.raises(SettingError, match=r"class_weights: .* must be finite, not negative and not all 0"):
        ClassBalancedDiceCE(weights)


@pytest.mark.parametrize("weights", ["heavy", ["a", "b"], 3, {"liver": 1}])
def test_weights_that_are_no_numbers_are_named(weights):
    with pytest.raises(SettingError, match=r"^class_weights: "):
        ClassBalancedDiceCE(weights)


def test_both_terms_off_is_no_loss():
    with pytest.raises(SettingError, match="dice_weight and ce_weight"):
        ClassBalancedDiceCE(dice_weight=0, ce_weight=0)


@pytest.mark.parametrize(
    ("change", "kind", "words", "code"),
    [
        (lambda x: x.squeeze(1), SettingError, r"must be \(2, 1, 2, 3, 5\)", "setting.loss_shape"),
        (lambda x: x[..., :4], SettingError, r"must be \(2, 1, 2, 3, 5\)", "setting.loss_shape"),
        (
            lambda x: x + 1,
            LabelError,
            r"values 1 to 3 do not fit 3 classes \(0 to 2\)",
            "label.outside_classes",
        ),
        (lambda x: x - 1, LabelError, r"values -1 to 1 do not fit", "label.outside_classes"),
        (lambda x: x * 0.5, LabelError, "not whole numbers; resample", "label.not_integer"),
    ],
)
def test_labels_that_do_not_fit_are_named(batch, change, kind, words, code):
    logits, labels = batch
    with pytest.raises(kind, match=words) as caught:
        ClassBalancedDiceCE()(logits, change(labels))
    assert caught.value.code == code


def test_one_weight_per_class(batch):
    with pytest.raises(SettingError, match="2 weights for 3 classes"):
        ClassBalancedDiceCE((1.0, 2.0))(*batch)
