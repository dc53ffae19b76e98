"""How well maps of two probabilities, normal and abnormal, fit a mask: focal loss and a Dice loss for each."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from monai_ext.base import LabelError, SettingError

_SMOOTH = 1e-5  # keeps the logarithm of the focal term finite
_GAMMA = 2  # exponent of the focal term


class ClassMapTerms(NamedTuple):
    """The three terms, each averaged over the batch.

    Attributes:
        focal: over all pixels.
        dice_normal: of the normal map against the background.
        dice_abnormal: of the abnormal map against the mask.
    """

    focal: Tensor
    dice_normal: Tensor
    dice_abnormal: Tensor

    @property
    def total(self) -> Tensor:
        """The sum."""
        return self.focal + self.dice_normal + self.dice_abnormal


class ClassMapLoss(nn.Module):
    """Focal loss plus Dice losses of both columns, from probabilities, as published for AA-CLIP (arXiv:2503.06661).

    With p the pair, t the mask and s = 1e-5: ``pt = (1 - s) * p[t] + s * p[1 - t] + s``, focal is the mean of
    ``-(1 - pt)^2 log(pt)``. Dice of a map a and a target b is, for each image, ``1 - (2 sum(ab) + 1) / (sum(a) +
    sum(b) + 1)``. Computed in float32 or finer, also under autocast.

    Shape:
        ``probabilities`` ``(b, 2, h, w)`` that add up to 1, ``mask`` ``(b, 1, h, w)`` of 0 and 1 -> a scalar

    Raises:
        SettingError: the shapes do not fit one another.
        LabelError: the mask holds something else than 0 and 1.
    """

    def forward(self, probabilities: Tensor, mask: Tensor) -> Tensor:
        return self.terms(probabilities, mask).total

    def terms(self, probabilities: Tensor, mask: Tensor) -> ClassMapTerms:
        """Return the terms of the sum."""
        check_mask(probabilities, mask)
        exact = torch.promote_types(probabilities.dtype, torch.float32)
        with torch.autocast(probabilities.device.type, enabled=False):
            normal, abnormal = probabilities.to(exact).unbind(dim=1)
            target = mask[:, 0].to(exact)
            likely = target * abnormal + (1 - target) * normal
            other = target * normal + (1 - target) * abnormal
            pt = (1 - _SMOOTH) * likely + _SMOOTH * other + _SMOOTH
            focal = (-((1 - pt) ** _GAMMA) * pt.log()).mean()
            return ClassMapTerms(focal, _dice_loss(normal, 1 - target), _dice_loss(abnormal, target))


def _dice_loss(found: Tensor, target: Tensor) -> Tensor:
    overlap = (found * target).flatten(1).sum(dim=1)
    size = found.flatten(1).sum(dim=1) + target.flatten(1).sum(dim=1)
    return (1 - (2 * overlap + 1) / (size + 1)).mean()


def check_mask(probabilities: Tensor, mask: Tensor) -> None:
    """Refuse maps and masks that do not fit one another."""
    expected = (probabilities.shape[0], 1, *probabilities.shape[2:])
    if probabilities.ndim != 4 or probabilities.shape[1] != 2 or tuple(mask.shape) != expected or not mask.numel():
        raise SettingError(
            f"map loss: probabilities {tuple(probabilities.shape)} need two columns, and the mask {tuple(mask.shape)} "
            "one channel of the same height and width; resize image and mask together",
            code="setting.loss_shape",
        )
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise LabelError(
            f"mask: values from {float(mask.min()):g} to {float(mask.max()):g} are not all 0 or 1; "
            "set every value that means a lesion to 1, and store masks without loss (PNG, not JPEG)",
            code="label.not_binary",
        )
