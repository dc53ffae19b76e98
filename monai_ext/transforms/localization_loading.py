"""The chain from a picture or a CT volume to what a localizer looks at, and the way back to its own grid."""

import hashlib
from collections.abc import Collection, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, MapTransform, Orientationd, Transform

from monai_ext.base import ScanError
from monai_ext.transforms.clip_picture import ClipMask
from monai_ext.transforms.read_picture import check_label
from monai_ext.transforms.read_scan import ReadScand, scan_tensor
from monai_ext.volumes import Scan, VolumeStore, read_mask, read_picture

_RAS = (("L", "R"), ("P", "A"), ("I", "S"))  # from the negative end of each axis to the positive one
THINNEST = 3  # slices; fewer have no neighbours to be smoothed with, nor an extent across slices


class LoadInput(Transform):
    """Load one entry of ``monai_ext.engines.localization_items``: a picture, a scan or a stored volume.

    ``image`` becomes uint8 ``(3, h, w)`` colours or float32 ``(1, x, y, z)`` HU in RAS order, with ``case`` and
    ``scan_sha256`` in its ``meta``. ``mask``, where the entry has one, becomes uint8 ``(1, h, w)`` or
    ``(1, x, y, z)`` of 0 and 1, in RAS order too.

    Args:
        assume_hu: see ``monai_ext.volumes.read_scan``.
        relax: see ``monai_ext.volumes.read_scan``.
        mask_size: height and width that masks of pictures are resized to; their own if omitted.

    Raises:
        ScanError: unreadable, not in HU, or fewer than three slices.
        LabelError: a mask cannot be read, has another size, was stored with loss, or contradicts ``abnormal``.
    """

    def __init__(
        self, assume_hu: bool = False, mask_size: Sequence[int] | None = None, relax: str | Collection[str] = ()
    ) -> None:
        self.mask_size = mask_size
        self.read = ReadScand(("image",), ("mask",), assume_hu=assume_hu, allow_missing_keys=True, relax=relax)
        self.turn_mask = Orientationd("mask", axcodes="RAS", labels=_RAS)
        self.turn = Compose([Orientationd("image", axcodes="RAS", labels=_RAS)], lazy=False)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        if out["kind"] == "picture":
            return self._picture(out)
        if out["kind"] == "stored":
            out["image"] = scan_tensor(_stored(Path(out["image"]), str(out["case"])))
        else:
            out = self.read(out)
        _check_slices(out["image"], str(out["case"]))
        if "mask" in out:
            out["mask"] = (out["mask"] > 0).to(torch.uint8)
            check_label(out.get("abnormal"), int(out["mask"].sum()), str(out["case"]))
            out = self.turn_mask(out)
        turned: dict[Hashable, Any] = self.turn(out)
        return turned

    def _picture(self, out: dict[Hashable, Any]) -> dict[Hashable, Any]:
        case = str(out["case"])
        picture = np.ascontiguousarray(read_picture(out["image"], case))
        fingerprint = hashlib.sha256(repr(picture.shape).encode())
        fingerprint.update(picture.data)
        meta = {"case": case, "scan_sha256": fingerprint.hexdigest(), "filename_or_obj": Path(out["image"]).name}
        out["image"] = MetaTensor(torch.from_numpy(picture.transpose(2, 0, 1).copy()), meta=meta)
        if "mask" in out:
            mask = read_mask(out["mask"], case, picture.shape[:2])
            check_label(out.get("abnormal"), int(mask.sum()), case)
            out["mask"] = ClipMask(self.mask_size or mask.shape)(mask)
        return out


class OwnGridd(MapTransform):
    """Bring maps of volumes back to the scan's own grid; those of pictures are there already.

    Args:
        keys: maps, ``(1, x, y, z)`` in RAS order or ``(1, h, w)``.
        transform: the :class:`LoadInput` that loaded ``image``.
        allow_missing_keys: pass over entries that are absent.
    """

    def __init__(self, keys: Sequence[str] | str, transform: LoadInput, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.invert = Invertd(
            keys,
            transform=transform.turn,
            orig_keys="image",
            nearest_interp=False,
            to_tensor=True,
            allow_missing_keys=allow_missing_keys,
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        return out if out["kind"] == "picture" else self.invert(out)


def _stored(path: Path, case: str) -> Scan:
    store = VolumeStore(path.parent)
    volume_id = path.name.removesuffix(".b2nd")
    return Scan(store.volume(volume_id), store.record(volume_id).affine, case, Path(path.name), "nifti")


def _check_slices(image: MetaTensor, case: str) -> None:
    """Refuse a slab of few slices, by the axis of the array that runs along the patient."""
    direction = np.abs(np.asarray(image.affine, dtype=np.float64)[2, :3])
    count = int(image.shape[1 + int(direction.argmax())])
    if count < THINNEST:
        raise ScanError(
            f"{case}: {count} axial slices are no volume to localize in; give {THINNEST} or more, or the slices as "
            "PNG pictures",
            code="scan.thin",
            case=case,
        )
