import math

import pytest
import torch
from torch.testing import assert_close

from monai_ext.base import SettingError
from monai_ext.networks import BLURS, AnomalyMaps
from monai_ext.networks.anomaly_maps import detection_scores, probability_map, similarities


def mirrored(place: int, size: int) -> int:
    """Reflect at the border, which is not repeated."""
    place = abs(place)
    return place if place < size else 2 * (size - 1) - place


def blurred(grid: torch.Tensor, kernel: int, sigma: float) -> torch.Tensor:
    half, out = kernel // 2, torch.zeros_like(grid)
    weights = [math.exp(-((k - half) ** 2) / (2 * sigma**2)) for k in range(kernel)]
    for y in range(grid.shape[0]):
        for x in range(grid.shape[1]):
            for j in range(kernel):
                for i in range(kernel):
                    source = grid[mirrored(y + j - half, grid.shape[0]), mirrored(x + i - half, grid.shape[1])]
                    out[y, x] += weights[j] * weights[i] * source / sum(weights) ** 2
    return out


def grown(grid: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Bilinear, corner on corner."""
    out = torch.zeros(height, width)
    for y in range(height):
        for x in range(width):
            down, across = y * (grid.shape[0] - 1) / (height - 1), x * (grid.shape[1] - 1) / (width - 1)
            top, left = min(int(down), grid.shape[0] - 2), min(int(across), grid.shape[1] - 2)
            v, u = down - top, across - left
            rows = (1 - v) * grid[top] + v * grid[top + 1]
            out[y, x] = (1 - u) * rows[left] + u * rows[left + 1]
    return out


@pytest.mark.parametrize(
    ("settings", "kernel", "sigma"),
    [({}, 9, 1.5), ({"domain": "Medical"}, 9, 1.5), ({"domain": "Industrial"}, 7, 1.0), ({"blur": (3, 0.7)}, 3, 0.7)],
)
def test_maps_are_blurred_on_the_grid_and_then_grown(settings, kernel, sigma):
    alike = torch.randn(2, 2, 7, 5, generator=torch.Generator().manual_seed(0))
    found = AnomalyMaps(**settings)(alike, (23, 17))
    for image in range(2):
        anomaly = (alike[image, 1] + 1 - alike[image, 0]) / 2
        expected = grown(blurred(anomaly, kernel, sigma), 23, 17)
        assert_close(found[image, 0], expected, rtol=0, atol=1e-5)  # float32, up to 81 terms


def test_published_blurs():
    assert dict(BLURS) == {"Industrial": (7, 1.0), "Medical": (9, 1.5)}


def test_similarities_lie_row_by_row():
    patches, anchors = torch.randn(2, 15, 7), torch.randn(2, 7, 2)
    alike = similarities(patches, anchors, (5, 3), temperature=10)
    for patch in range(15):
        assert_close(alike[1, :, patch // 3, patch % 3], 10 * patches[1, patch] @ anchors[1])
    # Values of some hundreds, in another order of sums.
    assert_close(similarities(patches, anchors[0], (5, 3))[0], 10 * alike[0], rtol=0, atol=1e-3)


def test_probabilities_add_up_to_1():
    found = probability_map(torch.randn(1, 2, 3, 2) * 50, (11, 7))
    assert found.shape == (1, 2, 11, 7)
    assert_close(found.sum(dim=1), torch.ones(1, 11, 7))


def test_detection_scores_lie_between_0_and_1():
    detection, anchors = torch.tensor([[0.6, 0.8], [-1.0, 0.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert_close(detection_scores(detection, anchors), torch.tensor([0.8, 0.0]))


@pytest.mark.parametrize(("grid", "blur", "fits"), [((5, 9), 9, True), ((4, 9), 9, False), ((9, 3), 7, False)])
def test_a_grid_that_cannot_be_mirrored_is_refused(grid, blur, fits):
    maps = AnomalyMaps(blur=(blur, 1.0))
    if fits:
        assert maps(torch.zeros(1, 2, *grid), (20, 20)).shape == (1, 1, 20, 20)
    else:
        with pytest.raises(
            SettingError, match=rf"grid of {grid[0]}x{grid[1]} patches is too small for a blur of {blur}"
        ):
            maps(torch.zeros(1, 2, *grid), (20, 20))


@pytest.mark.parametrize("settings", [{"domain": "Food"}, {"blur": (4, 1.0)}, {"blur": (5, 0.0)}, {"blur": (-1, 1.0)}])
def test_settings_that_make_no_blur_are_refused(settings):
    with pytest.raises(
        SettingError, match=r"domain: 'Food' has no blur; choose one of Industrial, Medical|blur: kernel"
    ):
        AnomalyMaps(**settings)
