"""The pretraining loss: mean squared error over the masked patches."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_ext.base import SettingError


class MaskedPatchLoss(nn.Module):
    """Mean squared error between predicted and normalised masked patches.

    As in Tang et al. 2025, arXiv:2502.08347. Computed in float32 or finer, also under autocast: half
    precision keeps three digits of a square, and none of one above 65504.

    Shape:
        ``prediction`` and ``target`` ``(b, m, p)`` -> a scalar; ``m`` masked patches of ``p`` values.

    Raises:
        SettingError: the shapes differ, are not ``(b, m, p)``, or hold no value.
    """

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        if prediction.shape != target.shape or prediction.ndim != 3 or prediction.numel() == 0:
            raise SettingError(
                f"masked patches: prediction {tuple(prediction.shape)} and target {tuple(target.shape)} "
                "must both be the same (b, m, p), none of them 0; pass the network's first two outputs",
                code="setting.loss_shape",
            )
        exact = torch.promote_types(torch.promote_types(prediction.dtype, target.dtype), torch.float32)
        with torch.autocast(prediction.device.type, enabled=False):
            return F.mse_loss(prediction.to(exact), target.to(exact))
