import io

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from monai_ext.base import LabelError, SettingError
from monai_ext.transforms import ClipMask, ClipMaskd, ClipPicture, ClipPictured

NONE = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (23, 17, 3), dtype=np.uint8)


def test_the_recorded_picture_and_mask(shared_goldens):
    recorded = load_file(shared_goldens / "aa_clip" / "preprocess.safetensors")
    # Pillow resizes in whole numbers, so nothing may differ.
    assert torch.equal(ClipPicture(70)(recorded["pre.image_u8"].numpy()), recorded["pre.image_out"])
    assert torch.equal(ClipMask(70)(recorded["pre.mask_u8"].numpy()), recorded["pre.mask_out"])


def test_the_size_is_height_and_width(picture):
    assert ClipPicture((11, 29))(picture).shape == (3, 11, 29)
    assert ClipMask((11, 29))(picture[..., 0] // 128).shape == (1, 11, 29)


def test_colours_are_normalised_one_by_one(picture):
    found = ClipPicture((23, 17), (0.1, 0.2, 0.3), (0.5, 0.25, 2.0))(picture)
    for channel, (mean, std) in enumerate(((0.1, 0.5), (0.2, 0.25), (0.3, 2.0))):
        expected = (torch.from_numpy(picture[..., channel] / 255) - mean) / std
        torch.testing.assert_close(found[channel].double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "I;16", "1"])
def test_pictures_of_other_kinds_become_rgb(picture, mode):
    grey = Image.fromarray(picture[..., 0])
    if mode == "I;16":
        image = Image.fromarray(picture[..., 0].astype(np.uint16) * 257)
        assert image.mode == "I;16"
        expected = grey
    else:
        image = grey.convert(mode) if mode != "RGBA" else Image.fromarray(picture).convert("RGBA")
        expected = image
    found = ClipPicture((23, 17), **NONE)(image)
    assert torch.equal(found, ClipPicture((23, 17), **NONE)(expected.convert("RGB")))
    if mode == "RGBA":
        assert torch.equal(found, ClipPicture((23, 17), **NONE)(picture))


def test_masks_keep_no_value_but_1(picture):
    kinds = (picture[..., 0] % 3).astype(np.uint8)  # 0, and two kinds of defect
    found = ClipMask((23, 17))(kinds)
    assert found.dtype == torch.uint8
    assert torch.equal(found[0].bool(), torch.from_numpy(kinds != 0))


def test_a_mask_that_was_stored_with_loss_is_refused():
    mask = np.zeros((40, 40), np.uint8)
    mask[10:31, 7:23] = 255
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "JPEG")
    with pytest.raises(LabelError, match=r"mask: \d+ different values, so it was stored with loss; .* as PNG"):
        ClipMask(20)(Image.open(file))


@pytest.mark.parametrize(
    "array",
    [np.zeros((3, 5, 5), np.uint8), np.zeros((5, 5), np.float32), np.zeros((5, 5, 4), np.uint8), np.zeros(5, np.uint8)],
)
def test_arrays_of_another_form_are_refused(array):
    with pytest.raises(SettingError, match=r"picture: .* of shape .* is none; give uint8"):
        ClipPicture(20)(array)


def test_a_picture_without_a_range_is_refused():
    with pytest.raises(SettingError, match=r"picture: mode F of Pillow has no range of its own"):
        ClipPicture(20)(Image.fromarray(np.zeros((5, 5), np.float32)))


def test_dictionary_forms_do_the_same(picture):
    data = {"image": picture, "mask": picture[..., 0] // 128, "other": 3}
    out = ClipMaskd("mask", 20)(ClipPictured("image", 20)(data))
    assert torch.equal(out["image"], ClipPicture(20)(picture))
    assert torch.equal(out["mask"], ClipMask(20)(picture[..., 0] // 128))
    assert out["other"] == 3
    assert data["image"] is picture
