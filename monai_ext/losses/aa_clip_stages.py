"""What the two stages of AA-CLIP minimise."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_ext.base import SettingError
from monai_ext.losses.balanced_maps import BalancedMapLoss
from monai_ext.losses.class_maps import ClassMapLoss

MapLossName = Literal["published", "balanced"]
MAP_LOSSES = MappingProxyType({"published": ClassMapLoss, "balanced": BalancedMapLoss})


class TextStageLoss(nn.Module):
    """Stage 1: the map loss of the levels, and anchors of one class pushed apart.

    Args:
        loss: ``"sum"`` adds up the levels. ``"last"`` keeps the last level alone, as the published code does,
            which overwrites the loss level by level.
        orthogonality: weight of the square of the mean dot product of the two anchors; counted once.
        map_loss: ``"published"`` for :class:`ClassMapLoss`, ``"balanced"`` for :class:`BalancedMapLoss`.

    Shape:
        ``maps`` ``(b, 2, h, w)`` for each level, ``anchors`` ``(b, e, 2)``, ``mask`` ``(b, 1, h, w)`` -> a scalar

    Raises:
        SettingError: an unknown ``loss`` or ``map_loss``, no level, or shapes that do not fit.
        LabelError: the mask holds something else than 0 and 1.
    """

    def __init__(
        self, loss: Literal["sum", "last"] = "sum", orthogonality: float = 0.1, map_loss: MapLossName = "published"
    ) -> None:
        super().__init__()
        if loss not in ("sum", "last"):
            raise SettingError(f"loss: {loss!r} is none; choose 'sum' or 'last'", code="setting.loss")
        self.loss, self.orthogonality, self.level = loss, orthogonality, _level_loss(map_loss)

    def forward(self, maps: Sequence[Tensor], anchors: Tensor, mask: Tensor) -> Tensor:
        check_levels(maps)
        counted = maps if self.loss == "sum" else maps[-1:]
        levels = torch.stack([self.level(level, mask) for level in counted]).sum()
        return levels + self.orthogonality * anchor_overlap(anchors)


class ImageStageLoss(nn.Module):
    """Stage 2: the map loss of every level, and the cross-entropy of the image's label.

    Args:
        map_loss: see :class:`TextStageLoss`.

    Shape:
        ``maps`` ``(b, 2, h, w)`` for each level, ``logits`` ``(b, 2)``, ``mask`` ``(b, 1, h, w)``, ``labels``
        ``(b,)`` with 0 for normal and 1 for abnormal -> a scalar

    Raises:
        SettingError: no level, or shapes that do not fit.
        LabelError: the mask holds something else than 0 and 1.
    """

    def __init__(self, map_loss: MapLossName = "published") -> None:
        super().__init__()
        self.level = _level_loss(map_loss)

    def forward(self, maps: Sequence[Tensor], logits: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        check_levels(maps)
        levels = torch.stack([self.level(level, mask) for level in maps]).sum()
        return levels + detection_loss(logits, labels)


def _level_loss(name: str) -> nn.Module:
    if name not in MAP_LOSSES:
        raise SettingError(f"map_loss: {name!r} is none; choose {' or '.join(MAP_LOSSES)}", code="setting.loss")
    return MAP_LOSSES[name]()


def anchor_overlap(anchors: Tensor) -> Tensor:
    """Return the square of the mean dot product of normal and abnormal anchors: ``(b, e, 2)`` -> a scalar."""
    with torch.autocast(anchors.device.type, enabled=False):
        return (anchors[..., 0] * anchors[..., 1]).sum(dim=-1).mean().square()


def detection_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of ``(b, 2)`` and ``(b,)``, in float32, also under autocast."""
    with torch.autocast(logits.device.type, enabled=False):
        exact = torch.promote_types(logits.dtype, torch.float32)
        return F.cross_entropy(logits.to(exact), labels.long())


def check_levels(maps: Sequence[Tensor]) -> None:
    """Refuse an output without levels."""
    if not len(maps):
        raise SettingError("map loss: no level; give the maps of one level or more", code="setting.loss_shape")
