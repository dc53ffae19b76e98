"""Maps of anomaly of a picture, or of a volume slice by slice, on the grid of what was given."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from monai_ext.base import ScanError, SettingError, as_numbers, find_window, is_number
from monai_ext.volumes import body_mask

# Axis of a RAS volume that the slices of a view follow one another on.
VIEWS = {"axial": 2, "coronal": 1, "sagittal": 0}
AIR_HU = -400.0  # midway between air and fat
BODY_SHARE = 0.01  # of a slice; less is table, tubes and noise


@dataclass(frozen=True)
class Localized:
    """What a network finds in one picture or volume.

    Attributes:
        anomaly: log-odds of the abnormal text against the normal one, the mean over the levels, float32 on the
            CPU: ``(h, w)`` or ``(x, y, z)``. Higher is more abnormal; 0 is even; no probability of a lesion.
        detection: 0 to 1, of the picture, or of the volume's most abnormal slice; NaN where a network gives none.
        skipped: slices that were left out as background.
    """

    anomaly: Tensor
    detection: float
    skipped: int = 0


class SliceLocalizer:
    """Run a localizer over a picture, or over the slices of a CT volume.

    Slices are windowed to 8 bits and then treated like pictures, so that a slice and its PNG give the same map.
    They are shown as radiologists look at them: the patient's right on the left, the front or the head at the
    top. Several views are averaged, each smoothed across its own slices before.

    Args:
        picture: makes the network's input of a uint8 array, such as ``monai_ext.transforms.ClipPicture``.
        window_hu: name of a preset, or the HU that become black and white.
        views: among ``axial``, ``coronal`` and ``sagittal``.
        batch_size: slices per forward pass.
        smooth_mm: sigma of the Gaussian across slices, 0 for none.
        skip_background: pass over slices of which hardly anything is denser than air; they get the smallest value
            found elsewhere.
        body_only: give what lies outside the patient the smallest value found inside, so that the table and the air
            hold no candidates.
        own_grid: whether the map of a picture returns to the picture's size, or stays at the network's.

    Raises:
        SettingError: no such window or view, or a number out of range.
    """

    def __init__(
        self,
        picture: Callable[[Any], Tensor],
        window_hu: str | Sequence[float] = "abdomen",
        views: Sequence[str] = ("axial",),
        batch_size: int = 8,
        smooth_mm: float = 0.0,
        skip_background: bool = False,
        body_only: bool = False,
        own_grid: bool = True,
    ) -> None:
        chosen = [views] if isinstance(views, str) else list(views) if isinstance(views, list | tuple) else []
        if not chosen or not set(chosen) <= VIEWS.keys() or len(set(chosen)) != len(chosen):
            raise SettingError(
                f"views: {views!r}; give one or more of {', '.join(VIEWS)}, each once", code="setting.views"
            )
        if type(batch_size) is not int or batch_size < 1 or not is_number(smooth_mm, 0) or smooth_mm >= 100:
            raise SettingError(
                f"batch_size is {batch_size!r} and smooth_mm is {smooth_mm!r}; give one slice or more, and 0 to 100 mm",
                code="setting.slices",
            )
        self.picture, self.window_hu, self.views = picture, find_window(window_hu), chosen
        self.batch_size, self.smooth_mm = batch_size, float(smooth_mm)
        self.skip_background, self.body_only, self.own_grid = skip_background, body_only, own_grid

    def __call__(
        self,
        image: Tensor,
        network: Any,
        spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
        device: torch.device | str = "cpu",
        case: str = "image",
    ) -> Localized:
        """Localize in one picture or volume.

        Args:
            image: uint8 ``(3, h, w)`` colours or ``(1, x, y, z)`` HU in RAS order.
            network: with a method ``localize`` as ``AnomalyLocalizer`` has it, or one that returns maps
                ``(b, 1, h, w)``, which are taken for log-odds.
            spacing_mm: voxel edges along x, y, z.
            device: of the network.
            case: the id for messages.

        Raises:
            ScanError: voxels are not finite, every slice is background, or the network returned numbers that are not
                finite.
            SettingError: the spacing is none.
        """
        if image.ndim == 3:
            shown = image.movedim(0, -1).numpy()
            size = tuple(image.shape[1:]) if self.own_grid else None
            odds, detections = _run(network, self.picture(shown)[None].to(device), size)
            return Localized(_finite(odds[0].cpu(), case), float(detections[0]))
        edges = as_numbers(spacing_mm, 3)
        if edges is None or min(edges) <= 0:
            raise SettingError(
                f"spacing_mm: {spacing_mm!r} is not a voxel size; give three edges in mm", code="setting.spacing"
            )
        # A sum is as good as a look at each, and needs no memory. NaN would be shown as the darkest grey.
        if not bool(torch.isfinite(image.sum(dtype=torch.float64))):
            raise ScanError(
                f"{case}: some voxels are NaN or infinite; export the scan again", code="scan.not_finite", case=case
            )
        total: Tensor | None = None
        best, skipped = float("nan"), 0
        for view in self.views:
            odds, detection, left_out = self._view(image[0], network, VIEWS[view], device, case)
            self._smooth(odds, VIEWS[view], edges)
            total = odds if total is None else total.add_(odds)
            best, skipped = float(np.fmax(best, detection)), skipped + left_out
        assert total is not None  # there is a view
        total.div_(len(self.views))
        if self.body_only:
            x, y, z = edges
            body = torch.from_numpy(body_mask(image[0].numpy(), (x, y, z)))
            if not bool(body.any()):
                raise _no_body(case, "body_only")
            total[~body] = total[body].min()
        return Localized(total, best, skipped)

    def _view(
        self, volume: Tensor, network: Any, axis: int, device: torch.device | str, case: str
    ) -> tuple[Tensor, float, int]:
        chosen = [k for k in range(volume.shape[axis]) if not self.skip_background or _holds_body(volume, axis, k)]
        if not chosen:
            raise _no_body(case, "skip_background")
        odds = torch.empty(volume.shape, dtype=torch.float32)
        best = float("nan")
        for batch in _batches(chosen, self.batch_size):
            pictures = torch.stack([self.picture(self._shown(volume.select(axis, k))) for k in batch])
            height, width = _turned(volume.select(axis, batch[0])).shape
            found, detections = _run(network, pictures.to(device), (height, width))
            for k, plane in zip(batch, _finite(found.cpu(), case), strict=True):
                odds.select(axis, k).copy_(_turned_back(plane))
            best = float(np.fmax(best, float(detections.max())))
        left_out = sorted(set(range(volume.shape[axis])) - set(chosen))
        if left_out:
            lowest = min(float(odds.select(axis, k).min()) for k in chosen)
            for k in left_out:
                odds.select(axis, k).fill_(lowest)
        return odds, best, len(left_out)

    def _shown(self, plane: Tensor) -> np.ndarray:
        low, high = self.window_hu
        grey: np.ndarray = (_turned(plane).float() - low).div_(high - low).clamp_(0, 1).mul_(255).round_().numpy()
        return grey.astype(np.uint8)

    def _smooth(self, odds: Tensor, axis: int, spacing_mm: Sequence[float]) -> None:
        if not self.smooth_mm:
            return
        values, sigma = odds.numpy(), self.smooth_mm / float(spacing_mm[axis])
        # In slabs along another axis, so that no second volume is held.
        other = 0 if axis else 1
        for start in range(0, values.shape[other], 32):
            part = tuple(slice(start, start + 32) if k == other else slice(None) for k in range(3))
            values[part] = ndimage.gaussian_filter1d(values[part], sigma, axis=axis, mode="nearest")


def _turned(plane: Tensor) -> Tensor:
    """Turn a plane of a RAS volume to the way it is looked at; the same for all three views."""
    return plane.T.flip(0, 1)


def _turned_back(picture: Tensor) -> Tensor:
    return picture.flip(0, 1).T


def _holds_body(volume: Tensor, axis: int, index: int) -> bool:
    return float((volume.select(axis, index) > AIR_HU).float().mean()) >= BODY_SHARE


def _batches(numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]


def _run(network: Any, pictures: Tensor, size: tuple[int, ...] | None) -> tuple[Tensor, Tensor]:
    """Return log-odds ``(b, h, w)`` at a size, and the score of each picture."""
    if hasattr(network, "localize"):
        found = network.localize(pictures)
        # A level's map is half the difference of two logits plus a half.
        odds, detections = 2 * found.anomaly.float() / len(found.levels) - 1, found.score.float()
    else:
        odds = network(pictures).float()
        detections = odds.new_full((len(odds),), float("nan"))
    if size is not None and tuple(odds.shape[2:]) != tuple(size):
        # Pixel centres as Pillow places them, who made the input.
        odds = F.interpolate(odds, size=size, mode="bilinear", align_corners=False)
    return odds[:, 0], detections.cpu()


def _finite(odds: Tensor, case: str) -> Tensor:
    if not bool(torch.isfinite(odds).all()):
        raise ScanError(
            f"{case}: the network returned numbers that are not finite; check its weights, or try precision fp32",
            code="scan.not_finite",
            case=case,
        )
    return odds


def _no_body(case: str, setting: str) -> ScanError:
    return ScanError(
        f"{case}: no body found, hardly a voxel is above {AIR_HU:g} HU; check that the scan is in HU, or set "
        f"{setting} to false",
        code="scan.no_body",
        case=case,
    )
