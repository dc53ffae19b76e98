import pytest
import torch
from torch.testing import assert_close

from monai_ext.networks import denormalise_patches, normalise_patches


@pytest.fixture
def patches() -> torch.Tensor:
    torch.manual_seed(3)
    patches = torch.rand(2, 5, 37)
    patches[0, 1] = 0.25  # air, a clipped window
    patches[1, 3] = 1.0
    patches[1, 4] = 0.5 + 0.002 * torch.rand(37)
    return patches


def test_target_is_the_definition(patches):
    target = normalise_patches(patches)
    for sample in patches.double():
        for patch in sample:
            mean = sum(patch) / 37
            variance = sum((value - mean) ** 2 for value in patch) / 37
            found = (patch - mean) / (variance + 1e-6) ** 0.5
            # A spread of 1e-3 enlarges float32 rounding of the mean (6e-8) a thousandfold.
            assert (target - found.float()).abs().amin(dim=(0, 1)).max() < 1e-4


def test_inverse_is_exact_even_on_constant_patches(patches):
    restored = denormalise_patches(normalise_patches(patches), patches)
    assert_close(restored, patches, rtol=0, atol=2e-7)  # two roundings of numbers up to 1


def test_published_inverse_shrinks_what_is_predicted_on_constant_patches(patches):
    prediction = torch.full_like(patches, 0.7)
    ours = denormalise_patches(prediction, patches) - patches.mean(-1, keepdim=True)
    theirs = denormalise_patches(prediction, patches, published=True) - patches.mean(-1, keepdim=True)
    assert_close(ours[0, 1], torch.full((37,), 0.7e-3), rtol=0, atol=1e-7)
    assert_close(theirs[0, 1], torch.full((37,), 0.7e-6), rtol=0, atol=1e-7)


def test_half_precision_is_computed_in_single(patches):
    assert normalise_patches(patches.bfloat16()).dtype == torch.float32
    assert normalise_patches(patches.double()).dtype == torch.float64
