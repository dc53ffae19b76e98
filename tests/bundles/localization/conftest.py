"""What tests of localization share: a CLIP of a few thousand weights, its adapters, scans whose blobs are known."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from monai_ext.networks import AAClip, load_clip, save_adapters

TINY: dict[str, Any] = {
    "embed_dim": 13,
    "vision_cfg": {"image_size": 40, "layers": 4, "width": 24, "patch_size": 8, "head_width": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 12, "heads": 2, "layers": 3},
}


def _tiny_clip(folder: Path, seed: int = 7) -> dict[str, Any]:
    """Write a CLIP with random weights and random adapters; return the settings of a bundle that uses them."""
    torch.manual_seed(seed)
    clip = load_clip(TINY, None)
    model = AAClip(clip)
    config, weights, adapters = folder / "clip.json", folder / "clip.safetensors", folder / "adapters.safetensors"
    config.write_text(json.dumps(TINY))
    safetensors.torch.save_file({name: value.contiguous() for name, value in clip.model.state_dict().items()}, weights)
    save_adapters(model, adapters)
    return {
        "architecture": str(config),
        "clip_weights": str(weights),
        "adapters": str(adapters),
        "image_size": 40,
        "activation": "weights",
        "device": "cpu",
    }


class Mirror(nn.Module):
    """A network whose map is the picture itself, so that every place can be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=1, keepdim=True) + 0 * self.weight


_MIRROR: dict[str, Any] = {
    "network_def": Mirror(),  # MONAI's check of a workflow's properties would build the CLIP, which nobody asks
    "network": "@network_def",
    "adapters": None,
    "device": "cpu",
    "picture": {
        "_target_": "monai_ext.transforms.ClipPicture",
        "size": 64,
        "mean": [0.0, 0.0, 0.0],
        "std": [1.0, 1.0, 1.0],
    },
    "threshold": 0.5,
    "smooth_mm": 0.0,
    "min_volume_mm3": 0.0,
}


def _write_scan(
    path: Path, affine: np.ndarray, shape: tuple[int, int, int], blob_mm: np.ndarray, radius_mm: float
) -> None:
    """Write a CT: air, a body of 0 HU, and a ball of 200 HU round a point given in mm, RAS+."""
    index = np.stack(np.meshgrid(*(np.arange(size) for size in shape), indexing="ij"), axis=-1)
    voxels = np.full(shape, -1000, np.int16)
    inner = tuple(slice(max(1, size // 8), size - max(1, size // 8)) for size in shape)
    voxels[inner] = 0
    place = index @ affine[:3, :3].T + affine[:3, 3]
    voxels[np.linalg.norm(place - blob_mm, axis=-1) <= radius_mm] = 200
    image = nib.Nifti1Image(voxels, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    nib.save(image, path)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings of a bundle with a CLIP and adapters of random weights."""
    return _tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def mirror() -> dict[str, Any]:
    """Settings of a bundle whose network returns the picture itself."""
    return dict(_MIRROR)


@pytest.fixture
def write_scan() -> Callable[..., None]:
    return _write_scan


@pytest.fixture
def write_noise() -> Callable[..., None]:
    """Write a CT of air, with a noisy body in it, of any size."""

    def write(path: Path, shape: tuple[int, int, int], seed: int) -> None:
        voxels = np.full(shape, -1000, np.int16)
        inner = tuple(slice(size // 8, size - size // 8) for size in shape)
        body = voxels[inner]
        body[:] = np.random.default_rng(seed).integers(-80, 160, body.shape)
        image = nib.Nifti1Image(voxels, np.diag([0.7, 0.7, 1.5, 1]))
        image.set_qform(image.affine, 1)
        nib.save(image, path)

    return write
