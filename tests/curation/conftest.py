"""Tiny volumes that look like CT, a data set made up of them, and manifests of shipped data sets."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from monai_ext.manifests import ManifestEntry, read_shipped, write_manifest

SHAPE = (5, 7, 6)
CARD: dict[str, Any] = {
    "schema_version": "1.0",
    "name": "toys",
    "datasets": {
        "toys": {
            "title": {"value": "Toys", "confidence": "verified", "source": ["PAGE"]},
            "licence": {"value": "CC-BY-4.0", "confidence": "high", "source": ["PAGE"]},
            "commercial_use": {"value": "yes", "confidence": "high", "source": ["PAGE"]},
            "modality": {"value": "CT", "confidence": "high", "source": []},
            "label_names": {"value": {"0": "background", "1": "ball"}, "confidence": "high", "source": []},
            "layout": [
                {
                    "image": "imagesTr/toy_{number}.nii.gz",
                    "label": "labelsTr/toy_{number}.nii.gz",
                    "numbers": [501, 600],
                    "split": "unassigned",
                    "leave_out": "MR, not CT",
                },
                {
                    "image": "imagesTr/toy_{number}.nii.gz",
                    "label": "labelsTr/toy_{number}.nii.gz",
                    "split": "training",
                    "confidence": "high",
                },
                {"image": "imagesTs/toy_{group}-{number}.nii.gz", "group": "p{group}", "split": "test"},
            ],
        }
    },
    "sources": {"PAGE": {"kind": "web page", "locator": "https://example.org/toys"}},
}


def ct(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Return air around tissue, other voxels for each seed."""
    rng = np.random.default_rng(seed)
    voxels = rng.integers(-1010, -990, shape)
    voxels[1:4, 2:6, 1:5] = rng.integers(-100, 80, voxels[1:4, 2:6, 1:5].shape)
    return voxels.astype(np.int16)


@pytest.fixture
def write_ct() -> Callable[..., Path]:
    """Write a volume, by default CT of a seed, as NIfTI of spacing 1.5, 2, 2.5 mm."""

    def write(path: Path, seed: int = 0, voxels: np.ndarray | None = None, x_mm: float = 1.5) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        image = nib.Nifti1Image(ct(seed) if voxels is None else voxels, np.diag([x_mm, 2, 2.5, 1]))
        image.to_filename(path)
        return path

    return write


@pytest.fixture
def write_label(write_ct: Callable[..., Path]) -> Callable[..., Path]:
    """Write a label volume with one id beside 0."""

    def write(path: Path, number: int = 1, shape: tuple[int, int, int] = SHAPE, x_mm: float = 1.5) -> Path:
        voxels = np.zeros(shape, np.uint8)
        voxels[1:3, 2:4, 1:3] = number
        return write_ct(path, voxels=voxels, x_mm=x_mm)

    return write


@pytest.fixture
def card() -> dict[str, Any]:
    """The description, new for each test."""
    return copy.deepcopy(CARD)


@pytest.fixture
def card_file(tmp_path: Path) -> Path:
    """The description as a file outside of the data set's folder."""
    path = tmp_path / "toys.json"
    path.write_text(json.dumps(CARD), encoding="utf-8")
    return path


@pytest.fixture
def toys(tmp_path: Path, write_ct: Callable[..., Path], write_label: Callable[..., Path]) -> Path:
    """A download: three labelled scans, two unlabelled ones of one patient, one that is MR, and leftovers."""
    root = tmp_path / "DOE^JANE" / "toys"
    for number in (2, 3, 11):
        write_ct(root / f"imagesTr/toy_{number}.nii.gz", number)
        write_label(root / f"labelsTr/toy_{number}.nii.gz")
    for number in (1, 2):
        write_ct(root / f"imagesTs/toy_7-{number}.nii.gz", 70 + number)
    write_ct(root / "imagesTr/toy_507.nii.gz", 507)
    write_label(root / "labelsTr/toy_507.nii.gz")
    for junk in ("imagesTr/._toy_2.nii.gz", ".DS_Store", "imagesTr/Thumbs.db", "__MACOSX/imagesTr/toy_9.nii.gz"):
        (root / junk).parent.mkdir(parents=True, exist_ok=True)
        (root / junk).write_bytes(b"junk")
    (root / "dataset.json").write_text("{}")
    return root


@pytest.fixture
def listing(tmp_path: Path) -> Callable[..., Path]:
    """Write ``FOLDER/manifest.json`` of a shipped data set with entries ``PREFIX_1``, ``PREFIX_2``, ..."""

    def write(dataset: str, count: int, prefix: str, folder: str | None = None, **changes: Any) -> Path:
        manifest = read_shipped(dataset)
        entries = [
            ManifestEntry(
                **{
                    "id": f"{prefix}_{number}",
                    "dataset": dataset,
                    "image": f"imagesTr/{prefix}_{number}.nii.gz",
                    "split": "training",
                    **{
                        key: value.format(number=number) if isinstance(value, str) else value
                        for key, value in changes.items()
                    },
                }
            )
            for number in range(1, count + 1)
        ]
        path = tmp_path / (folder or dataset) / "manifest.json"
        write_manifest(path, replace(manifest, name=folder or dataset, entries=entries))
        return path

    return write
