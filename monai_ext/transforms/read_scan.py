"""The strict reader as a transform: paths in, volumes with their place in the patient out."""

import hashlib
from collections.abc import Collection, Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ensure_tuple

from monai_ext.base import SettingError
from monai_ext.volumes import Scan, check_relax, read_labels, read_scan


class ReadScand(MapTransform):
    """Replace paths of scans and label volumes by ``(1, x, y, z)`` float32 tensors.

    A path is a NIfTI, NRRD or MetaImage file, or a DICOM series folder or zip. Each tensor's ``meta`` holds the
    affine (also as ``original_affine``), ``spatial_shape``, ``filename_or_obj`` (the base name alone), ``case``,
    ``relaxed`` (the rules that were relaxed, with commas between) and ``scan_sha256``, a fingerprint of voxels and
    affine by which writers tell scans apart. The entry gains ``case``: the one it already names, else the first
    image's base name.

    Args:
        keys: entries with the path of an image.
        label_keys: entries with the path of a label volume, which must lie on the grid of the first image.
        assume_hu: see ``monai_ext.volumes.read_scan``.
        classes: the ids that labels may hold beside 0; any by default.
        relax: see ``monai_ext.volumes.read_scan``.
        allow_missing_keys: pass over entries that are absent.

    Raises:
        SettingError: at construction, when a key names both an image and labels, or ``relax`` no rule.
        ScanError, GeometryError, LabelError: a file is refused; the sentence names the case and the reason.
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_keys: KeysCollection = (),
        assume_hu: bool = False,
        classes: Collection[int] | None = None,
        allow_missing_keys: bool = False,
        relax: str | Collection[str] = (),
    ) -> None:
        super().__init__((*ensure_tuple(keys), *ensure_tuple(label_keys)), allow_missing_keys)
        self.label_keys = set(ensure_tuple(label_keys))
        if both := self.label_keys & set(ensure_tuple(keys)):
            raise SettingError(
                f"{', '.join(map(str, both))}: named both as an image and as labels; name each key once",
                code="setting.keys",
            )
        self.assume_hu = assume_hu
        self.classes = classes
        self.relax = check_relax(relax)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        named = out.get("case")
        image: Scan | None = None
        for key in self.key_iterator(out):
            if key in self.label_keys:
                scan = read_labels(out[key], like=image, classes=self.classes, case=named, relax=self.relax)
            else:
                scan = read_scan(out[key], assume_hu=self.assume_hu, case=named, relax=self.relax)
                image = image or scan
            out[key] = scan_tensor(scan)
            out["case"] = image.case if image else scan.case
        return out


def scan_tensor(scan: Scan) -> MetaTensor:
    """Return the ``(1, x, y, z)`` float32 tensor of a scan, with what `ReadScand` says its ``meta`` holds."""
    voxels = np.ascontiguousarray(scan.voxels, dtype=np.float32)
    affine = torch.from_numpy(scan.affine)
    fingerprint = hashlib.sha256(scan.affine.astype("<f8").tobytes() + repr(voxels.shape).encode())
    fingerprint.update(voxels.data)
    meta = {
        "original_affine": affine.clone(),
        "spatial_shape": torch.tensor(voxels.shape),
        "filename_or_obj": scan.source.name,
        "case": scan.case,
        "scan_sha256": fingerprint.hexdigest(),
        "relaxed": ",".join(scan.relaxed),
    }
    return MetaTensor(torch.from_numpy(voxels)[None], affine=affine, meta=meta)
