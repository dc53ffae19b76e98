"""Colour jitter against torchvision, whose functions the published training uses."""

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import functional as tv

from monai_ext.base import SettingError
from monai_ext.transforms import RandColourJitterd


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (13, 17, 3), dtype=np.uint8)


def test_the_drawn_factors_do_what_torchvision_does(picture: np.ndarray) -> None:
    jitter = RandColourJitterd("image", 0.5, 1.0)
    for seed in range(3):
        jitter.set_random_state(seed)
        found = jitter({"image": picture})["image"]
        expected = Image.fromarray(picture)
        steps = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation)
        for step, factor in zip(steps, jitter.factors, strict=True):
            assert factor is not None
            expected = step(expected, factor)
        np.testing.assert_array_equal(found, np.asarray(expected))
        assert found.dtype == np.uint8


def test_factors_and_frequencies_are_those_published() -> None:
    jitter = RandColourJitterd("image")
    jitter.set_random_state(7)
    drawn = []
    for _ in range(2000):
        jitter.randomize()
        drawn.append(jitter.factors)
    for step in zip(*drawn, strict=True):
        factors = np.array([factor for factor in step if factor is not None])
        # Five standard errors of a share of 0.7 over 2000 draws are 0.05, of a mean of uniform numbers 0.04.
        assert len(factors) / 2000 == pytest.approx(0.7, abs=0.05)
        assert factors.mean() == pytest.approx(1, abs=0.04)
        assert 0.5 <= factors.min() < 0.52
        assert 1.48 < factors.max() <= 1.5
    assert len({step is None for row in drawn for step in row}) == 2


def test_a_seed_repeats_and_probability_zero_changes_nothing(picture: np.ndarray) -> None:
    jitter = RandColourJitterd("image", 0.5, 0.9)
    first, second = (jitter.set_random_state(3)({"image": picture})["image"] for _ in range(2))  # type: ignore[index]
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(RandColourJitterd("image", prob=0)({"image": picture})["image"], picture)


@pytest.mark.parametrize(("strength", "prob"), [(-0.1, 0.5), (1.1, 0.5), (0.5, 2)])
def test_impossible_numbers_are_refused(strength: float, prob: float) -> None:
    with pytest.raises(SettingError, match="jitter"):
        RandColourJitterd("image", strength, prob)
