import pytest
import torch

from monai_ext.base import SettingError
from monai_ext.networks import HiEndMAE, HiEndSegmenter, visible_count


@pytest.mark.parametrize("tokens", [7, 10, 27, 48, 60, 216, 512])
def test_visible_count_is_the_exact_share(tokens):
    for percent in range(1, 100):
        exact = tokens * (100 - percent) // 100
        if exact:
            assert visible_count(tokens, percent / 100) == exact


def test_published_count_loses_a_token_at_some_ratios():
    lost = [p for p in range(10, 90) if visible_count(10, p / 100, published=True) != visible_count(10, p / 100)]
    assert lost == [p for p in range(10, 90) if int(10 * (1 - p / 100)) != 10 * (100 - p) // 100]
    assert 80 in lost  # int(10 * (1 - 0.8)) is 1: one of the two visible patches is lost


@pytest.mark.parametrize("ratio", [0, 1, 0.0, 1.0, -0.25, 1.5, float("nan")])
def test_ratio_that_leaves_nothing_to_do(ratio):
    with pytest.raises(SettingError, match=r"mask_ratio: .* choose a share between 0 and 1"):
        HiEndMAE.tiny(mask_ratio=ratio)


def test_ratio_that_is_no_number():
    with pytest.raises(SettingError, match=r"mask_ratio: 'high'; give a share between 0 and 1"):
        visible_count(8, "high")


def test_ratio_that_leaves_no_whole_patch():
    with pytest.raises(SettingError, match=r"mask_ratio: 0.9 of 8 patches leaves 0 visible"):
        visible_count(8, 0.9)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"encoder_width": 0}, r"encoder_width: 0; give a whole number of at least 1"),
        ({"taps": 0}, r"taps: 0 must be rising block numbers"),
        ({"taps": "4,7,10"}, r"taps: '4,7,10' must be rising"),
        ({"taps": [1.5, 2]}, r"taps: \[1.5, 2\] must be rising"),
        ({"image_size": (48, 50, 48)}, r"axis y has 50 voxels, not a whole number of 8-voxel patches; use 48 or 56"),
        ({"image_size": (4, 48, 48)}, r"axis x has 4 voxels.*use 8 or 8"),
        ({"image_size": (48, 48)}, r"image_size: \(48, 48\) is not a size"),
        ({"patch_size": (8, 0, 8)}, r"patch_size: \(8, 0, 8\) is not a size"),
        ({"patch_size": 8.0}, r"patch_size: 8.0 is not a size"),
        ({"encoder_heads": 7}, "encoder_heads: a width of 96 cannot be shared by 7 heads"),
        ({"encoder_heads": 0}, "encoder_heads: 0; give a whole number of at least 1"),
        ({"encoder_width": 100}, "width: 100 is not a multiple of 6"),
        ({"in_channels": 0}, "in_channels: 0"),
        ({"encoder_depth": 0}, "encoder_depth: 0"),
        ({"encoder_depth": 9}, r"taps: \[4, 7, 10\] must be rising block numbers from 1 to 9"),
        ({"taps": (0, 7, 10)}, "taps: .* must be rising"),
        ({"taps": (7, 4, 10)}, "taps: .* must be rising"),
        ({"taps": ()}, "taps: .* must be rising"),
    ],
)
@pytest.mark.parametrize("build", [HiEndMAE.tiny, lambda **settings: HiEndSegmenter.tiny(3, **settings)])
def test_settings_that_do_not_fit_are_named(build, settings, sentence):
    with pytest.raises(SettingError, match=sentence), torch.device("meta"):
        build(**settings)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"decoder_heads": 5}, "decoder_heads: a width of 48 cannot be shared by 5 heads"),
        ({"decoder_width": 50, "decoder_heads": 5}, "width: 50 is not a multiple of 6"),
        ({"decoder_self_depth": -1}, "decoder_self_depth: -1 is negative"),
    ],
)
def test_decoder_settings_that_do_not_fit_are_named(settings, sentence):
    with pytest.raises(SettingError, match=sentence), torch.device("meta"):
        HiEndMAE.tiny(**settings)


def test_segmenter_needs_three_taps():
    with pytest.raises(SettingError, match=r"taps: \[4, 10\] are 2 blocks"), torch.device("meta"):
        HiEndSegmenter.tiny(3, taps=(4, 10))
