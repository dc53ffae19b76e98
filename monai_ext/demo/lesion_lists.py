"""Crops as PNG pictures with masks, and the list that the localization bundle reads."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from monai_ext.base import check_picture_whole, replacing
from monai_ext.demo.lesion_crops import GENERIC, LesionCrop


def write_crops(folder: Path, crops: Iterable[LesionCrop]) -> Path:
    """Write pictures and masks, and return the path of their list.

    Every second pair of crops is listed under the generic class, so that its words learn from every organ; crops
    of no organ always are.

    Args:
        folder: receives ``crops/`` and ``list.jsonl``.
        crops: to write.

    Raises:
        WriteError: a file could not be written.
    """
    lines = []
    for number, crop in enumerate(crops):
        name = f"crops/{crop.patient}_{number:04d}.png"
        entry = {
            "image_path": name,
            "class_name": GENERIC if number % 4 >= 2 else crop.organ,
            "group": crop.patient,
            "label": int(crop.lesion.any()),
        }
        _write_png(folder / name, crop.picture())
        if crop.lesion.any():
            entry["mask_path"] = name.replace(".png", "_mask.png")
            _write_png(folder / str(entry["mask_path"]), 255 * crop.lesion.astype(np.uint8))
        lines.append(json.dumps(entry))
    with replacing(folder / "list.jsonl") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "list.jsonl"


def _write_png(path: Path, pixels: np.ndarray) -> None:
    with replacing(path, check_picture_whole) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")
