"""Label files with ids of their own, such as those of TotalSegmentator, onto the classes of a network."""

from collections.abc import Collection, Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor


class RegroupLabels:
    """Give voxels the class that their id belongs to, and 0 where no class lists it.

    MONAI's ``MapLabelValue`` keeps what it is not told about, so that every id of a file would have to be listed.

    Args:
        label_ids: for each class the ids that make it up, such as ``{1: (5,), 2: (2, 3)}``.
    """

    def __init__(self, label_ids: Mapping[int, Collection[int]]) -> None:
        self.label_ids = {int(number): sorted(map(int, ids)) for number, ids in label_ids.items()}

    def __call__(self, labels: Tensor) -> Tensor:
        """Return labels of the same shape, type and place in the patient."""
        grouped = torch.zeros_like(labels)
        for number, ids in self.label_ids.items():
            grouped[torch.isin(labels, torch.tensor(ids, dtype=labels.dtype))] = number
        return grouped


class RegroupLabelsd(MapTransform):
    """Apply `RegroupLabels` to the entries with labels.

    Args:
        keys: entries with label volumes, ``(1, x, y, z)``.
        label_ids: see `RegroupLabels`.
        allow_missing_keys: pass over entries that are absent.
    """

    def __init__(
        self, keys: KeysCollection, label_ids: Mapping[int, Collection[int]], allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.regroup = RegroupLabels(label_ids)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        for key in self.key_iterator(out):
            out[key] = self.regroup(out[key])
        return out
