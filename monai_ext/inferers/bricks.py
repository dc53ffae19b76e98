"""A sliding window whose memory does not grow with classes times volume."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import compute_importance_map
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from monai_ext.base import InputError, SettingError, as_numbers, is_number
from monai_ext.inferers.brick_sums import Brick, BrickSums
from monai_ext.inferers.mirrored import MirroredSlidingWindow
from monai_ext.inferers.sum_memory import FileMemory, OwnMemory, SumMemory, check_scratch
from monai_ext.inferers.window_settings import check_room_to_pad, check_window_settings
from monai_ext.inferers.windows import AxisWindows, Window, Windows
from monai_ext.volumes import body_mask
from monai_ext.volumes.body import CELL_MM

_PIECE = 0.01  # of the largest piece of the body: legs and arms are more, what lies on a table mostly less

_SUMS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class BrickInferer(MirroredSlidingWindow):
    """MONAI's sliding window, finished brick by brick along the longest axis.

    The windows and their weights are those of MONAI's ``SlidingWindowInferer``, on mirrored views too. `bricks` gives
    each part of the volume as soon as its last window was run, and holds no more than what waits for further ones:
    classes x a cross-section x the overlap. Calling it gives the whole volume's logits, as MONAI's does, without
    gradients.

    Args:
        roi_size, sw_batch_size, overlap, mirror_axes: see `MirroredSlidingWindow`.
        sums: type of the sums, ``"float32"``, or at half the memory ``"float16"`` or ``"bfloat16"``, which change
            labels where classes are close (see docs/benchmarks.md).
        body_above: lay windows on the box around the body alone, run none of them that lies outside the body, and take
            background there; the body is what exceeds this value of the image, see ``monai_ext.volumes.body_mask``, in
            pieces of at least 1 % of the largest one. Without a body one window is run, for the number of classes
            alone, and everything is background. Windows on the whole volume by default.
        spacing_mm: voxel edges of the images, with which the body is found.
        scratch_dir: a folder on a disk of this machine, for the sums that wait; they are in memory by default. The
            system writes them out when it needs the memory.
        **window: ``mode``, ``sigma_scale``, ``padding_mode``, ``cval``, ``sw_device``, ``device`` (of the sums and the
            result) and ``progress`` of MONAI's ``SlidingWindowInferer``.

    Raises:
        SettingError: a setting is out of range, or one of MONAI's that is not supported.
        WriteError: there is no such scratch folder; or when it runs, it is gone or without room.
        InputError: when it runs, inputs that are no volumes of numbers, or too thin for ``padding_mode``; a network
            that gives no logits of its window's size, no classes or another count of them with each window; logits
            that are not finite, or with ``body_above`` voxels.
    """

    def __init__(
        self,
        roi_size: Sequence[int],
        sw_batch_size: int = 1,
        overlap: float = 0.5,
        mirror_axes: Sequence[int] = (),
        sums: str = "float32",
        body_above: float | None = None,
        spacing_mm: Sequence[float] = (1.5, 1.5, 1.5),
        scratch_dir: str | os.PathLike[str] | None = None,
        **window: Any,
    ) -> None:
        known = {"mode", "sigma_scale", "padding_mode", "cval", "sw_device", "device", "progress"}
        if other := set(window) - known:
            raise SettingError(
                f"{', '.join(sorted(other))}: not known here; use MirroredSlidingWindow for it", code="setting.window"
            )
        check_window_settings(window)
        super().__init__(roi_size, sw_batch_size, overlap, mirror_axes, **window)
        if not isinstance(sums, str) or sums not in _SUMS:
            raise SettingError(f"sums: {sums!r}; choose {', '.join(_SUMS)}", code="setting.sums")
        if body_above is not None and not is_number(body_above):
            raise SettingError(
                f"body_above: {body_above!r} is no value of the image; give a number, or null for all windows",
                code="setting.body",
            )
        edges = as_numbers(spacing_mm, 3)
        if edges is None or min(edges) <= 0:
            raise SettingError(
                f"spacing_mm: {spacing_mm!r} is not a voxel size; give three edges in mm", code="setting.spacing"
            )
        if scratch_dir is not None and not (isinstance(scratch_dir, str | os.PathLike) and os.fspath(scratch_dir)):
            raise SettingError(
                f"scratch_dir: {scratch_dir!r} is no folder; give its path, or null to keep sums in memory",
                code="setting.scratch",
            )
        if scratch_dir is not None:
            check_scratch(scratch_dir)  # now, before any scan is read
        self.kind, self.body_above = _SUMS[sums], body_above
        self.spacing_mm, self.scratch_dir = (edges[0], edges[1], edges[2]), scratch_dir

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Return logits ``(b, classes, x, y, z)`` on the grid of ``inputs`` ``(b, c, x, y, z)``.

        Where no window was run, the logit of class 0 is 1 and that of the others 0. A ``MetaTensor`` gives another one
        of the same place. They are of the type of ``inputs``, float32 for whole numbers.
        """
        if not isinstance(inputs, Tensor) or inputs.ndim != 5 or not inputs.numel():
            given = f"of shape {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else f"of {type(inputs).__name__}"
            raise InputError(f"inputs {given} are no volumes; give (batch, channel, x, y, z)", code="inference.input")
        kind = inputs.dtype if inputs.is_floating_point() else torch.float32
        out: Tensor | None = None
        for number, volume in enumerate(inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs):
            for brick in self.bricks(volume, network, *args, **kwargs):
                if out is None:
                    shape = (len(inputs), brick.classes, *inputs.shape[2:])
                    out = torch.empty(shape, dtype=kind, device=self.device or volume.device)
                if brick.logits is None:
                    out[number, :, *brick.place] = 0
                    out[number, 0, *brick.place] = 1
                else:
                    out[number, :, *brick.place] = brick.logits
        assert out is not None  # a volume has a brick
        return MetaTensor(out).copy_meta_from(inputs) if isinstance(inputs, MetaTensor) else out

    def bricks(self, volume: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Iterator[Brick]:
        """Run the network over one ``(c, x, y, z)`` volume and give its bricks, each as soon as it is finished.

        Together they fill the volume, without overlap; each comes after those before it along the axes.
        """
        device = torch.device(self.device) if self.device is not None else volume.device
        if self.scratch_dir is not None and device.type != "cpu":
            raise SettingError(
                f"scratch_dir: sums on {device} do not lie in a file; leave it out, or keep the sums on device='cpu'",
                code="setting.scratch",
            )
        if volume.dtype == torch.bool or volume.is_complex():
            raise InputError(f"inputs of {volume.dtype} are no numbers of a scan; give float32", code="inference.input")
        volume = volume.detach()
        windows, run = self._windows(volume)
        roi = tuple(axis.window for axis in windows.axes)
        importance = compute_importance_map(roi, mode=self.mode, sigma_scale=self.sigma_scale, device=device)
        if not run:  # no body; a window yet, for it tells how many classes there are
            crop = self._crop(volume, next(iter(windows)), roi)[None]
            classes = self._predicted(network, crop.to(self.sw_device or volume.device), args, kwargs).shape[1]
            yield from BrickSums(windows, run, importance, self.kind, OwnMemory(device), classes).finished()
            return
        starts, sums = range(0, len(run), self.sw_batch_size), None
        for start in tqdm(starts) if self.progress else starts:
            batch = run[start : start + self.sw_batch_size]
            crops = torch.stack([self._crop(volume, window, roi) for window in batch])
            found = self._predicted(network, crops.to(self.sw_device or volume.device), args, kwargs)
            if sums is None:
                classes = found.shape[1]
                windows = windows.cut_for(classes)
                memory = self._memory(windows, classes, device)
                sums = BrickSums(windows, run, importance, self.kind, memory, classes)
            if found.shape[1] != classes:
                raise InputError(
                    f"the network makes {found.shape[1]} classes of a window and {classes} of another; use a network "
                    "that always gives all classes",
                    code="inference.output",
                )
            for number, window in enumerate(batch, start):
                logits = found[number - start]
                logits = logits.flip(_mirrored(window)) if any(window.mirrored) else logits
                for index in windows.bricks_of(window):
                    sums.add(index, window, logits)
                    yield from sums.finished()  # at once, for what is finished makes room for what is begun
                sums.rest(window, run[number + 1] if number + 1 < len(run) else None)
            del found, logits

    def _windows(self, volume: Tensor) -> tuple[Windows, list[Window]]:
        """Return the windows on a volume, and those of them that are run."""
        body = None
        if self.body_above is not None:
            if bad := int((~torch.isfinite(volume[0])).sum()):
                # No threshold is below NaN: it would pass for air.
                raise InputError(
                    f"{bad} of {volume[0].numel()} voxels are NaN or infinite, among which no body can be told; mend "
                    "the scan, or leave body_above out",
                    code="inference.input",
                )
            body = body_mask(volume[0].float().cpu().numpy(), self.spacing_mm, self.body_above, _PIECE)
        boxes = [None] * 3 if body is None else self._around(body)
        windows = Windows(
            [
                # A window's size that is not positive is that of the volume.
                AxisWindows(size, window if window > 0 else size, self.overlap, axis in self.mirror_axes, box)
                for axis, (size, window, box) in enumerate(zip(volume.shape[1:], self.roi_size, boxes, strict=True))
            ]
        )
        return windows, list(windows) if body is None else self._on_the_body(windows, body)

    def _margin(self) -> list[int]:
        # A cell further, for opening takes the body's sharp edges away.
        return [math.ceil(CELL_MM / edge) for edge in self.spacing_mm]

    def _around(self, body: np.ndarray) -> list[tuple[int, int]]:
        """Return the first voxel and the end of a body along each axis, or those of the volume if there is none."""
        boxes = []
        for axis, more in enumerate(self._margin()):
            found = np.flatnonzero(body.any(axis=tuple({0, 1, 2} - {axis})))
            low, high = (found[0] - more, found[-1] + 1 + more) if len(found) else (0, body.shape[axis])
            boxes.append((max(int(low), 0), min(int(high), body.shape[axis])))
        return boxes

    def _memory(self, windows: Windows, classes: int, device: torch.device) -> SumMemory:
        if self.scratch_dir is None:
            return OwnMemory(device)
        return FileMemory(self.scratch_dir, windows.largest_brick() * classes * self.kind.itemsize)

    def _on_the_body(self, windows: Windows, body: np.ndarray) -> list[Window]:
        margin = self._margin()
        chosen = []
        for window in windows:
            place = (
                slice(max(start - more, 0), max(start + axis.window + more, 0))
                for start, axis, more in zip(window.start, windows.axes, margin, strict=True)
            )
            if body[tuple(place)].any():
                chosen.append(window)
        return chosen

    def _crop(self, volume: Tensor, window: Window, roi: Sequence[int]) -> Tensor:
        pads: list[int] = []
        place = [slice(None)]
        for start, size, full in zip(window.start, roi, volume.shape[1:], strict=True):
            place.append(slice(max(start, 0), min(start + size, full)))
            pads = [max(-start, 0), max(start + size - full, 0), *pads]  # the last axis comes first
        crop = volume[tuple(place)]
        if any(pads):
            check_room_to_pad(str(self.padding_mode), pads, tuple(crop.shape[1:]))
            value = {"value": self.cval} if str(self.padding_mode) == "constant" else {}
            crop = functional.pad(crop[None], pads, mode=str(self.padding_mode), **value)[0]
        return crop.flip(_mirrored(window)) if any(window.mirrored) else crop

    def _predicted(
        self, network: Callable[..., Tensor], crops: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        found = network(crops, *args, **kwargs)
        wanted = (len(crops), *crops.shape[2:])
        if not isinstance(found, Tensor) or (*found.shape[:1], *found.shape[2:]) != wanted:
            given = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise InputError(
                f"the network makes {given} of windows {tuple(crops.shape)}; bricks need one tensor of the windows' "
                "size, use MirroredSlidingWindow for others",
                code="inference.output",
            )
        if not found.shape[1]:
            raise InputError("the network makes no classes; give one that makes logits", code="inference.output")
        # Under autocast in half precision; sums of such would lose what the network still tells apart.
        found = found.detach()
        return found.to(self.device or crops.device, torch.promote_types(found.dtype, torch.float32))


def _mirrored(window: Window) -> list[int]:
    return [axis + 1 for axis, yes in enumerate(window.mirrored) if yes]
