"""The picture of a masked reconstruction: what was there, what was seen, what was guessed."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from monai_ext.base import check_picture_whole, replacing

_PANELS = ("original", "visible to the encoder", "reconstructed")


def reconstruction_picture(
    path: str | Path,
    original: np.ndarray,
    visible: np.ndarray,
    reconstructed: np.ndarray,
    title: str = "",
) -> None:
    """Write a PNG: three columns side by side, the middle axial and coronal plane as rows.

    Args:
        path: the PNG file.
        original: the volume, ``(x, y, z)`` in RAS, windowed to 0..1.
        visible: ``(x, y, z)`` of truth: which voxels the encoder saw.
        reconstructed: the network's volume, ``(x, y, z)``.
        title: a line above the panels.
    """
    seen = np.where(visible, original, np.nan)
    figure = Figure(figsize=(9, 6.4), layout="constrained", facecolor="white")
    axes = figure.subplots(2, 3)
    for column, (name, volume) in enumerate(zip(_PANELS, (original, seen, reconstructed), strict=True)):
        planes = (volume[:, :, volume.shape[2] // 2], volume[:, volume.shape[1] // 2, :])
        for row, plane in enumerate(planes):
            panel = axes[row, column]
            panel.set_facecolor("#3b4a5a")  # unlike any grey, so that hidden is not mistaken for air
            # Radiological convention: the patient's right is on the viewer's left, anterior or head is up.
            panel.imshow(plane.T[::-1, ::-1], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            panel.set_xticks([])
            panel.set_yticks([])
        axes[0, column].set_title(name, fontsize=11)
    for row, name in enumerate(("axial", "coronal")):
        axes[row, 0].set_ylabel(name, fontsize=11)
    if title:
        figure.suptitle(title, fontsize=12)
    with replacing(path, check_picture_whole) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))
