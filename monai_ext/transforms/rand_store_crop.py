"""Random crops straight out of a volume store: only the chunks that a crop touches are read."""

import os
import threading
from collections.abc import Hashable, Mapping, Sequence
from math import prod
from typing import Any, Literal

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable, Transform

from monai_ext.base import SettingError, as_numbers, check_window, is_number
from monai_ext.base import window_hu as to_window
from monai_ext.transforms.batch_memory import claim_memory
from monai_ext.volumes import StoreRecord, VolumeStore

BODY_RATIO = 6 / 8  # the published loader draws positives to negatives as 6:2 (Tang et al. 2025, arXiv:2502.08347)
AIR_HU = -1024.0
DTYPES = {"image": torch.float32, "label": torch.int32}
KEPT_BYTES = 2**24


class RandStoreCrop(Randomizable, Transform):
    """Crop a stored volume at random, mostly around voxels of the body.

    With probability ``body_ratio`` the crop is centred on a body voxel and moved inside the volume where it
    would stick out; else every place inside the volume is as likely. Along an axis that is shorter than the
    crop, the volume is centred and padded.

    Args:
        store: the store or its folder.
        size: voxels of the crop along x, y, z.
        body_ratio: share of crops centred on the body, 0 to 1.
        pad_hu: HU beyond the volume; label ids are 0 there.
        window_hu: ``(low, high)`` that becomes 0 to 1, clipped; HU as they are by default.

    Shape:
        ``-> (1, x, y, z)``: float32 for images, int32 for labels, with the affine of the crop.

    Raises:
        SettingError: a size, ratio or window is out of range.
        StoreError: the volume is not in the store, has no labels, or its data are torn.
    """

    def __init__(
        self,
        store: VolumeStore | str | os.PathLike[str],
        size: Sequence[int],
        body_ratio: float = BODY_RATIO,
        pad_hu: float = AIR_HU,
        window_hu: Sequence[float] | None = None,
    ) -> None:
        edges = as_numbers(size, 3)
        if edges is None or any(int(edge) != edge or edge < 1 for edge in edges):
            given = list(size) if isinstance(size, tuple) else size
            raise SettingError(
                f"size: {given!r} is not three positive numbers of voxels; give for example [96, 96, 96]",
                code="setting.crop_size",
            )
        if not is_number(body_ratio, 0, 1):
            raise SettingError(
                f"body_ratio: {body_ratio} is not from 0 to 1; the published ratio is {BODY_RATIO}",
                code="setting.body_ratio",
            )
        self.store = store if isinstance(store, VolumeStore) else VolumeStore(store)
        self.size = tuple(map(int, edges))
        self.body_ratio = body_ratio
        self.pad_hu = pad_hu
        self.window_hu = None if window_hu is None else check_window(window_hu)
        self.start = (0, 0, 0)

    def randomize(self, data: StoreRecord) -> None:
        """Draw the crop's first voxel; negative where the volume is padded before it."""
        # Three numbers for every crop, whatever its kind, so that one volume's draw does not shift the next.
        body, pick, anywhere = self.R.random(), self.R.random(), self.R.random(3)
        centre = data.body_voxels[int(pick * len(data.body_voxels))].tolist() if body < self.body_ratio else None
        start = []
        for axis, (extent, edge) in enumerate(zip(data.shape, self.size, strict=True)):
            spare = extent - edge
            if spare < 0:
                start.append(spare // 2)
            elif centre is None:
                start.append(int(anywhere[axis] * (spare + 1)))
            else:
                start.append(min(max(centre[axis] - edge // 2, 0), spare))
        x, y, z = start
        self.start = x, y, z

    def __call__(
        self,
        volume_id: str,
        kind: Literal["image", "label"] = "image",
        randomize: bool = True,
        out: torch.Tensor | None = None,
    ) -> MetaTensor:
        """Cut a crop out of a volume.

        Args:
            volume_id: its id in the store.
            kind: ``"image"`` or ``"label"``.
            randomize: draw a new place; ``False`` cuts at the last one, for labels beside their image.
            out: where the crop goes, of its shape and type and in one piece; new memory by default.
        """
        record = self.store.record(volume_id)
        if randomize:
            self.randomize(record)
        image = kind == "image"
        shape, dtype = (1, *self.size), DTYPES[kind]
        crop = torch.empty(shape, dtype=dtype) if out is None else out
        if (crop.shape, crop.dtype) != (shape, dtype) or not crop.is_contiguous():
            raise SettingError(
                f"out: {crop.dtype} of {tuple(crop.shape)}; give {dtype} of {shape}, in one piece",
                code="setting.crop_out",
            )
        first = [max(begin, 0) for begin in self.start]
        last = [
            min(begin + edge, extent) for begin, edge, extent in zip(self.start, self.size, record.shape, strict=True)
        ]
        inside = tuple(
            slice(low - begin, high - begin) for begin, low, high in zip(self.start, first, last, strict=True)
        )
        size = tuple(high - low for low, high in zip(first, last, strict=True))
        stored = record.image if image else record.label
        spare = None if stored is None else _SPARE.array(size, stored.dtype)
        voxels = self.store.crop(volume_id, first, size, kind, spare)
        window = self.window_hu if image else None
        if size != self.size:
            beyond = torch.tensor(self.pad_hu if image else 0.0)  # pad_hu need not be a whole number
            crop.fill_(beyond if window is None else to_window(beyond, window))
        _put(crop[0][inside], voxels, window)
        return MetaTensor(crop, affine=self._affine(record), meta={"filename_or_obj": volume_id})

    def _affine(self, record: StoreRecord) -> torch.Tensor:
        affine = record.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ self.start
        return torch.from_numpy(affine)


class _Spare(threading.local):
    """Memory for stored voxels until they are in a crop, for new memory has to be found and cleared."""

    memory = np.empty(0, np.uint8)

    def array(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """Return voxels of any values, which the next call may hand out again."""
        length = prod(shape) * np.dtype(dtype).itemsize
        if length > KEPT_BYTES:
            return np.empty(shape, dtype)
        if length > self.memory.nbytes:
            self.memory = np.empty(length, np.uint8)
        return self.memory[:length].view(dtype).reshape(shape)


_SPARE = _Spare()


def _put(place: torch.Tensor, voxels: np.ndarray, window: tuple[float, float] | None) -> None:
    """Write voxels to their place, by :func:`monai_ext.base.window_hu` to the last bit; ``voxels`` are overwritten."""
    if window is None:
        np.copyto(place.numpy(), voxels, casting="unsafe")
        return
    low, high = window
    whole = low == int(low) and high == int(high)
    if voxels.dtype != np.int16 or not whole or low < -(2**15) or high >= 2**15 or high - low >= 2**15:
        place.copy_(to_window(torch.from_numpy(voxels), window))
        return
    # Most passes over integers of half the size: windowing is a fifth of a crop's time.
    np.clip(voxels, int(low), int(high), out=voxels)
    voxels -= np.int16(low)
    np.divide(voxels, np.float32(high - low), out=place.numpy(), dtype=np.float32)


class RandStoreCropd(Randomizable, MapTransform):
    """Replace the id of a stored volume by a random crop of it; see :class:`RandStoreCrop`.

    Where a loader offers the memory of the batch (:class:`PlacedBatch`), the crop is written there.

    Items are such as ``{"image": "case_7"}``, or hold the id under ``id_key``:

    >>> RandStoreCropd("image", store, (96, 96, 96), window_hu=(-175, 250))  # doctest: +SKIP

    Args:
        keys: where the crop goes, and where the id is unless ``id_key`` is given; each is drawn anew.
        store: the store or its folder.
        size: voxels of the crop along x, y, z.
        body_ratio: share of crops centred on the body, 0 to 1.
        pad_hu: HU beyond the volume; label ids are 0 there.
        window_hu: ``(low, high)`` that becomes 0 to 1, clipped; HU as they are by default.
        label_key: where the labels of the same box go; none by default.
        id_key: where the id is.
        allow_missing_keys: pass over keys that an item lacks.

    Raises:
        SettingError: ``label_key`` beside several keys, or a setting that :class:`RandStoreCrop` refuses.
    """

    def __init__(
        self,
        keys: KeysCollection,
        store: VolumeStore | str | os.PathLike[str],
        size: Sequence[int],
        body_ratio: float = BODY_RATIO,
        pad_hu: float = AIR_HU,
        window_hu: Sequence[float] | None = None,
        label_key: str | None = None,
        id_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        if label_key is not None and len(self.keys) > 1:
            raise SettingError(
                f"label_key: {label_key!r} cannot belong to {len(self.keys)} keys; give one key beside it",
                code="setting.label_key",
            )
        self.cut = RandStoreCrop(store, size, body_ratio, pad_hu, window_hu)
        self.label_key = label_key
        self.id_key = id_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        self.cut.set_random_state(state=self.R)
        # With an id elsewhere, a key is where the crop goes and need not be there before.
        for key in self.key_iterator(out) if self.id_key is None else self.keys:
            volume_id = data[key if self.id_key is None else self.id_key]
            out[key] = self.cut(volume_id, out=self._memory(key, "image"))
            if self.label_key is not None:
                memory = self._memory(self.label_key, "label")
                out[self.label_key] = self.cut(volume_id, "label", randomize=False, out=memory)
        return out

    def _memory(self, key: Hashable, kind: str) -> torch.Tensor | None:
        return claim_memory(key, (1, *self.cut.size), DTYPES[kind])
