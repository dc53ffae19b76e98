import gc
import weakref

import pytest
import torch
from torch import nn

from monai_ext.networks import AAClip, AnomalyLocalizer, ClipModel, ImageSide, export_localizer


@pytest.fixture
def localizer(random_aa_clip, two_classes) -> AnomalyLocalizer:
    return AnomalyLocalizer(random_aa_clip, two_classes[0], "Medical").eval()


@pytest.fixture
def pictures() -> torch.Tensor:
    return torch.randn(3, 3, 35, 25, generator=torch.Generator().manual_seed(2))


def test_one_tensor_in_one_tensor_out(localizer, pictures):
    found = localizer(pictures)
    assert found.shape == (3, 1, 35, 25)
    assert torch.equal(found, localizer.localize(pictures).anomaly)
    assert not found.requires_grad


def test_anchors_follow_adapters_that_are_loaded_later(localizer, pictures):
    before, old = localizer(pictures), localizer.anchors()
    state = {name: torch.randn_like(value) for name, value in localizer.model.adapters.state_dict().items()}
    localizer.model.adapters.load_state_dict(state)
    assert not torch.allclose(localizer.anchors(), old)
    assert not torch.allclose(localizer(pictures), before)


def test_a_localizer_is_given_back_at_once(random_aa_clip, two_classes, pictures):
    """A CLIP takes 1.7 GB, which nobody should have to wait for the collector of cycles for."""
    localizer = AnomalyLocalizer(random_aa_clip, two_classes[0], replay=True).eval()
    localizer(pictures)
    gone = weakref.ref(localizer)
    gc.disable()
    try:
        del localizer
        assert gone() is None
    finally:
        gc.enable()


def test_the_domain_chooses_the_blur(random_aa_clip, two_classes, pictures):
    maps = [AnomalyLocalizer(random_aa_clip, two_classes[0], domain)(pictures) for domain in ("Medical", "Industrial")]
    assert not torch.allclose(*maps)


def test_the_exported_image_side_is_exact(localizer, pictures, tmp_path):
    path = tmp_path / "liver.pt2"
    export_localizer(localizer, path)
    program = torch.export.load(path).module()
    for batch in (1, 2, 3):
        maps, scores = program(pictures[:batch])
        eager = localizer.localize(pictures[:batch])
        assert torch.equal(maps, eager.anomaly)
        assert torch.equal(scores, eager.score)


def test_exporting_takes_no_text_tower_along_and_leaves_the_clip_alone(localizer, pictures):
    before = localizer(pictures)
    names = set(export_localizer(localizer).state_dict)
    assert "anchors" in names
    assert all(name.startswith(("visual.", "image_adapter.")) for name in names - {"anchors"})
    assert torch.equal(localizer(pictures), before)
    assert not any(part._forward_hooks for part in localizer.model.open_clip.modules())


def test_anchors_of_an_image_side_are_fixed(localizer, pictures):
    image_side = ImageSide(localizer)
    before = image_side(pictures)[0]
    nn.init.normal_(localizer.model.adapters.text_adapter[0].weight)
    assert torch.equal(image_side(pictures)[0], before)
    assert not torch.allclose(localizer(pictures), before)


def test_float64_works(random_aa_clip, two_classes, pictures):
    model = AAClip(ClipModel(random_aa_clip.open_clip.double()), levels=(2, 5))
    assert AnomalyLocalizer(model.double(), two_classes[0])(pictures.double()).dtype == torch.float64
