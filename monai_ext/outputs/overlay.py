"""The picture of a segmentation: three planes of the scan, the labels over it, and their names."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from monai_ext.base import WriteError, check_window, replacing
from monai_ext.outputs.overlay_planes import VIEWS, labelled_center_mm, plane_through

_HEIGHT_INCHES = 4.4
_MAX_NAMES = 48  # more do not fit beside the planes
_ROWS = 16


def overlay_png(
    path: str | os.PathLike[str],
    image: np.ndarray,
    labels: np.ndarray,
    names: Mapping[int, str],
    affine: np.ndarray,
    *,
    window: Sequence[float] = (-175, 250),
    image_affine: np.ndarray | None = None,
    title: str = "",
) -> None:
    """Write a PNG of the axial, coronal and sagittal plane through the middle of the labels.

    The planes follow the patient's axes whatever the orientation and spacing of the volumes, with lengths true in
    every direction, in radiological convention: the patient's right is on the left, marked R.

    Args:
        path: the PNG file.
        image: ``(x, y, z)``, in HU or already windowed.
        labels: ``(x, y, z)`` ids, 0 for background.
        names: the name of every id; those present form the legend.
        affine: ``(4, 4)`` of the labels, voxel index to mm in RAS+.
        window: the image's values that are black and white.
        image_affine: ``(4, 4)`` of the image where it has a grid of its own.
        title: a line above the planes, such as the case.

    Raises:
        SettingError: the window is none.
        WriteError: the file could not be written whole.
    """
    low, high = check_window(window)
    center = labelled_center_mm(labels, affine)
    planes = [plane_through(center, view, labels.shape, affine) for view in VIEWS]
    present = [int(number) for number in np.unique(labels) if number]
    colors = {number: _color(place) for place, number in enumerate(present)}
    columns = max(1, -(-min(len(present), _MAX_NAMES) // _ROWS))
    widths = [plane.size_mm[0] / plane.size_mm[1] for plane in planes]
    legend = 0.42 * columns
    figure = Figure(figsize=(_HEIGHT_INCHES * (sum(widths) + legend), _HEIGHT_INCHES + 0.7), facecolor="black")
    axes = figure.subplots(
        1, 4, width_ratios=[*widths, legend], gridspec_kw={"left": 0.01, "right": 0.99, "wspace": 0.03}
    )
    figure.subplots_adjust(bottom=0.06, top=0.88)
    for panel, view, plane in zip(axes, VIEWS, planes, strict=False):
        grey = plane.sample(image, affine if image_affine is None else image_affine, 1, low)
        ids = plane.sample(labels, affine, 0, 0)
        panel.imshow(_painted(grey, ids, low, high, colors), extent=(0, plane.size_mm[0], 0, plane.size_mm[1]))
        _annotate(panel, view.name, view.marks)
    _legend(axes[3], present, names, colors, columns)
    if title:
        figure.text(0.012, 0.965, title, color="white", fontsize=12, va="center")
    figure.text(0.988, 0.02, "for research use only", color="0.6", fontsize=8, ha="right", va="center")
    with replacing(path, verify=_verify) as temporary, matplotlib.rc_context():
        FigureCanvasAgg(figure).print_png(str(temporary))
