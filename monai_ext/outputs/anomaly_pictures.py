"""Pictures of a localization: the picture with its map, or a sheet of a volume's most abnormal slices."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from monai_ext.base import check_window

_SHEET = 12  # slices of a sheet at most
_COLUMNS = 4
_STRENGTH = 0.6  # of the strongest heat over the grey below
_PIXELS = 640  # of a panel's longer side, about; more would only make files larger
_FOOT = "white outline: above the threshold · for research use only"


def anomaly_picture(
    path: str | Path,
    picture: np.ndarray,
    odds: np.ndarray,
    threshold: float,
    title: str,
    truth: np.ndarray | None = None,
) -> None:
    """Save a PNG: the picture, and beside it the map over it with the outline of what exceeds the threshold.

    Args:
        path: the PNG file.
        picture: uint8 ``(h, w, 3)``.
        odds: ``(h, w)``.
        threshold: of the outline.
        title: a line above, such as the case and whether it is calibrated.
        truth: a mask ``(h, w)``, outlined in green in both.
    """
    step = max(1, max(odds.shape) // _PIXELS)
    small, map_, mask = picture[::step, ::step], odds[::step, ::step], None if truth is None else truth[::step, ::step]
    tall = min(max(map_.shape[0] / map_.shape[1], 0.3), 2.5)
    figure = Figure(figsize=(9, 4.3 * tall + 0.9), dpi=110, layout="constrained", facecolor="black")
    plain, heated = figure.subplots(1, 2)
    grey = small / 255.0
    plain.imshow(grey)
    heated.imshow(_heated(grey, map_, _limits(odds)))
    _outline(heated, map_, threshold, "white")
    for panel in (plain, heated):
        if mask is not None:
            _outline(panel, mask.astype(float), 0.5, "lime")
        panel.set_axis_off()
    _print(figure, title, path)


def anomaly_sheet(
    path: str | Path,
    volume: np.ndarray,
    odds: np.ndarray,
    spacing_mm: Sequence[float],
    window_hu: Sequence[float],
    threshold: float,
    title: str,
    truth: np.ndarray | None = None,
) -> None:
    """Save a PNG of the axial slices where the map is highest, in radiological convention, feet first.

    Args:
        path: the PNG file.
        volume: HU, ``(x, y, z)`` in RAS order.
        odds: the map on the same grid.
        spacing_mm: voxel edges.
        window_hu: HU of black and white.
        threshold: of the outlines.
        title: a line above.
        truth: a mask on the same grid, outlined in green.
    """
    low, high = check_window(window_hu)
    chosen = _telling_slices(odds, float(spacing_mm[2]))
    columns = min(_COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    tall = odds.shape[1] * spacing_mm[1] / (odds.shape[0] * spacing_mm[0])
    panel_inches = 2.8
    figure = Figure(
        figsize=(max(columns * panel_inches, 6), rows * panel_inches * min(max(tall, 0.3), 2.5) + 0.9),
        dpi=110,
        layout="constrained",
        facecolor="black",
    )
    limits = _limits(odds)
    for panel, index in zip(figure.subplots(rows, columns, squeeze=False).flat, chosen, strict=False):
        grey = np.clip((_turned(volume[:, :, index]) - low) / (high - low), 0, 1)
        plane = _turned(odds[:, :, index])
        aspect = spacing_mm[1] / spacing_mm[0]
        panel.imshow(_heated(np.repeat(grey[:, :, None], 3, axis=2), plane, limits), aspect=aspect)
        _outline(panel, plane, threshold, "white")
        if truth is not None:
            _outline(panel, _turned(truth[:, :, index]).astype(float), 0.5, "lime")
        marks = {"R": (0.02, 0.5), "L": (0.94, 0.5), f"slice {index}": (0.02, 0.93)}
        for text, (x, y) in marks.items():
            panel.text(x, y, text, color="yellow", fontsize=8, transform=panel.transAxes)
    for panel in figure.axes:
        panel.set_axis_off()
    _print(figure, title, path)


def _telling_slices(odds: np.ndarray, spacing_mm: float) -> list[int]:
    """Choose slices by falling peak, at least 4 mm apart while there are enough of those."""
    peaks = odds.max(axis=(0, 1))
    order = np.argsort(-peaks, kind="stable")
    apart = max(1, round(4 / spacing_mm))
    chosen: list[int] = []
    for gap in (apart, 1):
        for index in order:
            if len(chosen) < _SHEET and all(abs(int(index) - other) >= gap for other in chosen):
                chosen.append(int(index))
    return sorted(chosen)


def _turned(plane: np.ndarray) -> np.ndarray:
    return plane.T[::-1, ::-1]


def _limits(odds: np.ndarray) -> tuple[float, float]:
    sample = odds[tuple(slice(None, None, max(1, size // 64)) for size in odds.shape)]
    low, high = float(np.median(sample)), float(odds.max())
    return low, max(high, low + 1e-6)


def _heated(grey: np.ndarray, odds: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Lay the map over the grey ``(h, w, 3)``: nothing at the usual value, strongest at the highest."""
    share = np.clip((odds - limits[0]) / (limits[1] - limits[0]), 0, 1)
    color = matplotlib.colormaps["inferno"](share)[:, :, :3]
    alpha = (_STRENGTH * share)[:, :, None]
    return (1 - alpha) * grey + alpha * color


def _outline(panel: Axes, values: np.ndarray, level: float, color: str) -> None:
    if min(values.shape) > 1 and values.min() <= level < values.max():
        panel.contour(values > level, levels=[0.5], colors=[color], linewidths=0.9)


def _print(figure: Figure, title: str, path: str | Path) -> None:
    figure.suptitle(title, color="white", fontsize=10)
    figure.supxlabel(_FOOT, color="0.6", fontsize=8)
    with warnings.catch_warnings():
        # Letters that matplotlib's font lacks become boxes, which is no trouble worth a line each.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        FigureCanvasAgg(figure).print_png(str(path))
