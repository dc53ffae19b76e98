"""A manifest as one web page that needs nothing beside it."""

import base64
import io
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from monai_ext import __version__
from monai_ext.base import replacing
from monai_ext.curation.geometry import ScanSize
from monai_ext.curation.licences import licence_told
from monai_ext.curation.summary import ManifestSummary
from monai_ext.manifests import SPLITS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = {"training": "#2f6f9f", "validation": "#7fb3d5", "test": "#d98a00", "unassigned": "#a9b4be"}
_PANELS: tuple[tuple[str, Callable[[ScanSize], float]], ...] = (
    ("voxel edge within a slice, mm", lambda size: sum(size.spacing_mm[:2]) / 2),
    ("distance of slices, mm", lambda size: size.spacing_mm[2]),
    ("voxels along the longer edge of a slice", lambda size: max(size.shape[:2])),
    ("slices", lambda size: size.shape[2]),
)


def write_summary_page(path: str | os.PathLike[str], summary: ManifestSummary) -> None:
    """Write the page.

    Raises:
        WriteError: the file could not be written.
    """
    # Not above: workers of this room import it too, and draw nothing.
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("monai_ext.curation", "."), autoescape=True, trim_blocks=True)
    entries = summary.manifest.entries
    page = environment.get_template("summary.html.j2").render(
        version=__version__,
        summary=summary,
        manifest=summary.manifest,
        cards=summary.cards,
        told_scans=summary.told_scans,
        scans=len(entries),
        labelled=sum(entry.label is not None for entry in entries),
        patients=len({entry.patient for entry in entries}),
        pictures=any(entry.abnormal is not None for entry in entries),
        commercial=_commercial(summary),
        licence_told=licence_told,
        link=_link,
        counts=_counts_figure(summary) if entries else None,
        sizes=_sizes_figure(summary) if summary.ranges else None,
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _commercial(summary: ManifestSummary) -> int:
    allowed = {card.id for card in summary.manifest.datasets.values() if card.commercial_use == "yes"}
    return sum(entry.dataset in allowed for entry in summary.manifest.entries)


def _link(address: object) -> str | None:
    # What a manifest says must not run in the reader's browser.
    return address if isinstance(address, str) and address.startswith(("https://", "http://")) else None


def _counts_figure(summary: ManifestSummary) -> str:
    from matplotlib.figure import Figure

    listed = {row.dataset for row in summary.totals}
    names = [card.id for card in summary.cards if card.id in listed][::-1]
    figure = Figure(figsize=(10, 1.1 + 0.34 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    begin = dict.fromkeys(names, 0)
    for split in SPLITS:
        rows = {row.dataset: row.scans for row in summary.counts if row.split == split}
        if rows:
            widths = [rows.get(name, 0) for name in names]
            left.barh(names, widths, left=[begin[name] for name in names], color=_COLOURS[split], label=split)
            begin = {name: begin[name] + width for name, width in zip(names, widths, strict=True)}
    left.set(title="scans", xlabel="number")
    left.legend(fontsize=8)
    shares = {row.dataset: 100 * row.share for row in summary.totals}
    right.barh(names, [shares[name] for name in names], color="#5b8c5a")
    right.set(title="share of what is drawn, by weight", xlabel="%")
    return _svg(figure)


def _sizes_figure(summary: ManifestSummary) -> str:
    from matplotlib.figure import Figure

    names = [one.dataset for one in summary.ranges][::-1]
    rows = np.arange(len(names))
    sizes = summary.sizes.sizes if summary.sizes is not None else []
    figure = Figure(figsize=(10, 2 * (1.2 + 0.3 * len(names))), layout="constrained")
    for axes, (title, value) in zip(figure.subplots(2, 2, sharey=True).flat, _PANELS, strict=True):
        values = [[value(size) for size in sizes if size.dataset == name] for name in names]
        low, first, middle, third, high = np.array([np.percentile(some, (0, 25, 50, 75, 100)) for some in values]).T
        axes.hlines(rows, low, high, color="#a9b4be", linewidth=1.5)
        axes.hlines(rows, first, third, color="#2f6f9f", linewidth=7)
        # A point with a white rim: it stays to be seen where all scans are of one size.
        axes.plot(middle, rows, "o", color="#2f6f9f", markersize=7, markeredgecolor="white", markeredgewidth=1.5)
        axes.set(yticks=rows, yticklabels=names, ylim=(-0.7, len(names) - 0.3))
        axes.set_title(title, fontsize=10)
        axes.set_xlim(left=0)
        axes.grid(axis="x", alpha=0.3)
    return _svg(figure)


def _svg(figure: "Figure") -> str:
    import matplotlib as mpl

    buffer = io.BytesIO()
    # Neither a date nor marks drawn by chance: the page of one manifest is the same each time.
    with mpl.rc_context({"svg.hashsalt": "monai-ext"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
