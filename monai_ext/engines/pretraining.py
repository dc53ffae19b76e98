"""What is particular to pretraining: no labels, and a loss between two outputs."""

from collections.abc import Mapping
from typing import Any

import torch

from monai_ext.engines.steps import plain_tensor
from monai_ext.losses import MaskedPatchLoss


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
