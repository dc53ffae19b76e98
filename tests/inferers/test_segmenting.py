"""From the network's grid to labels on the scan's own, beside inverting the whole logits with MONAI."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from monai.transforms import Compose, Invertd, Orientationd, ScaleIntensityRanged, Spacingd
from torch import Tensor

from monai_ext.inferers import BrickInferer, segment
from monai_ext.transforms import ReadScand, load_ct

WINDOW = (16, 20, 12)
NAMES = {1: "one", 2: "two", 3: "three", 4: "four"}
Scan = Callable[..., Path]


@pytest.fixture
def scan(tmp_path: Path) -> Scan:
    """Write noise with air and tissue, oblique, on axes and edges as told."""

    def write(
        codes: str = "LPS", shape: tuple[int, ...] = (29, 23, 31), edges: tuple[float, ...] = (1.1, 1.3, 2.3)
    ) -> Path:
        generator = np.random.default_rng(5)
        voxels = generator.normal(0, 60, shape) - 1000 * (generator.random(shape) < 0.2)
        turn = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]])
        affine = np.eye(4)
        affine[:3, :3] = turn * np.array(edges)
        affine[:3, 3] = 11, -7, 3
        image = nib.Nifti1Image(voxels.astype(np.int16), affine)
        ornt = nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes)
        )
        image = image.as_reoriented(ornt)
        image.set_qform(image.affine, 1)
        image.set_sform(image.affine, 1)
        path = tmp_path / f"scan_{codes}.nii.gz"
        nib.save(image, path)
        return path

    return write


KERNEL = torch.randn((5, 1, 3, 3, 3), generator=torch.Generator().manual_seed(7))


def network(window: Tensor) -> Tensor:
    """Logits of 5 classes, of which each wins somewhere in noise around 0.4."""
    return torch.nn.functional.conv3d(window - 0.4, KERNEL, padding=1)


def whole_then_inverted(path: Path, spacing_mm: Any, inferer: Any) -> tuple[np.ndarray, Tensor]:
    """Do it with MONAI alone, its resampling in float64: all logits, inverted, then compared."""
    chain = Compose(
        [
            ReadScand("image"),
            Orientationd("image", axcodes="RAS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
            Spacingd("image", spacing_mm, mode="bilinear", dtype=np.float64),
            ScaleIntensityRanged("image", -175, 250, 0, 1, clip=True),
        ]
    )
    data = chain({"image": path})
    data["pred"] = MetaTensor(inferer(data["image"].as_tensor()[None], network)[0])
    back = Invertd("pred", chain, orig_keys="image", nearest_interp=False)(data)["pred"]
    return back.argmax(dim=0).numpy(), back.as_tensor()


@pytest.mark.parametrize("spacing_mm", [(1.5, 1.5, 1.5), (0.9, 2.1, 0.8), (1.1, 1.3, 2.3)])
@pytest.mark.parametrize("codes", ["LPS", "SAL"])
def test_labels_are_those_of_whole_logits_inverted(scan: Scan, codes: str, spacing_mm: Any) -> None:
    path = scan(codes)
    expected, _ = whole_then_inverted(path, spacing_mm, SlidingWindowInferer(WINDOW, 2, 0.5, mode="gaussian"))
    image = load_ct(spacing_mm=spacing_mm)({"image": path})["image"]
    found = segment(image, network, BrickInferer(WINDOW, 2, 0.5))
    assert found.labels.shape == expected.shape
    assert len(np.unique(expected)) == 5
    # MONAI's grid is float64, ours float32 weights: of 20677 voxels hardly one is so near a tie.
    assert np.mean(found.labels != expected) <= 5e-5
    np.testing.assert_array_equal(found.affine, image.meta["original_affine"])
