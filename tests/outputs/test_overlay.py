"""The overlay: sides, lengths and names, tried on volumes whose answer is known."""

from pathlib import Path

import matplotlib
import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from monai_ext.base import SettingError, WriteError
from monai_ext.outputs import overlay_png
from monai_ext.outputs.overlay import _color, _painted
from monai_ext.outputs.overlay_planes import VIEWS, labelled_center_mm, planes_through

SHAPE = (29, 31, 17)
RED, GREEN, BLUE = 1, 2, 3


def affine_of(axes: str, degrees: float = 0.0) -> np.ndarray:
    turn = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(tuple(axes)), (1, 1, 1))
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ turn[:3, :3] * (1.1, 1.3, 2.9)
    affine[:3, 3] = 40.0, -70.0, 300.0
    return affine


def patient(affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a scan that brightens to the patient's left, and balls on the right, in front and above."""
    grid = np.moveaxis(np.indices(SHAPE), 0, -1) @ affine[:3, :3].T
    grid = grid - affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    labels = np.zeros(SHAPE, np.uint8)
    for number, place in ((RED, (9, 0, 0)), (GREEN, (0, 9, 0)), (BLUE, (0, 0, 9))):
        labels[np.linalg.norm(grid - place, axis=-1) < 5] = number
    labels[np.linalg.norm(grid, axis=-1) < 4] = 4
    return -10.0 * grid[..., 0], labels


@pytest.mark.parametrize("degrees", [0.0, 15.0])
@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "PIR", "SLP"])
def test_sides_are_radiological_whatever_the_orientation(axes, degrees):
    affine = affine_of(axes, degrees)
    scan, labels = patient(affine)
    center = affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2) + affine[:3, 3]
    # Where each ball must appear: axis of the picture (0 down, 1 across), and the sign of its offset there.
    expected = {
        ("axial", RED): (1, -1),
        ("axial", GREEN): (0, -1),
        ("coronal", RED): (1, -1),
        ("coronal", BLUE): (0, -1),
        ("sagittal", GREEN): (1, -1),
        ("sagittal", BLUE): (0, -1),
    }
    for view, plane in zip(VIEWS, planes_through(center, SHAPE, affine), strict=True):
        ids, grey = plane.sample(labels, affine, 0, 0), plane.sample(scan, affine, 1, 0)
        middle = (np.array(ids.shape) - 1) / 2
        for (name, number), (axis, sign) in expected.items():
            if name == view.name:
                offset = np.argwhere(ids == number).mean(axis=0) - middle
                assert np.sign(offset[axis]) == sign
                assert abs(offset[1 - axis]) < 0.1 * abs(offset[axis])
        half = ids.shape[1] // 2
        if view.name != "sagittal":
            assert grey[:, half:].mean() > 50 > -50 > grey[:, :half].mean()


def test_lengths_are_true():
    affine = affine_of("LPS", 15.0)
    _, labels = patient(affine)
    center = affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2) + affine[:3, 3]
    for plane in planes_through(center, SHAPE, affine):
        ids = plane.sample(labels, affine, 0, 0)
        pixel_mm = plane.size_mm[0] / ids.shape[1]
        assert pixel_mm == pytest.approx(plane.size_mm[1] / ids.shape[0])
        extent_mm = np.ptp(np.argwhere(ids == 4), axis=0) * pixel_mm
        # The ball of 4 mm radius, sampled with voxels of up to 2.9 mm.
        assert extent_mm == pytest.approx([8, 8], abs=2.9)


