"""Results of earlier runs among scans, told by the JSON file that every run leaves beside them."""

import json
import os
from pathlib import Path

KIND = "earlier result"  # in accounts of what was set aside
_NOTES = (".json", ".csv")
_OF_LOCALIZATION = ("candidates", "anomaly", "mask", "overlay", "seg", "heatmap", "report")


def results_in(folder: Path) -> frozenset[str]:
    """Return the names of the files in ``CASE`` that a run wrote for that case.

    A localization leaves ``CASE_candidates.json``, label maps leave a sidecar of their own name that holds the labels
    and which scan they are of. Slices of the case may lie beside them.
    """
    try:
        names = [entry.name for entry in os.scandir(folder)]
    except OSError:
        return frozenset()  # whoever lists it next will say why it cannot be
    start = f"{folder.name}_"
    ours = [name for name in names if name.startswith(start)]
    words = {name: name[len(start) :].partition(".")[0] for name in ours}
    known = {words[name] for name in ours if name.endswith(".json") and _is_sidecar(folder / name)}
    if f"{start}candidates.json" in ours:
        known.update(_OF_LOCALIZATION)
    return frozenset(name for name, word in words.items() if word in known)


def is_note(name: str) -> bool:
    """Return whether a result is none that could be taken for a scan or picture."""
    return name.lower().endswith(_NOTES)


def _is_sidecar(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"scan_sha256", "labels"} <= set(content)
