"""Four ways to feed a network random crops of CT volumes, and the files that each of them reads."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from bench_store import CROP, CROPS_A_LOAD, WINDOW_HU, synthetic
from monai.data import CacheDataset, DataLoader, PersistentDataset, list_data_collate
from monai.transforms import (
    Compose,
    FgBgToIndicesd,
    Lambdad,
    RandCropByPosNegLabeld,
    ScaleIntensityRanged,
)
from torch.utils.data import Dataset

from monai_ext.base import window_hu
from monai_ext.engines import DrawDataset, VisitPlan
from monai_ext.transforms import PlacedSamples, RandStoreCropd, collate_placed
from monai_ext.volumes import VolumeStore, find_body, prepare
from monai_ext.volumes.store_write import NewVolume, write_volume

BATCH = 8
SPACING_MM = (1.5, 1.5, 1.5)
RECIPES = ("store", "published", "persistent", "cache", "cache_indices")
FOLDERS = {"store": "store", "published": "pt", "persistent": "persistent", "cache": "nii", "cache_indices": "nii"}


def hu_volumes(count: int, edge: int, ct: Path | None, folder: Path) -> Iterator[np.ndarray]:
    """Yield int16 HU of ``count`` volumes: flipped and turned copies of phantoms, or of a real torso."""
    if ct is None:
        hu = synthetic(edge)
    else:
        prepare(ct / "torso_3mm.nii.gz", folder / "real", spacing_mm=SPACING_MM, workers=0)
        hu = VolumeStore(folder / "real").volume("torso_3mm")
    for number in range(count):
        flips = [axis for axis in range(3) if number >> axis & 1]
        yield np.ascontiguousarray(np.rot90(np.flip(hu, flips), number >> 3))


def write_files(folder: Path, count: int, edge: int, ct: Path | None) -> None:
    """Write the volumes in the form that each recipe reads: store, float32 tensors, NIfTI; and fill MONAI's cache."""
    for name in ("store", "pt", "nii"):
        (folder / name).mkdir()
    for number, hu in enumerate(hu_volumes(count, edge, ct, folder)):
        name = f"volume_{number:03}"
        write_volume(folder / "store", new_volume(name, hu))
        torch.save(window_hu(torch.from_numpy(hu)[None], WINDOW_HU), folder / "pt" / f"{name}.pt")
        nib.save(nib.Nifti1Image(hu, np.diag([*SPACING_MM, 1])), folder / "nii" / f"{name}.nii")
    for item in range(count):
        _persistent(folder)[item]


def new_volume(name: str, hu: np.ndarray) -> NewVolume:
    """Describe a volume that no file was read for."""
    return NewVolume(
        id=name,
        hu=hu,
        affine=np.diag([*SPACING_MM, 1]),
        spacing_mm=SPACING_MM,
        source=f"{name}.nii",
        source_root="",
        source_sha256="",
        source_shape=hu.shape,
        source_affine=np.eye(4),
        settings={},
        body=find_body(hu, SPACING_MM, name),
    )


def loader(recipe: str, folder: Path, workers: int) -> tuple[DataLoader, VisitPlan | None]:
    """Return a recipe's loader, whose epoch is eight crops of each volume, and its plan if it has one."""
    options: dict[str, Any] = {"num_workers": workers, "persistent_workers": workers > 0}
    if recipe == "store":
        store = VolumeStore(folder / "store")
        data = DrawDataset(
            [{"image": name} for name in store], RandStoreCropd("image", store, CROP, window_hu=WINDOW_HU)
        )
        plan = VisitPlan([1] * len(store), len(store) * CROPS_A_LOAD, 0, CROPS_A_LOAD, 8 * BATCH)
        placed = DataLoader(PlacedSamples(data), sampler=plan, batch_size=BATCH, collate_fn=collate_placed, **options)
        return placed, plan
    sets: dict[str, Callable[[], Dataset[Any]]] = {
        "published": lambda: Published(folder),
        "persistent": lambda: _persistent(folder),
        "cache": lambda: CacheDataset(_items(folder), _chain(), progress=False),
        "cache_indices": lambda: CacheDataset(_items(folder), _chain(indices=True), progress=False),
    }
    # A load gives eight crops, which are a batch.
    return DataLoader(sets[recipe](), batch_size=1, shuffle=True, collate_fn=list_data_collate, **options), None


class Published(Dataset[list[dict[str, torch.Tensor]]]):
    """The published recipe: load a whole float32 tensor, cut eight crops, the image being its own label."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted((folder / "pt").iterdir())
        self.cut = _cut()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> list[dict[str, torch.Tensor]]:
        return self.cut({"image": torch.load(self.paths[index], weights_only=True)})


def _cut(indices: bool = False) -> RandCropByPosNegLabeld:
    keys: Mapping[str, str] = {"fg_indices_key": "image_fg_indices", "bg_indices_key": "image_bg_indices"}
    return RandCropByPosNegLabeld(
        ["image"], "image", CROP, pos=6, neg=2, num_samples=CROPS_A_LOAD, **(keys if indices else {})
    )


def _chain(indices: bool = False) -> Compose:
    low, high = WINDOW_HU
    return Compose(
        [
            Lambdad("image", _read),  # not LoadImaged, which asks every reader that MONAI knows
            ScaleIntensityRanged("image", low, high, 0, 1, clip=True),
            *([FgBgToIndicesd("image")] if indices else []),
            _cut(indices),
        ]
    )


def _read(path: str) -> torch.Tensor:
    return torch.from_numpy(np.asanyarray(nib.load(path).dataobj).astype(np.float32))[None]


def _items(folder: Path) -> list[dict[str, str]]:
    return [{"image": str(path)} for path in sorted((folder / "nii").iterdir())]


def _persistent(folder: Path) -> PersistentDataset:
    return PersistentDataset(_items(folder), _chain(), cache_dir=folder / "persistent")
