"""Networks as TorchScript, which bundles export and deploy.

torch 2.14 deprecates TorchScript; MONAI's ckpt_export still writes it.
"""

import io

import pytest
import torch
from torch import nn

from monai_ext.networks import HiEndMAE, HiEndReconstructor, HiEndSegmenter

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore:.torch.jit:DeprecationWarning")

IMAGE = torch.rand(2, 1, 16, 24, 20, generator=torch.Generator().manual_seed(0))
SIZES = {"image_size": (16, 24, 20), "patch_size": (8, 6, 5), "encoder_width": 12, "encoder_heads": 2}
SIZES |= {"encoder_depth": 4, "taps": (1, 2, 3)}  # compiling takes seconds per block


@pytest.fixture(autouse=True)
def _plain_execution():
    # Fusing and differentiating take seconds a network, and are torch's business.
    with torch.no_grad(), torch.jit.optimized_execution(False):
        yield


def through_a_file(network: nn.Module) -> nn.Module:
    """Script, save and load, as an export does."""
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(network), buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


def test_pretraining_network():
    network = HiEndMAE.tiny(**SIZES).eval()
    expected = network(IMAGE)
    scripted = through_a_file(network)
    found = scripted(IMAGE, expected.shuffle_indices)
    assert torch.equal(found.prediction, expected.prediction)
    assert torch.equal(found.target, expected.target)
    assert scripted(IMAGE).prediction.shape == expected.prediction.shape


def test_reconstructor_of_any_batch_size():
    network = HiEndReconstructor.tiny(**SIZES).eval()
    scripted = through_a_file(network)
    assert torch.equal(scripted(IMAGE), network(IMAGE))
    assert torch.equal(scripted(IMAGE[:1]), network(IMAGE[:1]))


@pytest.mark.parametrize("settings", [{}, {"published": True}, {"decoder_stride": 1}])
def test_segmenter(settings):
    network = HiEndSegmenter.tiny(3, **SIZES, **settings).eval()
    assert torch.equal(through_a_file(network)(IMAGE), network(IMAGE))


def test_scripted_network_still_says_what_is_wrong():
    scripted = torch.jit.script(HiEndSegmenter.tiny(3, **SIZES))
    with pytest.raises(torch.jit.Error, match=r"shape \[1, 1, 16, 24, 21\] is not \[batch\] \+ \[1, 16, 24, 20\]"):
        scripted(torch.zeros(1, 1, 16, 24, 21))
