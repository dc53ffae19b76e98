"""A picture and a mask, and what CLIP is given of them."""

import torch
from torch import Tensor

from formats.comparison import Comparison, Tolerance
from formats.golden import Golden
from monai_ext.transforms import ClipMask, ClipPicture

TOLERANCES = (("*.image_out", Tolerance(1e-4, of_largest=True, at_least=1.0)),)

_PARTS = ("image_u8", "mask_u8", "image_out", "mask_out")


def recognises(golden: Golden) -> bool:
    """Tell by the names: raw and prepared pictures and masks."""
    parts = {name.rpartition(".")[2] for name in golden.tensors}
    return bool(parts) and "image_u8" in parts and parts <= set(_PARTS)


def check(golden: Golden, compare: Comparison) -> None:
    """Prepare each picture and mask."""
    for name in dict.fromkeys(name.rpartition(".")[0] for name in golden.tensors):
        compare.expect(*(f"{name}.{part}" for part in _PARTS))
        image, mask = golden.tensors[f"{name}.image_u8"], golden.tensors[f"{name}.mask_u8"]
        size = golden.tensors[f"{name}.image_out"].shape[1:]
        compare(f"{name}.image_out", ClipPicture(tuple(size))(image.numpy()))
        compare(f"{name}.mask_out", ClipMask(tuple(size))(mask.numpy()))
        compare(f"{name}.image_u8", _there_and_back(image))
        compare(f"{name}.mask_u8", mask * ClipMask(tuple(mask.shape))(mask.numpy())[0])


def _there_and_back(image: Tensor) -> Tensor:
    prepare = ClipPicture(tuple(image.shape[:2]))
    colours = prepare(image.numpy()) * prepare.std + prepare.mean
    return (colours * 255).round().permute(1, 2, 0).to(torch.uint8)
