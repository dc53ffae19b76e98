"""How well maps of two probabilities fit a mask when lesions are small: normal and abnormal pixels count alike."""

import torch
from torch import Tensor, nn

from monai_ext.losses.class_maps import check_mask

_SMALLEST = 1e-6  # a probability below this counts as this, so that the logarithm stays finite


class BalancedMapLoss(nn.Module):
    """Cross-entropy in which all abnormal pixels of a batch weigh as much as all normal ones.

    Focal and Dice losses start from maps that say "normal" nearly everywhere. Where a lesion fills a hundredth of a
    picture and features are weak, their first steps remove the last abnormal pixel, and nothing brings it back.

    With p the pair, t the mask and m its mean over the batch: the mean over the pixels of
    ``-log(p[t]) * (t / 2m + (1 - t) / 2(1 - m))``; a batch of one kind alone has weights of 1/2. Computed in
    float32 or finer, also under autocast.

    Shape:
        ``probabilities`` ``(b, 2, h, w)`` that add up to 1, ``mask`` ``(b, 1, h, w)`` of 0 and 1 -> a scalar

    Raises:
        SettingError: the shapes do not fit one another.
        LabelError: the mask holds something else than 0 and 1.
    """

    def forward(self, probabilities: Tensor, mask: Tensor) -> Tensor:
        check_mask(probabilities, mask)
        exact = torch.promote_types(probabilities.dtype, torch.float32)
        with torch.autocast(probabilities.device.type, enabled=False):
            normal, abnormal = probabilities.to(exact).clamp_min(_SMALLEST).unbind(dim=1)
            target = mask[:, 0].to(exact)
            share = target.mean()
            found = -(target * abnormal.log()).sum() / (2 * share).clamp_min(1 / target.numel())
            left = -((1 - target) * normal.log()).sum() / (2 * (1 - share)).clamp_min(1 / target.numel())
            return (found + left) / target.numel()
