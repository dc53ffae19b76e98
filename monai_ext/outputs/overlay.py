"""The picture of a segmentation: three planes of the scan, the labels over it, and their names."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import AbstractPathEffect, withStroke

from monai_ext.base import check_picture_whole, check_window, replacing
from monai_ext.outputs.overlay_planes import VIEWS, Plane, View, labelled_center_mm, planes_through

_INCHES = 11.0  # of the longer side
_MARGIN, _HEAD = 0.12, 0.42  # inches around panels and above them
_THIN = 0.55  # inches that even the planes of a few slices get, for their marks
_MARK: dict[str, Any] = {"color": "yellow", "fontsize": 12, "fontweight": "bold"}
_GOLDEN = 0.618034  # steps of hue that keep neighbouring labels apart


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

    The planes follow the patient's axes whatever the orientation and spacing of the volumes, all at one
    scale, in radiological convention: the patient's right is on the left, marked R.

    Args:
        path: the PNG file.
        image: ``(x, y, z)``, in HU or already windowed.
        labels: ``(x, y, z)`` ids, 0 for background.
        names: the name of every id; those present form the legend.
        affine: ``(4, 4)`` of the labels, voxel index to mm in RAS+.
        window: the image's values that become black and white.
        image_affine: ``(4, 4)`` of the image, where it has a grid of its own.
        title: a line above the planes, such as the case.

    Raises:
        SettingError: the window is none.
        WriteError: the file could not be written whole.
    """
    low, high = check_window(window)
    present = [int(number) for number in np.unique(labels) if number]
    colors = {number: _color(place) for place, number in enumerate(present)}
    center = labelled_center_mm(labels, affine)
    planes = planes_through(center, labels.shape, affine)
    figure, panels, legend = _layout(planes)
    for panel, view, plane in zip(panels, VIEWS, planes, strict=True):
        grey = plane.sample(image, affine if image_affine is None else image_affine, 1, low)
        ids = plane.sample(labels, affine, 0, 0)
        picture = _painted((grey - low) / (high - low), ids, colors)
        panel.imshow(picture, extent=(0, plane.size_mm[0], 0, plane.size_mm[1]))
        _annotate(panel, view, thin=panel.get_position().height * figure.get_figheight() < 2 * _THIN)
    size_inches = np.multiply(legend.get_position().size, figure.get_size_inches())
    _name(legend, size_inches, present, names, colors)
    figure.text(0.012, 1 - 0.5 * _HEAD / figure.get_figheight(), title, color="white", fontsize=12, va="center")
    with replacing(path, check_picture_whole) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))


def _layout(planes: list[Plane]) -> tuple[Figure, list[Axes], Axes]:
    """Put the coronal plane above the axial one and the sagittal one beside it, all at one scale."""
    axial, coronal, sagittal = planes
    scale = (_INCHES - 3 * _MARGIN) / max(axial.size_mm[0] + sagittal.size_mm[0], axial.size_mm[1] + coronal.size_mm[1])
    left, right = scale * axial.size_mm[0], max(scale * sagittal.size_mm[0], 2.0)
    bottom, top = max(scale * axial.size_mm[1], _THIN), max(scale * coronal.size_mm[1], _THIN)
    width, height = left + right + 3 * _MARGIN, bottom + top + 3 * _MARGIN + _HEAD
    figure = Figure(figsize=(width, height), dpi=110, facecolor="black")

    def box(x: float, y: float, across: float, up: float) -> Axes:
        return figure.add_axes((x / width, y / height, across / width, up / height), facecolor="black")

    upper, beside = bottom + 2 * _MARGIN, left + 2 * _MARGIN
    panels = [
        box(_MARGIN, _MARGIN, left, bottom),
        box(_MARGIN, upper, left, top),
        box(beside, upper, right, top),
    ]
    return figure, panels, box(beside, _MARGIN, right, bottom)


def _color(place: int) -> np.ndarray:
    """Return a colour unlike those of the places before: hues by the golden ratio, in two strengths."""
    return hsv_to_rgb(((0.02 + place * _GOLDEN) % 1.0, 0.85 if place % 2 else 0.6, 1.0))


def _painted(grey: np.ndarray, ids: np.ndarray, colors: Mapping[int, np.ndarray]) -> np.ndarray:
    """Return ``(rows, columns, 3)``: the scan, labels half transparent over it, their outlines opaque."""
    picture = np.repeat(np.clip(grey, 0, 1)[:, :, None], 3, axis=2)
    outline = np.zeros(ids.shape, bool)
    outline[:-1] |= ids[:-1] != ids[1:]
    outline[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    outline[1:] |= ids[:-1] != ids[1:]
    outline[:, 1:] |= ids[:, :-1] != ids[:, 1:]
    for number, color in colors.items():
        inside = ids == number
        picture[inside] = 0.65 * picture[inside] + 0.35 * color
        picture[inside & outline] = color
    return picture


def _annotate(panel: Axes, view: View, thin: bool) -> None:
    on_any_ground: list[AbstractPathEffect] = [withStroke(linewidth=2.5, foreground="black")]
    left, right, top, bottom = view.marks
    panel.text(0.01, 0.5, left, ha="left", va="center", **_MARK, transform=panel.transAxes)
    panel.text(0.99, 0.5, right, ha="right", va="center", **_MARK, transform=panel.transAxes)
    if not thin:
        panel.text(0.5, 0.99, top, ha="center", va="top", **_MARK, transform=panel.transAxes)
        panel.text(0.5, 0.01, bottom, ha="center", va="bottom", **_MARK, transform=panel.transAxes)
    panel.text(0.045, 0.98, view.name, ha="left", va="top", color="0.85", fontsize=9, transform=panel.transAxes)
    for text in panel.texts:
        text.set_path_effects(on_any_ground)
    panel.set_axis_off()


def _name(
    panel: Axes,
    size_inches: np.ndarray,
    present: list[int],
    names: Mapping[int, str],
    colors: Mapping[int, np.ndarray],
) -> None:
    panel.set_axis_off()
    rows, columns = max(1, int(size_inches[1] / 0.19) - 2), max(1, int(size_inches[0] / 1.7))
    shown = present if len(present) <= rows * columns else present[: rows * columns - 1]
    patches = [Patch(color=colors[number], label=names.get(number, f"label {number}")) for number in shown]
    if len(shown) < len(present):
        patches.append(Patch(color="black", label=f"and {len(present) - len(shown)} more"))
    if not present:
        patches = [Patch(color="black", label="no labelled voxel")]
    panel.legend(
        handles=patches,
        loc="upper left",
        ncols=-(-len(patches) // rows),
        fontsize=9,
        labelcolor="white",
        frameon=False,
        borderaxespad=0,
        handlelength=1,
    )
    panel.text(
        1,
        0,
        "for research use only",
        ha="right",
        va="bottom",
        color="0.6",
        fontsize=8,
        transform=panel.transAxes,
    )
