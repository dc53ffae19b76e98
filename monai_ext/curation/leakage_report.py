"""What a search for leakage found, as a table, as JSON, and as a page with pictures."""

import base64
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from PIL import Image
from rich.markup import escape
from rich.table import Column, Table

from monai_ext import __version__
from monai_ext.base import SettingError, replacing
from monai_ext.curation.leakage import LeakageSummary, LeakPair
from monai_ext.curation.leakage_search import KINDS
from monai_ext.manifests import ManifestEntry

REPORT_ENDINGS = (".json", ".html")
_SHOWN = 40  # pairs of the table; a report holds them all
_EDGE = 128  # pixels of a thumbnail on the page


def leakage_table(summary: LeakageSummary) -> Table:
    """Return the first pairs for a terminal."""
    names = [Column(name, overflow="fold") for name in _sides(summary)]
    table = Table("kind", Column("score", justify="right"), *names)
    for pair in summary.pairs[:_SHOWN]:
        table.add_row(pair.kind, f"{pair.score:.3f}", escape(_place(pair.first)), escape(_place(pair.second)))
    if len(summary.pairs) > _SHOWN:
        table.add_row("...", "", f"{len(summary.pairs) - _SHOWN} more; --report FILE lists all", "")
    return table


def leakage_sentence(summary: LeakageSummary) -> str:
    """Return how many scans were compared and what was found."""
    kinds = Counter(pair.kind for pair in summary.pairs)
    found = ", ".join(f"{kinds[kind]} {kind}" for kind in KINDS if kinds[kind])
    unread = f"; {len(summary.problems)} could not be compared, so that nothing is known of them"
    count = len(summary.pairs)
    pairs = f"{count} pair{'s' if count > 1 else ''} found ({found})" if count else "no pair found"
    told = f"{summary.compared} scans compared: {pairs}"
    return told + (unread if summary.problems else "")


def check_report(path: str | Path) -> None:
    """Refuse a report of another kind before the work begins.

    Raises:
        SettingError: the name ends in none of the kinds.
    """
    if Path(path).suffix.lower() not in REPORT_ENDINGS:
        raise SettingError(f"{Path(path).name}: a report is a .json or .html file; name it so", code="setting.report")


def write_leakage(path: str | Path, summary: LeakageSummary) -> None:
    """Write everything that was found, as JSON or as a page, by the ending of the path.

    Raises:
        SettingError: it ends in neither ``.json`` nor ``.html``.
        WriteError: it could not be written.
    """
    check_report(path)
    text = _json(summary) if Path(path).suffix.lower() == ".json" else _page(summary)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _json(summary: LeakageSummary) -> str:
    content: dict[str, Any] = {
        "compared": summary.compared,
        "pairs": [
            {"kind": pair.kind, "score": pair.score, "first": _told(pair.first), "second": _told(pair.second)}
            for pair in summary.pairs
        ],
        "known_overlaps": [vars(overlap) for overlap in summary.overlaps],
        "not_compared": [vars(problem) for problem in summary.problems],
        "notes": summary.notes,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _page(summary: LeakageSummary) -> str:
    template = Environment(loader=PackageLoader("monai_ext.curation", "."), autoescape=True, trim_blocks=True)
    return template.get_template("leakage.html.j2").render(
        version=__version__,
        sides=_sides(summary),
        sentence=leakage_sentence(summary),
        summary=summary,
        rows=[(pair, _place(pair.first), _place(pair.second), _strip(pair)) for pair in summary.pairs],
    )


def _sides(summary: LeakageSummary) -> tuple[str, str]:
    if summary.second is None:
        return f"in {summary.first.name}", "the same as"
    return f"in {summary.first.name}", f"in {summary.second.name}"


def _place(entry: ManifestEntry) -> str:
    return f"{entry.id} ({entry.dataset}, {entry.split})"


def _told(entry: ManifestEntry) -> dict[str, str]:
    return {"id": entry.id, "dataset": entry.dataset, "split": entry.split}


def _strip(pair: LeakPair) -> tuple[str, str] | None:
    return None if pair.looks is None else (_png(pair.looks[0]), _png(pair.looks[1]))


def _png(cells: np.ndarray) -> str:
    """Return the middle planes of a thumbnail side by side, head or top up, as the address of a PNG."""
    if cells.ndim == 3:
        middle = cells.shape[0] // 2
        planes = [cells[:, :, middle], cells[:, middle], cells[middle]]
        cells = np.hstack([plane.T[::-1] for plane in planes])
    image = Image.fromarray(np.ascontiguousarray(cells))
    height = _EDGE
    buffer = io.BytesIO()
    image.resize((image.width * height // image.height, height), Image.Resampling.BILINEAR).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