def test_sampling_is_that_of_the_affine():
    """A linear volume sampled linearly gives its formula at every pixel inside."""
    affine = affine_of("PIR", 15.0)
    grid = np.moveaxis(np.indices(SHAPE), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    volume = grid @ (2.0, -3.0, 5.0)
    center = grid.reshape(-1, 3).mean(axis=0)
    for plane in planes_through(center, SHAPE, affine):
        values = plane.sample(volume, affine, 1, np.nan)
        index = np.einsum("ij,jyx->iyx", np.linalg.inv(affine)[:3, :3], plane.ras_mm - affine[:3, 3, None, None])
        inside = ((index >= 0) & (index <= np.array(SHAPE)[:, None, None] - 1)).all(axis=0)
        expected = np.einsum("i,iyx->yx", (2.0, -3.0, 5.0), plane.ras_mm)
        np.testing.assert_allclose(values[inside], expected[inside], rtol=0, atol=1e-9)
        assert np.isnan(values[(index < -0.51).any(axis=0)]).all()


def test_center_is_a_labelled_voxel():
    labels = np.zeros((20, 5, 5), np.uint8)
    labels[2, 1, 1], labels[18, 3, 3], labels[3, 1, 1] = 1, 1, 1
    affine = np.diag([2.0, 3.0, 5.0, 1.0])
    np.testing.assert_array_equal(labelled_center_mm(labels, affine), (6, 3, 5))
    np.testing.assert_array_equal(labelled_center_mm(labels * 0, affine), (19, 6, 10))


def test_paint():
    ids = np.zeros((7, 9), int)
    ids[2:5, 2:7] = 3
    picture = _painted(np.full(ids.shape, 0.5), ids, {3: np.array([1.0, 0.0, 0.0])})
    np.testing.assert_allclose(picture[0, 0], 0.5)
    np.testing.assert_allclose(picture[2, 2], (1, 0, 0))  # outline
    np.testing.assert_allclose(picture[3, 4], (0.675, 0.325, 0.325))  # inside, the scan shows through


def test_colours_of_60_labels_differ():
    colors = np.array([_color(place) for place in range(60)])
    apart = np.linalg.norm(colors[:, None] - colors[None], axis=-1) + 9 * np.eye(60)
    assert apart.min() > 0.02
    assert np.min([apart[k, k + 1] for k in range(59)]) > 0.5


def save(path: Path, **changes: object) -> np.ndarray:
    affine = affine_of("LPS")
    scan, labels = patient(affine)
    settings = {"image": scan, "labels": labels, "names": {RED: "right", GREEN: "front"}, "affine": affine}
    overlay_png(path, **(settings | {"title": "case_7"} | changes))
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_a_picture_with_all_colours(tmp_path):
    picture = save(tmp_path / "a.png")
    assert 1200 < max(picture.shape) < 1300
    for place in range(4):
        color = (255 * _color(place)).round()
        assert (np.abs(picture - color).max(axis=-1) <= 2).sum() > 60
    assert (picture.max(axis=(0, 1)) == 255).all()


def test_no_label_and_an_image_of_its_own_grid(tmp_path):
    affine = affine_of("LPS")
    scan, labels = patient(affine)
    coarse = affine.copy()
    coarse[:3, :3] *= 2
    picture = save(tmp_path / "a.png", image=scan[::2, ::2, ::2], image_affine=coarse, labels=labels * 0)
    # Both lie in the same place, so the pictures agree but for the resolution.
    fine = save(tmp_path / "b.png", labels=labels * 0)
    assert np.abs(picture.astype(int) - fine).mean() < 3


@pytest.mark.parametrize("shape", [(2, 2, 2), (3, 200, 2), (2, 3, 400)])
def test_odd_shapes(tmp_path, shape):
    labels = np.arange(np.prod(shape)).reshape(shape) % 70
    overlay_png(tmp_path / "a.png", labels * 1.0, labels, {}, np.diag([1, 2, 3, 1.0]))
    with Image.open(tmp_path / "a.png") as picture:
        assert 200 < min(picture.size) < max(picture.size) < 1600


def test_nothing_global_changes(tmp_path):
    before = dict(matplotlib.rcParams)
    save(tmp_path / "a.png")
    assert dict(matplotlib.rcParams) == before


def test_failures_leave_nothing(tmp_path, monkeypatch):
    with pytest.raises(SettingError, match="window"):
        save(tmp_path / "a.png", window=(5, 5))
    monkeypatch.setattr(
        "monai_ext.outputs.overlay.FigureCanvasAgg.print_png", lambda self, path: Path(path).write_bytes(b"PNG?")
    )
    with pytest.raises(WriteError, match=r"a\.png: the picture could not be read back"):
        save(tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
