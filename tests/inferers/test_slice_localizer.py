"""Slices of a volume through a network and back: the windows, the smoothing, the air."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from monai_ext.base import ScanError, SettingError
from monai_ext.inferers import SliceLocalizer
from monai_ext.transforms import ClipPicture

SHAPE = (13, 11, 7)


def localizer(size: tuple[int, int] = (11, 13), **settings: Any) -> SliceLocalizer:
    picture = ClipPicture(size, (0.0,) * 3, (1.0,) * 3)
    return SliceLocalizer(picture, **{"window_hu": [0, 255], **settings})


def mirror(images: Tensor) -> Tensor:
    return images[:, :1]


def volume(seed: int = 1) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (1, *SHAPE)).astype(np.float32))


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_what_is_not_resized_comes_back_voxel_by_voxel(batch_size: int) -> None:
    hu = volume()
    found = localizer(batch_size=batch_size)(hu, mirror)
    np.testing.assert_allclose(found.anomaly, hu[0] / 255, atol=1e-6)
    assert np.isnan(found.detection)


def test_slices_are_shown_as_radiologists_see_them() -> None:
    hu = torch.zeros(1, *SHAPE)
    hu[0, -1, -1, 2] = 255  # furthest to the right and to the front
    seen = []

    def network(images: Tensor) -> Tensor:
        seen.append(images)
        return images[:, :1]

    localizer()(hu, network)
    assert seen[0][2, 0, 0, 0] == 1  # top left: front, and the right as one faces the patient
    for views, size, corner in (("coronal", (7, 13), 10), ("sagittal", (7, 11), 12)):
        seen.clear()
        hu = torch.zeros(1, *SHAPE)
        hu[0, 12, 10, 6] = 255
        localizer(size, views=[views], batch_size=13)(hu, network)
        assert seen[0][corner, 0, 0, 0] == 1  # head at the top


def test_views_are_averaged() -> None:
    hu = volume()
    calls = []

    def network(images: Tensor) -> Tensor:
        calls.append(tuple(images.shape))
        return torch.full_like(images[:, :1], float(len(calls)))

    found = localizer(views=["axial", "coronal", "sagittal"], batch_size=99)(hu, network)
    assert [shape[0] for shape in calls] == [7, 11, 13]
    np.testing.assert_allclose(found.anomaly, 2, rtol=1e-6)  # maps of one value are resized


def test_smoothing_is_in_mm_and_across_slices_alone() -> None:
    hu = volume()
    found = localizer(smooth_mm=4.0)(hu, mirror, (0.7, 0.7, 2.5))
    expected = ndimage.gaussian_filter1d(hu[0].numpy() / 255, 4 / 2.5, axis=2, mode="nearest")
    np.testing.assert_allclose(found.anomaly, expected, atol=1e-6)


def test_air_is_passed_over_on_request() -> None:
    hu = volume()
    hu[..., :2] = -1000
    hu[0, 3, 3, 1] = 50  # a speck, less than a hundredth of the slice
    count = []

    def network(images: Tensor) -> Tensor:
        count.append(len(images))
        return images[:, :1] + 1

    found = localizer(skip_background=True)(hu, network)
    assert (sum(count), found.skipped) == (5, 2)
    assert bool((found.anomaly[..., :2] == found.anomaly[..., 2:].min()).all())
    assert localizer()(hu, network).skipped == 0
    with pytest.raises(ScanError, match=r"ct_7: no body found, .*set skip_background to false") as caught:
        localizer(skip_background=True)(torch.full((1, *SHAPE), -1000.0), mirror, case="ct_7")
    assert caught.value.code == "scan.no_body"


def test_what_lies_outside_the_body_holds_nothing() -> None:
    hu = torch.full((1, 40, 40, 9), -1000.0)
    hu[0, 8:32, 8:32] = 40
    hu[0, 16:24, 16:24] = -900  # lung, which belongs to it

    def outside_bright(images: Tensor) -> Tensor:
        return 1 - images[:, :1]

    spacing = (4.5, 4.5, 4.5)  # cells of the mask are voxels
    found = localizer((40, 40), window_hu=[-1000, 250], body_only=True)(hu, outside_bright, spacing).anomaly
    plain = localizer((40, 40), window_hu=[-1000, 250])(hu, outside_bright, spacing).anomaly
    inside = torch.zeros(40, 40, 9, dtype=torch.bool)
    inside[8:32, 8:32] = True
    np.testing.assert_array_equal(found[inside], plain[inside])
    assert bool((found[~inside] == plain[inside].min()).all())
    assert plain.argmax() != found.argmax()
    with pytest.raises(ScanError, match="set body_only to false"):
        localizer((40, 40), body_only=True)(hu - 1000, outside_bright, spacing)


def test_windows_are_eight_bits_clipped() -> None:
    hu = torch.tensor([-2000.0, -45, 30, 105, 3000]).reshape(1, 5, 1, 1).expand(1, 5, 4, 3).contiguous()
    found = localizer((4, 5), window_hu="liver")(hu, mirror)
    np.testing.assert_allclose(found.anomaly[:, 0, 0], [0, 0, 128 / 255, 1, 1], atol=1e-6)


def test_levels_become_mean_log_odds() -> None:
    class Two:
        def localize(self, images: Tensor) -> SimpleNamespace:
            # Logits of 3 and 5 for abnormal over normal: (3 + 1) / 2 + (5 + 1) / 2.
            anomaly = torch.full((len(images), 1, *images.shape[2:]), 5.0)
            return SimpleNamespace(anomaly=anomaly, levels=[0, 0], score=torch.linspace(0.2, 0.6, len(images)))

    found = localizer()(volume(), Two())
    assert bool((found.anomaly == 4).all())
    assert found.detection == pytest.approx(0.6)
    picture = localizer()(torch.zeros(3, 17, 19, dtype=torch.uint8), Two())
    assert picture.anomaly.shape == (17, 19)
    assert localizer(own_grid=False)(torch.zeros(3, 17, 19, dtype=torch.uint8), Two()).anomaly.shape == (11, 13)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite(value: float) -> None:
    def broken(images: Tensor) -> Tensor:
        out = images[:, :1].clone()
        out[0, 0, 0, 0] = value
        return out

    with pytest.raises(ScanError, match="ct_7: the network returned numbers that are not finite"):
        localizer()(volume(), broken, case="ct_7")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"views": ["axial", "frontal"]}, r"views: \['axial', 'frontal'\]; give one or more of axial, coronal"),
        ({"views": []}, "views"),
        ({"views": ["axial", "axial"]}, "each once"),
        ({"window_hu": "spleen"}, "window_hu: 'spleen' is no preset; choose abdomen, liver, lung, bone, brain"),
        ({"window_hu": [5, 5]}, "window_hu"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 1.5}, "batch_size is 1.5"),
        ({"batch_size": "8"}, "batch_size is '8'"),
        ({"smooth_mm": None}, "batch_size is 8 and smooth_mm is None"),
        ({"views": 3}, "views: 3; give one or more of axial"),
        ({"smooth_mm": -1}, "smooth_mm is -1"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        localizer(**settings)


@pytest.mark.parametrize("spacing_mm", [(0, 1, 1), (1, 1), None, (1, 1, float("nan"))])
def test_a_spacing_that_is_none_is_refused(spacing_mm: Any) -> None:
    with pytest.raises(SettingError, match=r"^spacing_mm: .* is not a voxel size; give three edges in mm$"):
        localizer(smooth_mm=2.0)(volume(), mirror, spacing_mm)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_voxels_without_a_value_are_no_grey(value: float) -> None:
    hu = volume()
    hu[0, 3, 5, 2] = value
    with pytest.raises(ScanError, match=r"^head: some voxels are NaN or infinite; export the scan again$"):
        localizer(skip_background=True)(hu, mirror, case="head")
