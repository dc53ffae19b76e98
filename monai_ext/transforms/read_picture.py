"""Pictures and their masks as a transform: paths in, 8-bit RGB and masks of 0 and 1 out."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform

from monai_ext.base import LabelError
from monai_ext.volumes import read_mask, read_picture


class ReadPictured(MapTransform):
    """Read the picture of an entry, and the mask where it has one.

    ``image`` becomes uint8 ``(h, w, 3)``, ``mask`` uint8 ``(h, w)`` of 0 and 1; an empty path is a normal picture,
    whose mask is all 0.

    Args:
        keys: entry with the path of the picture.
        mask_key: entry with the path of the mask, if any.
        label_key: entry with the label, 0 or 1; where present, a normal picture must have an empty mask.
        case_key: entry with the name that errors use.

    Raises:
        ScanError: see `read_picture`.
        LabelError: see `read_mask`; or a picture labelled normal has a mask that is not empty.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        mask_key: str = "mask",
        label_key: str = "label",
        case_key: str = "case",
    ) -> None:
        super().__init__(keys)
        self.mask_key, self.label_key, self.case_key = mask_key, label_key, case_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        (key,) = self.key_iterator(out)
        case = out.get(self.case_key)
        out[key] = picture = read_picture(out[key], case)
        height, width = picture.shape[:2]
        path = out.get(self.mask_key)
        mask = read_mask(path, case, (height, width)) if path else np.zeros((height, width), np.uint8)
        check_label(out.get(self.label_key), int(mask.sum()), str(case))
        out[self.mask_key] = mask
        return out


def check_label(label: Any, abnormal_pixels: int, case: str) -> None:
    """Refuse a normal picture or volume whose mask is not empty.

    Args:
        label: 0 or 1, ``None`` where there is none.
        abnormal_pixels: of its mask.
        case: what errors call it.

    Raises:
        LabelError: label and mask contradict each other.
    """
    if label is not None and not label and abnormal_pixels:
        raise LabelError(
            f"{case}: labelled normal, but {abnormal_pixels} pixels of its mask are abnormal; mend label or mask",
            code="label.contradiction",
            case=case,
        )
