"""Tables of localization scores, by class and as means, beside published figures: CSV, JSON and Markdown."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from monai_ext.base import replacing

MEASURES = (
    "pixel_auroc",
    "pixel_average_precision",
    "pixel_aupro",
    "pixel_f1_max",
    "image_auroc",
    "image_average_precision",
    "image_f1_max",
)
_TITLES = {
    "pixel_auroc": "pixel AUROC",
    "pixel_average_precision": "pixel AP",
    "pixel_aupro": "AUPRO",
    "pixel_f1_max": "pixel F1-max",
    "image_auroc": "image AUROC",
    "image_average_precision": "image AP",
    "image_f1_max": "image F1-max",
}
_RESULTS = Path(__file__).with_name("published_results.json")


@dataclass(frozen=True)
class Measured:
    """One measure of one class.

    Attributes:
        value: 0 to 1, NaN where undefined.
        low: lower limit of its confidence interval.
        high: upper limit.
        bound: how far the exact value may lie from ``value``; 0 where it is exact.
        published: figure of the published implementation, 0 to 1, if there is one.
    """

    value: float
    low: float
    high: float
    bound: float = 0.0
    published: float | None = None


@dataclass(frozen=True)
class ClassResult:
    """One class, or the mean over classes.

    Attributes:
        name: of the class, or ``"mean"``.
        images: how many.
        abnormal: how many of them are.
        measures: by the names of ``MEASURES``.
        notes: why a measure is undefined.
    """

    name: str
    images: int
    abnormal: int
    measures: Mapping[str, Measured]
    notes: Sequence[str] = field(default_factory=tuple)


def published_figures(dataset: str | None) -> dict[str, dict[str, float]]:
    """Return the published figures of a data set's classes and of their ``"mean"``, 0 to 1; empty if there are none."""
    found = _results()["datasets"].get(dataset)
    if found is None:
        return {}
    named = {**found["classes"], "mean": found["mean"]}
    return {name: {key: round(value / 100, 8) for key, value in figures.items()} for name, figures in named.items()}


def write_anomaly_tables(stem: str | Path, results: Sequence[ClassResult], about: Mapping[str, Any]) -> list[Path]:
    """Write ``STEM.csv``, ``STEM.json`` and ``STEM.md``.

    Args:
        stem: path without ending.
        results: of each class, the mean last.
        about: what the figures are of, for JSON and Markdown.

    Returns:
        The paths.

    Raises:
        WriteError: a file could not be written.
    """
    texts = {".csv": _csv(results), ".json": _json(results, about), ".md": _markdown(results, about)}
    paths = []
    for ending, text in texts.items():
        path = Path(f"{stem}{ending}")
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths


def _csv(results: Sequence[ClassResult]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    parts = ("", "_low", "_high", "_bound", "_published")
    table.writerow(["class", "images", "abnormal", *(name + part for name in MEASURES for part in parts), "notes"])
    for one in results:
        row: list[Any] = [one.name, one.images, one.abnormal]
        for name in MEASURES:
            found = one.measures[name]
            published = "" if found.published is None else f"{found.published:.6g}"
            row += [*(f"{value:.6g}" for value in (found.value, found.low, found.high, found.bound)), published]
        table.writerow([*row, "; ".join(one.notes)])
    return text.getvalue()


def _json(results: Sequence[ClassResult], about: Mapping[str, Any]) -> str:
    classes = [
        {
            "class": one.name,
            "images": one.images,
            "abnormal": one.abnormal,
            "measures": {
                name: {key: _number(getattr(found, key)) for key in ("value", "low", "high", "bound", "published")}
                for name, found in one.measures.items()
            },
            "notes": list(one.notes),
        }
        for one in results
    ]
    source = {"published_source": _results()["source"], "published_about": _results()["about"]}
    return json.dumps({**about, **source, "results": classes}, indent=2, ensure_ascii=False) + "\n"


def _markdown(results: Sequence[ClassResult], about: Mapping[str, Any]) -> str:
    lines = ["# Localization scores, in percent", ""]
    lines += [f"- {key.replace('_', ' ')}: {value}" for key, value in about.items()]
    known = any(found.published is not None for one in results for found in one.measures.values())
    if known:
        lines.append(f"- in italics: published, {_results()['source']}")
    lines += ["", f"| class | images (abnormal) | {' | '.join(_TITLES[name] for name in MEASURES)} |"]
    lines.append("|" + " --- |" * (2 + len(MEASURES)))
    for one in results:
        cells = [_cell(one.measures[name]) for name in MEASURES]
        lines.append(f"| {one.name} | {one.images} ({one.abnormal}) | {' | '.join(cells)} |")
    notes = [f"- {one.name}: {note}" for one in results for note in one.notes]
    if notes:
        lines += ["", "Undefined:", "", *notes]
    return "\n".join(lines) + "\n"


def _cell(found: Measured) -> str:
    if math.isnan(found.value):
        cell = "undefined"
    else:
        cell = f"{100 * found.value:.2f}"
        if not math.isnan(found.low):
            cell += f" ({100 * found.low:.1f} to {100 * found.high:.1f})"
        if found.bound >= 5e-5:
            cell += f" ± {100 * found.bound:.2f}"
    return cell if found.published is None else f"{cell} *{100 * found.published:.2f}*"


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


@cache
def _results() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_RESULTS.read_text(encoding="utf-8"))
    return found
