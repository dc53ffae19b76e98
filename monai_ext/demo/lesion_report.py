"""What the page tells of the second half, read from its files."""

import json
from pathlib import Path
from typing import Any

from monai_ext.demo.lesion_captions import organ_name
from monai_ext.demo.lesion_crops import SEEN, UNSEEN
from monai_ext.demo.lesion_scores import ADAPTED, BASELINES, PLACES, SCORERS
from monai_ext.demo.pictures import png_data


def lesion_context(folder: Path) -> dict[str, Any]:
    """Collect tables and pictures.

    Args:
        folder: of the second half, see ``demonstrate_localization``.
    """
    figures = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    auroc = figures["auroc"]
    groups = ("seen", "unseen")
    return {
        **{
            key: figures[key]
            for key in ("threshold", "at_threshold", "sentence", "planted", "crops", "patients", "normal")
        },
        "seen": [organ_name(organ) for organ in SEEN],
        "unseen": [organ_name(organ) for organ in UNSEEN],
        "scorers": SCORERS,
        "rows": [
            {"scorer": scorer, "values": [auroc[scorer][place][group] for place in PLACES for group in groups]}
            for scorer in SCORERS
        ],
        "organs": [
            {"organ": organ_name(organ), "values": [auroc[scorer]["organ"][organ] for scorer in SCORERS]}
            for organ in (*SEEN, *UNSEEN)
        ],
        "margins": {
            group: auroc[ADAPTED]["organ"][group] - max(auroc[other]["organ"][group] for other in BASELINES)
            for group in groups
        },
        "pictures": {path.stem: png_data(path.read_bytes()) for path in sorted((folder / "figures").glob("*.png"))},
        "overlay": png_data((folder / "localizations" / "planted" / "planted_overlay.png").read_bytes()),
    }
