import pytest
import torch
from torch.testing import assert_close

from monai_ext.networks import HiEndMAE, HiEndReconstructor, denormalise_patches

SMALL = {"encoder_width": 24, "encoder_depth": 3, "encoder_heads": 2, "taps": (1, 3), "decoder_width": 12}
SMALL |= {"decoder_heads": 3, "decoder_self_depth": 1, "in_channels": 2, "mask_ratio": 0.6}
SIZES = ((8, 10, 21), (4, 5, 3))


@pytest.fixture
def image() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.rand(3, 2, 8, 10, 21)


def test_visible_patches_are_as_given_and_masked_ones_reconstructed(image):
    network = HiEndReconstructor(*SIZES, **SMALL)
    restored = network.fold(network(image))
    patches, order = network.fold(image), network.shuffle.expand(3, -1)
    predicted = denormalise_patches(network.predict(patches, order), patches)
    visible = set(network.shuffle[0, : network.visible].tolist())
    assert 0 < len(visible) < network.tokens
    for number in range(network.tokens):
        expected = patches if number in visible else predicted
        assert torch.equal(restored[:, number], expected[:, number])


def test_constant_patches_come_back_constant():
    network = HiEndReconstructor(*SIZES, **SMALL)
    restored = network(torch.full((1, 2, 8, 10, 21), 0.625))
    assert (restored - 0.625).abs().max() < 0.02  # predictions of a few units times sqrt(1e-6)


def test_the_exact_prediction_gives_the_exact_image(image, monkeypatch):
    from monai_ext.networks import normalise_patches

    network = HiEndReconstructor(*SIZES, **SMALL)
    monkeypatch.setattr(network, "predict", lambda patches, order: normalise_patches(patches))
    assert_close(network(image), image, rtol=0, atol=3e-7)  # rounding of numbers up to 1
    network.published = True
    assert (network(image) - image).abs().max() > 1e-3


def test_hidden_patches_depend_on_the_seed_alone(image):
    torch.manual_seed(1)
    first = HiEndReconstructor(*SIZES, **SMALL)
    torch.manual_seed(2)
    second, other = HiEndReconstructor(*SIZES, **SMALL), HiEndReconstructor(*SIZES, mask_seed=7, **SMALL)
    assert torch.equal(first.shuffle, second.shuffle)
    assert not torch.equal(first.shuffle, other.shuffle)
    assert torch.equal(first(image), first(image))
    assert_close(first(image[1:2]), first(image)[1:2], rtol=0, atol=1e-5)  # batches of any size


def test_weights_are_those_of_the_pretraining_network():
    network, pretrained = HiEndReconstructor.tiny(), HiEndMAE.tiny()
    assert list(network.state_dict()) == list(pretrained.state_dict())
    network.load_state_dict(pretrained.state_dict())
