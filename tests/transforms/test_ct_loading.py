"""The chain to the network and back: numbers on the way there, the scan's own grid on the way back."""

from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Invertd

from monai_ext.base import SettingError, window_hu
from monai_ext.transforms import load_ct

SHAPE = (17, 19, 23)
SPACING = (1.1, 1.9, 2.7)


def affine_of(axes: str, degrees: float) -> np.ndarray:
    """Return an affine whose array axes run as named and are then turned about two patient axes."""
    turn = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(tuple(axes)), (1, 1, 1))
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    about_z = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    affine = np.eye(4)
    affine[:3, :3] = about_x @ about_z @ turn[:3, :3] * SPACING
    affine[:3, 3] = -31.0, 17.0, 53.0
    return affine


def balls(affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a CT of soft tissue in air, and labels of two balls that no mirror or swap leaves in place."""
    grid = np.moveaxis(np.indices(SHAPE), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    middle = affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2) + affine[:3, 3]
    far = [np.linalg.norm(grid - middle - shift, axis=-1) for shift in ((-3, 2, 1), (4, -3, -5))]
    labels = np.where(far[0] < 6, 1, np.where(far[1] < 4, 2, 0)).astype(np.uint8)
    voxels = np.array([-1000, 60, 150])[labels] + np.random.default_rng(0).normal(0, 5, SHAPE)
    return voxels.astype(np.float32), labels


def write(path: Path, voxels: np.ndarray, affine: np.ndarray) -> Path:
    image = nib.Nifti1Image(voxels, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    nib.save(image, path)
    return path


ORIENTATIONS = ["".join(axes) for order in permutations(("RL", "AP", "SI")) for axes in product(*order)]


def there_and_back(folder: Path, axes: str, degrees: float) -> None:
    affine = affine_of(axes, degrees)
    voxels, labels = balls(affine)
    entry = {"image": write(folder / "ct.nii", voxels, affine), "label": write(folder / "seg.nii", labels, affine)}
    stored = nib.load(folder / "ct.nii").affine  # float32, as the file has it
    chain = load_ct(label_keys="label", classes=[1, 2])
    out = chain(entry)
    assert out["image"].shape == out["label"].shape
    assert nib.aff2axcodes(out["image"].affine.numpy()) == ("R", "A", "S")
    np.testing.assert_allclose(np.linalg.norm(out["image"].affine.numpy()[:3, :3], axis=0), 1.5, rtol=1e-6)
    for number in (1, 2):  # half a voxel of the coarser axis is 1.35 mm
        assert (
            np.linalg.norm(
                center(out["label"][0].numpy() == number, out["label"].affine.numpy())
                - center(labels == number, stored)
            )
            < 0.7
        )
    # A network answers with logits on the image's grid, without its metadata.
    one_hot = torch.nn.functional.one_hot(out["label"][0].as_tensor().long(), 3)
    out["pred"] = MetaTensor(one_hot.movedim(-1, 0).float())
    back = Invertd("pred", chain, orig_keys="image", nearest_interp=False)(out)["pred"]
    assert tuple(back.shape) == (3, *SHAPE)
    np.testing.assert_allclose(back.affine.numpy(), stored, rtol=0, atol=1e-12)  # float64 rounding
    assert back.meta["case"] == "ct"
    found = back.argmax(0).numpy()
    for number in (1, 2):
        assert np.linalg.norm(center(found == number, stored) - center(labels == number, stored)) < 0.7
        both = np.sum((found == number) & (labels == number))
        assert 2 * both / (np.sum(found == number) + np.sum(labels == number)) > 0.85


def center(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return affine[:3, :3] @ np.argwhere(mask).mean(axis=0) + affine[:3, 3]


@pytest.mark.parametrize("degrees", [0.0, 21.0])
@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "PIR", "SRA"])
def test_there_and_back(tmp_path, axes, degrees):
    there_and_back(tmp_path, axes, degrees)


@pytest.mark.full
@pytest.mark.parametrize("degrees", [0.0, 7.0, 21.0])
@pytest.mark.parametrize("axes", ORIENTATIONS)
def test_all_48_orientations_there_and_back(tmp_path, axes, degrees):
    there_and_back(tmp_path, axes, degrees)


def test_there_are_48_orientations():
    assert len(set(ORIENTATIONS)) == 48


def test_the_window_is_the_one_of_base(tmp_path):
    affine = np.diag([1.5, 1.5, 1.5, 1])
    voxels, _ = balls(affine)
    image = load_ct(window_hu=(-150, 250))({"image": write(tmp_path / "ct.nii", voxels, affine)})["image"]
    # No resampling at the scan's own spacing, so the numbers are the window's alone; float32 rounding.
    np.testing.assert_allclose(image[0].numpy(), window_hu(torch.from_numpy(voxels), (-150, 250)), atol=1e-6)
    assert (image.dtype, float(image.min()), float(image.max())) == (torch.float32, 0.0, float(image.max()))


def test_a_linear_ramp_stays_linear(tmp_path):
    """Linear resampling reproduces a linear function exactly: HU = 40 x_mm + 10 y_mm - 25 z_mm - 600."""
    affine = affine_of("LPS", 0.0)
    grid = np.moveaxis(np.indices(SHAPE), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    slope, base = np.array([40, 10, -25]), -600.0
    voxels = np.clip(grid - grid.mean(axis=(0, 1, 2)), -12, 12) @ slope + base
    middle = grid.mean(axis=(0, 1, 2))
    entry = {"image": write(tmp_path / "ct.nii", voxels.astype(np.float32), affine)}
    image = load_ct(window_hu=(-3000, 3000), spacing_mm=(1.0, 1.3, 2.0))(entry)["image"]
    points = np.moveaxis(np.indices(image.shape[1:]), 0, -1) @ image.affine.numpy()[:3, :3].T
    points = points + image.affine.numpy()[:3, 3] - middle
    inside = (np.abs(points) < 8).all(axis=-1)
    expected = points @ slope + base
    assert inside.sum() > 500
    # float32 positions, 1e-4 of a voxel and 108 HU a voxel.
    np.testing.assert_allclose((image[0].numpy() * 6000 - 3000)[inside], expected[inside], atol=0.05)


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 2, 2), (40, 3, 2)])
def test_tiny_scans_go_there_and_back(tmp_path, shape):
    voxels = np.full(shape, -1000, np.int16)
    voxels[-1] = 40
    chain = load_ct(spacing_mm=(3, 3, 3))
    out = chain({"image": write(tmp_path / "ct.nii", voxels, np.diag([-0.7, 0.8, 0.9, 1]))})
    assert min(out["image"].shape) >= 1
    out["pred"] = MetaTensor(out["image"].as_tensor())
    back = Invertd("pred", chain, orig_keys="image", nearest_interp=False)(out)["pred"]
    assert tuple(back.shape) == (1, *shape)


def test_a_real_series_there_and_back(shared_ct):
    chain = load_ct(label_keys="label", spacing_mm=(4, 4, 4))
    folder = shared_ct / "dicom_jpeg2000"
    out = chain({"image": folder, "label": shared_ct / "dicom_jpeg2000_organs.nii.gz"})
    liver, tissue = out["label"][0] == 5, window_hu(torch.tensor([0.0, 200.0]), (-175, 250))
    assert tissue[0] < out["image"][0][liver].mean() < tissue[1]
    out["pred"] = MetaTensor(out["image"].as_tensor())
    back = Invertd("pred", chain, orig_keys="image", nearest_interp=False)(out)["pred"]
    assert tuple(back.shape) == (1, 512, 512, 20)
    torch.testing.assert_close(back.affine, back.meta["original_affine"], rtol=0, atol=0)


def test_references_may_stay_on_the_scans_own_grid(tmp_path):
    affine = affine_of("LPS", 21.0)
    voxels, labels = balls(affine)
    entry = {"image": write(tmp_path / "ct.nii", voxels, affine), "ref": write(tmp_path / "s.nii", labels, affine)}
    out = load_ct(native_label_keys="ref")(entry)
    np.testing.assert_array_equal(out["ref"][0].numpy(), labels)
    assert out["image"].shape[1:] != out["ref"].shape[1:]


@pytest.mark.parametrize("spacing", [(1.5, 1.5), (1.5, 0, 1.5), (1, 1, float("nan")), (-1, 1, 1), (1, 1, 1000), 1.5])
def test_impossible_spacing(spacing):
    with pytest.raises(SettingError, match=r"^spacing_mm: .* is not a voxel size; give three edges from 0\.01"):
        load_ct(spacing_mm=spacing)


def test_impossible_window():
    with pytest.raises(SettingError, match=r"^window_hu: "):
        load_ct(window_hu=(250, -175))
