"""The fine-tuning loss: Dice and cross-entropy, such that small organs count."""

from collections.abc import Sequence

import torch
from monai.losses import DiceLoss
from torch import Tensor, nn
from torch.nn import functional as F

from monai_ext.base import LabelError, SettingError


class ClassBalancedDiceCE(nn.Module):
    """Soft Dice plus cross-entropy whose classes may be weighted.

    Class weights apply to the cross-entropy alone, where voxel counts drown small organs; every class
    counts alike in the Dice term anyway. ``batch_dice`` forms each class's Dice over the whole batch, so
    that a crop without an organ does not push towards predicting nothing (Isensee et al. 2021, nnU-Net).
    With ``class_weights=None`` and ``batch_dice=False`` this is MONAI's ``DiceCELoss`` with softmax.
    Both terms are computed in float32, also under autocast.

    Args:
        class_weights: one weight per class, background first; all 1 when omitted.
        batch_dice: one Dice per class and batch, not per class and sample.
        include_background: whether class 0 has a Dice term; it always counts in the cross-entropy.
        dice_weight: factor of the Dice term.
        ce_weight: factor of the cross-entropy term.

    Shape:
        ``logits`` ``(b, classes, x, y, z)``, ``labels`` ``(b, 1, x, y, z)`` with whole numbers -> a scalar.

    Raises:
        SettingError: a weight is negative or not finite, or the shapes do not fit one another.
        LabelError: a label is not a whole number or not one of the classes.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        class_weights: Sequence[float] | None = None,
        batch_dice: bool = True,
        include_background: bool = True,
        dice_weight: float = 1.0,
        ce_weight: float = 1.0,
    ) -> None:
        super().__init__()
        for name, values in (
            ("class_weights", class_weights if class_weights is not None else [1.0]),
            ("dice_weight and ce_weight", [dice_weight, ce_weight]),
        ):
            try:
                weights = torch.as_tensor(values, dtype=torch.float32)
            except (RuntimeError, TypeError, ValueError):
                weights = torch.empty(())
            if weights.ndim != 1:
                raise SettingError(
                    f"{name}: {values!r}; give a list of numbers, one a class", code="setting.loss_weights"
                )
            if not (torch.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
                raise SettingError(
                    f"{name}: {list(values)} must be finite, not negative and not all 0; correct the weights",
                    code="setting.loss_weights",
                )
        weight = None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float32)
        # A setting, not learned: checkpoints must not carry it, or a run could not resume with others.
        self.register_buffer("class_weights", weight, persistent=False)
        self.dice_weight = dice_weight
        self.ce_weight = ce_weight
        self.dice = DiceLoss(include_background=include_background, to_onehot_y=True, softmax=True, batch=batch_dice)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        classes = self._checked(logits, labels)
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.float()
            ce = F.cross_entropy(logits, classes.squeeze(1), weight=self.class_weights)
            return self.dice_weight * self.dice(logits, classes) + self.ce_weight * ce

    def _checked(self, logits: Tensor, labels: Tensor) -> Tensor:
        count = logits.shape[1]
        if count < 2 or labels.shape != (logits.shape[0], 1, *logits.shape[2:]):
            raise SettingError(
                f"segmentation loss: logits {tuple(logits.shape)} need two classes or more, and labels "
                f"{tuple(labels.shape)} must be {(logits.shape[0], 1, *logits.shape[2:])}; "
                "crop image and label together",
                code="setting.loss_shape",
            )
        if self.class_weights is not None and len(self.class_weights) != count:
            raise SettingError(
                f"class_weights: {len(self.class_weights)} weights for {count} classes; give one a class",
                code="setting.loss_weights",
            )
        classes = labels.long()
        low, high = int(classes.min()), int(classes.max())
        if low < 0 or high >= count:
            raise LabelError(
                f"labels: values {low} to {high} do not fit {count} classes (0 to {count - 1}); "
                "set the classes of the network to those of the labels, or remap the labels",
                code="label.outside_classes",
            )
        if labels.is_floating_point() and not torch.equal(classes.to(labels.dtype), labels):
            raise LabelError(
                "labels: some values are not whole numbers; resample labels with mode 'nearest'",
                code="label.not_integer",
            )
        return classes
