"""What the ``dataset.json`` of a download adds: names of label ids, or that another verb should read it."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai_ext.base import ManifestError, inside
from monai_ext.base.files import UNSEEN
from monai_ext.curation.build_cards import Chosen
from monai_ext.manifests import Fact, load_datalist

_FILE, _SOURCE = "dataset.json", "dataset.json"
_TEXT = re.compile(rf"[^{UNSEEN}\ud800-\udfff]{{1,100}}")
_MOST = 1000


def add_label_names(chosen: Chosen, root: Path) -> None:
    """Add the names to the description, with the file as their source; nothing where there are none.

    The Decathlon writes ``{"1": "spleen"}`` and nnU-Net ``{"spleen": 1}``; ``dataset.json`` lies in the folder or
    in one right below it.
    """
    if chosen.card.label_names:
        return
    for path in (root / _FILE, *sorted(root.glob(f"*/{_FILE}"))[:1]):
        names = _names(path, root)
        if names:
            fact = Fact({str(number): name for number, name in sorted(names.items())}, "verified", (_SOURCE,))
            chosen.card = replace(chosen.card, facts={**chosen.card.facts, "label_names": fact})
            source = {"kind": "file of the download", "locator": _FILE, "what": "names of its labels"}
            chosen.sources = {**chosen.sources, _SOURCE: source}
            return


def is_nnunet(root: Path) -> bool:
    """Tell whether a folder has the form of nnU-Net, whose channels and labels another verb reads."""
    path = root / _FILE
    try:
        return path.is_file() and "channel_names" in load_datalist(path)
    except ManifestError:
        return False


def _names(path: Path, root: Path) -> dict[int, str]:
    try:
        inside(root, path.relative_to(root))
        labels = load_datalist(path).get("labels")
    except ManifestError:
        return {}  # none, or one that is of no use here; the scans do not depend on it
    if not isinstance(labels, dict) or len(labels) > _MOST:
        return {}
    pairs = [_pair(key, value) for key, value in labels.items()]
    names = dict(pair for pair in pairs if pair)
    return names if len(names) == len(labels) else {}


def _pair(key: str, value: Any) -> tuple[int, str] | None:
    number, name = (key, value) if isinstance(value, str) else (str(value), key)
    fits = re.fullmatch("[0-9]{1,5}", number) and _TEXT.fullmatch(name)
    return (int(number), name) if fits else None
