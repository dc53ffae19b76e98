"""What is particular to pretraining: no labels, a loss between two outputs, scans held out by name."""

from collections.abc import Mapping
from typing import Any

import torch

from monai_ext.base import SettingError, StoreError, derive_seed, is_number
from monai_ext.engines.steps import plain_tensor
from monai_ext.losses import MaskedPatchLoss
from monai_ext.volumes import VolumeStore


class ReconstructionLoss:
    """Mean squared error over masked patches, from the output of `HiEndMAE` as the trainer passes it."""

    def __init__(self) -> None:
        self.measure = MaskedPatchLoss()

    def __call__(self, output: Any, _label: None = None) -> torch.Tensor:
        """Return the loss of one `MAEOutput`; there is no label."""
        loss: torch.Tensor = self.measure(output.prediction, output.target)
        return loss


def prepare_volumes(
    batch: Mapping[str, Any], device: torch.device, non_blocking: bool = False, **_: Any
) -> tuple[torch.Tensor, None]:
    """Move ``batch["image"]``, ``(b, 1, x, y, z)``, to the device as a plain tensor."""
    return plain_tensor(batch["image"]).to(device, non_blocking=non_blocking), None


def prepare_pairs(
    batch: Mapping[str, Any], device: torch.device, non_blocking: bool = False, **_: Any
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Move ``image`` and, where present, ``label`` to the device as plain tensors."""
    image = plain_tensor(batch["image"]).to(device, non_blocking=non_blocking)
    label = batch.get("label")
    return image, None if label is None else plain_tensor(label).to(device, non_blocking=non_blocking)


def store_items(store: str, part: str, held_out: float = 0.1, seed: int = 0) -> list[dict[str, str]]:
    """List the scans of a store for one part of the run, as ``[{"image": id}, ...]``.

    Whether a scan is held out depends on its id and the seed alone, so that adding scans moves no
    other one between the parts; at least one scan is held out when ``held_out`` is not 0.

    Args:
        store: folder of a `VolumeStore`.
        part: ``"train"`` or ``"validation"``.
        held_out: share of the scans in validation, from 0 to below 1.
        seed: another seed holds out other scans.

    Raises:
        StoreError: the store holds too few scans for both parts.
        SettingError: an unknown part or an impossible share.
    """
    if part not in ("train", "validation") or not is_number(held_out, 0) or held_out >= 1:
        raise SettingError(
            f"part is {part!r} and held_out is {held_out}; use 'train' or 'validation', and a share from 0 to below 1",
            code="setting.held_out",
        )
    ids = sorted(VolumeStore(store).ids, key=lambda name: (derive_seed(seed, "held out", name), name))
    threshold = held_out * 2**32
    count = sum(derive_seed(seed, "held out", name) < threshold for name in ids)
    count = max(count, 1) if held_out else 0
    if count >= len(ids):
        raise StoreError(
            f"the store holds {len(ids)} scan(s), too few to train on some and hold out others; "
            "prepare more scans, or set held_out to 0 and train without validation",
            code="store.too_few",
        )
    chosen = ids[:count] if part == "validation" else ids[count:]
    return [{"image": name} for name in sorted(chosen)]
