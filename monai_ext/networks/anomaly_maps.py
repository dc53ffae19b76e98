"""From patch features and anchors to maps of probability, of anomaly, and scores of images."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.functional import gaussian_blur

from monai_ext.base import SettingError
from monai_ext.networks.clip_towers import as_float32

TEMPERATURE = 100.0  # published; CLIP's own trained scale ends at 100 too

# Kernel side and sigma in patches, by domain, as published.
BLURS = MappingProxyType({"Industrial": (7, 1.0), "Medical": (9, 1.5)})


class Localization(NamedTuple):
    """Where images look abnormal, and how much as a whole.

    Attributes:
        anomaly: sum over the levels, ``(b, 1, h, w)``; no probability, and not calibrated.
        score: of each image, 0 to 1, ``(b,)``.
        levels: the map of each level, ``(b, 1, h, w)``.
    """

    anomaly: Tensor
    score: Tensor
    levels: list[Tensor]


def similarities(patches: Tensor, anchors: Tensor, grid: tuple[int, int], temperature: float = TEMPERATURE) -> Tensor:
    """Compare every patch with the normal and the abnormal anchor, in float32, also under autocast.

    Args:
        patches: features of one level.
        anchors: of each image, or of all of them.
        grid: patches down and across.
        temperature: factor of the dot products.

    Shape:
        patches ``(b, n, e)``, anchors ``(b, e, 2)`` or ``(e, 2)`` ``-> (b, 2, gh, gw)``
    """
    with torch.autocast(patches.device.type, enabled=False):
        alike = temperature * as_float32(patches) @ as_float32(anchors)
    return alike.transpose(1, 2).unflatten(2, grid)


def probability_map(alike: Tensor, size: Sequence[int]) -> Tensor:
    """Return the probabilities that training looks at: normal, then abnormal.

    Shape:
        ``(b, 2, gh, gw) -> (b, 2, h, w)``
    """
    return _upsampled(alike, size).softmax(dim=1)


class AnomalyMaps(nn.Module):
    """Turn similarities into maps of anomaly: half the difference plus a half, blurred on the grid, upsampled.

    Args:
        domain: chooses the published blur, see :data:`BLURS`.
        blur: kernel side and sigma in patches instead.

    Shape:
        ``(b, 2, gh, gw) -> (b, 1, h, w)``

    Raises:
        SettingError: an unknown domain, no odd kernel, or a grid too small to be mirrored at its border.
    """

    def __init__(self, domain: str = "Medical", blur: tuple[int, float] | None = None) -> None:
        super().__init__()
        if blur is None and domain not in BLURS:
            raise SettingError(
                f"domain: {domain!r} has no blur; choose one of {', '.join(BLURS)}, or give blur=(kernel, sigma)",
                code="setting.domain",
            )
        self.kernel, self.sigma = BLURS[domain] if blur is None else blur
        if self.kernel < 1 or self.kernel % 2 == 0 or self.sigma <= 0:
            raise SettingError(
                f"blur: kernel {self.kernel} and sigma {self.sigma} make none; give an odd kernel and a positive sigma",
                code="setting.blur",
            )

    def forward(self, alike: Tensor, size: Sequence[int]) -> Tensor:
        smallest = self.kernel // 2 + 1
        if min(alike.shape[2:]) < smallest:
            raise SettingError(
                f"image_size: its grid of {alike.shape[2]}x{alike.shape[3]} patches is too small for a blur of "
                f"{self.kernel}; use images of {smallest} patches or more, or a smaller blur",
                code="setting.image_size",
            )
        anomaly = (alike[:, 1:] + 1 - alike[:, :1]) / 2
        return _upsampled(gaussian_blur(anomaly, [self.kernel] * 2, [self.sigma] * 2), size)


def locate(
    patches: Sequence[Tensor],
    detection: Tensor,
    anchors: Tensor,
    maps: AnomalyMaps,
    grid: tuple[int, int],
    size: Sequence[int],
    temperature: float = TEMPERATURE,
) -> Localization:
    """Compare the patches of every level and the mean patch with anchors.

    Args:
        patches: of each level, ``(b, n, e)``.
        detection: mean patches, ``(b, e)``.
        anchors: of each image ``(b, e, 2)``, or of all ``(e, 2)``.
        maps: with the blur of the domain.
        grid: patches down and across.
        size: height and width of the maps in pixels.
        temperature: factor of the similarities.
    """
    levels = [maps(similarities(level, anchors, grid, temperature), size) for level in patches]
    return Localization(torch.stack(levels).sum(dim=0), detection_scores(detection, anchors), levels)


def detection_scores(detection: Tensor, anchors: Tensor) -> Tensor:
    """Score images by their mean patch and the abnormal anchor, 0 to 1.

    Shape:
        detection ``(b, e)``, anchors ``(b, e, 2)`` or ``(e, 2)`` ``-> (b,)``
    """
    return (detection_logits(detection, anchors)[:, 1] + 1) / 2


def detection_logits(detection: Tensor, anchors: Tensor) -> Tensor:
    """Compare images' mean patches with both anchors, in float32, also under autocast: ``(b, e) -> (b, 2)``."""
    with torch.autocast(detection.device.type, enabled=False):
        return (as_float32(detection).unsqueeze(1) @ as_float32(anchors)).squeeze(1)


def _upsampled(grid_map: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(grid_map, size=tuple(size), mode="bilinear", align_corners=True)
