"""Resampling along the axes beside MONAI's own, on its grid."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Spacing

from monai_ext.transforms.axis_spacing import AxisSpacing

TILT = np.array([[1, 0, 0], [0, 0.96, -0.28], [0, 0.28, 0.96]])
TURN = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]) @ TILT


def volume(turn: np.ndarray, edges: tuple[float, ...], rounded: bool) -> MetaTensor:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * np.array(edges), (-50.5, 61.25, -700.125)
    if rounded:
        affine = affine.astype(np.float32).astype(float)  # MONAI then lays the middles of both grids on each other
    values = torch.rand((1, 23, 19, 29), generator=torch.Generator().manual_seed(2))
    return MetaTensor(values, affine=torch.from_numpy(affine))


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("turn", [np.eye(3), TURN])
@pytest.mark.parametrize("spacing_mm", [(4.0, 4.0, 4.0), (1.5, 1.5, 1.5), (3.1, 2.0, 5.0), (3.1, 2.9, 4.3)])
def test_it_is_monais(turn: np.ndarray, spacing_mm: tuple[float, ...], rounded: bool) -> None:
    image = volume(turn, (3.1, 2.9, 4.3), rounded)
    settings = {"mode": "bilinear", "dtype": np.float32}
    ours, theirs = AxisSpacing(spacing_mm, **settings), Spacing(spacing_mm, **settings)
    found, expected = ours(image.clone()), theirs(image.clone())
    assert found.shape == expected.shape
    torch.testing.assert_close(found.affine, expected.affine, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.as_tensor(), expected.as_tensor(), rtol=0, atol=2e-5)  # 1e-5 of a voxel
    back = ours.inverse(found)
    torch.testing.assert_close(back.as_tensor(), theirs.inverse(expected).as_tensor(), rtol=0, atol=2e-5)
    torch.testing.assert_close(back.affine, image.affine, rtol=0, atol=1e-6)


def test_axes_that_are_not_quite_at_right_angles_are_kept() -> None:
    sheared = np.eye(3)
    sheared[0, 2] = 9e-4
    image = volume(sheared, (3.1, 2.9, 4.3), False)
    found = AxisSpacing((4.0, 4.0, 4.0), mode="bilinear", dtype=np.float32)(image)
    step = np.linalg.solve(image.affine.numpy(), found.affine.numpy())
    np.testing.assert_allclose(step, np.diag(np.diag(step)), rtol=0, atol=1e-9)
