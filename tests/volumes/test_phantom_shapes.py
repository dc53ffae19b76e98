"""Implicit shapes against closed forms and naive sums; the canvas's partial volume."""

import numpy as np
import pytest

from monai_ext.volumes.phantom_shapes import Canvas, Region, blend, capsule, ellipsoid, smooth_field


@pytest.fixture
def canvas() -> Canvas:
    """A canvas without bends or shift, 59 x 53 x 47 voxels of 1.5 x 1.25 x 2 mm."""
    generator = np.random.default_rng(0)
    return Canvas((59, 53, 47), (1.5, 1.25, 2.0), (1, 1, 1), (0, 0, 0), 0.0, generator)


def at_points(*points: tuple[float, float, float]) -> Region:
    x, y, z = np.array(points, np.float32).T.reshape(3, -1, 1, 1)
    return Region((slice(None),) * 3, x, y, z)


def test_painted_volume_is_the_closed_form(canvas: Canvas) -> None:
    canvas.paint(canvas.whole, ellipsoid(canvas.whole, (1, -2, 3), (23, 17, 29)), 0.0, 3)
    voxel_mm3 = 1.5 * 1.25 * 2
    filled_mm3 = ((canvas.hu + 1000) / 1000).sum() * voxel_mm3
    exact_mm3 = 4 / 3 * np.pi * 23 * 17 * 29
    assert filled_mm3 == pytest.approx(exact_mm3, rel=0.005)  # the distance is of first order
    assert (canvas.labels == 3).sum() * voxel_mm3 == pytest.approx(exact_mm3, rel=0.02)


def test_turned_ellipsoid_lies_along_the_turned_axis() -> None:
    quarter = float(np.pi / 2)
    points = at_points((0, 7, 0), (7, 0, 0), (0, 0, 2))
    along_y = ellipsoid(points, (0, 0, 0), (7, 3, 2), (0, 0, quarter)).ravel()
    assert along_y[0] == pytest.approx(0, abs=1e-5)  # float32
    assert along_y[1] > 3
    assert along_y[2] == pytest.approx(0, abs=1e-5)


def test_capsule_is_the_distance_to_its_axis() -> None:
    start, end = (1.0, 2.0, 3.0), (7.0, -1.0, 5.0)
    generator = np.random.default_rng(1)
    points = generator.uniform(-9, 9, (31, 3))
    found = capsule(at_points(*map(tuple, points)), start, end, 2.0, 2.0).ravel()
    steps = np.linspace(start, end, 4001)
    naive = np.linalg.norm(points[:, None] - steps, axis=2).min(1) - 2
    assert found == pytest.approx(naive, abs=2e-3)  # the naive axis has steps of 0.002 mm


def test_capsule_without_length_is_a_ball() -> None:
    place = (1.0, -2.0, 3.0)
    points = at_points((4.0, 2.0, 3.0), (1.0, -2.0, 3.0), (1.0, -2.0, 13.0))
    assert capsule(points, place, place, 2.0, 7.0).ravel() == pytest.approx([3.0, -2.0, 8.0])


def test_blend_adds_only_in_the_fillet() -> None:
    first = np.array([5.0, -1.0, 0.5], np.float32)
    second = np.array([50.0, -30.0, 0.5], np.float32)
    assert blend(first, second, 8.0) == pytest.approx([5.0, -30.0, 0.5 - 8 / 4])


def test_later_paint_covers_earlier_labels_but_vessels_keep_them(canvas: Canvas) -> None:
    ball = ellipsoid(canvas.whole, (0, 0, 0), (11, 11, 11))
    canvas.paint(canvas.whole, ball, 60.0, 1)
    canvas.paint(canvas.whole, ball + 5, 150.0, None)
    middle = tuple(n // 2 for n in canvas.hu.shape)
    assert (canvas.hu[middle], canvas.labels[middle]) == (150.0, 1)
    canvas.paint(canvas.whole, ball + 5, -100.0)
    assert canvas.labels[middle] == 0


def test_a_box_paints_what_the_whole_would(canvas: Canvas) -> None:
    other = Canvas((59, 53, 47), (1.5, 1.25, 2.0), (1, 1, 1), (0, 0, 0), 0.0, np.random.default_rng(0))
    tube = (-9.0, 4.0, -7.0), (12.0, 8.0, 6.0)
    box = canvas.around(tube, 5)
    assert box.x.size < canvas.whole.x.size / 3
    canvas.paint(box, capsule(box, *tube, 5.0, 3.0), 40.0, 2)
    other.paint(other.whole, capsule(other.whole, *tube, 5.0, 3.0), 40.0, 2)
    assert np.array_equal(canvas.hu, other.hu)
    assert np.array_equal(canvas.labels, other.labels)


def test_bends_are_smooth_and_bounded() -> None:
    field = smooth_field((61, 43, 37), (4, 4, 5), np.random.default_rng(2))
    assert field.shape == (61, 43, 37)
    assert np.abs(field).max() <= 1
    assert field.std() > 0.1
    # Raised cosines over 20 voxels and more rise by at most pi / 2 / 12 a voxel and control value.
    assert max(np.abs(np.diff(field, axis=axis)).max() for axis in range(3)) < 2 * np.pi / 2 / 9
