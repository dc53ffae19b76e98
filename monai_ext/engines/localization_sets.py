"""Labelled sets for evaluation and calibration, and what a calibration must share with the run that uses it."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_ext.base import SettingError, find_window
from monai_ext.engines.localization import check_prompts, class_prompts
from monai_ext.engines.localization_inputs import localization_items
from monai_ext.manifests import PictureEntry, read_picture_list
from monai_ext.metrics import Calibration, check_normal_cases, read_calibration
from monai_ext.networks import AnomalyLocalizer, ClassPrompts, PromptTable, read_adapters
from monai_ext.volumes import PICTURE_ENDINGS

_LISTS = (".jsonl", ".json")


def evaluation_items(
    source: str,
    root: str | None = None,
    *,
    dataset: str | None = None,
    classes: Sequence[str] | None = None,
    section: str = "test",
    group_pattern: str | None = None,
) -> list[dict[str, Any]]:
    """List labelled pictures or volumes, class by class.

    Args:
        source: a list, see ``monai_ext.manifests.read_picture_list``.
        root: folder that its paths start from; the list's own by default.
        dataset: name of the data set.
        classes: to take; all by default.
        section: of a datalist.
        group_pattern: regular expression whose first group, in a file's base name, is its patient: images of one
            are drawn together in the bootstrap. The list's own groups by default, else each image is its own.

    Returns:
        ``[{"image", "case", "kind", "class_name", "abnormal", "unit", "index"}, ...]`` and ``"mask"`` where there
        is one.

    Raises:
        ManifestError: the list cannot be used.
        SettingError: no regular expression with a group, or a name that it does not fit.
    """
    pattern = _pattern(group_pattern)
    entries = read_picture_list(source, root, dataset=dataset, classes=classes, section=section)
    entries = sorted(entries, key=lambda entry: entry.class_name)
    return [{**_item(entry), "unit": _unit(entry, pattern), "index": n} for n, entry in enumerate(entries)]


def normal_items(
    source: str, root: str | None = None, section: str = "training", rate: float | None = None
) -> list[dict[str, Any]]:
    """List normal pictures or volumes: those of a list that are labelled 0, or all of a folder.

    Args:
        source: a list, see ``monai_ext.manifests.read_picture_list``, or what `localization_items` takes.
        root: folder that a list's paths start from.
        section: of a datalist.
        rate: of false positives that they will be asked for.

    Raises:
        ManifestError, ScanError: nothing there, or nothing readable.
        SettingError: a list without a normal case, too few for the rate, or pictures and volumes together.
    """
    items = _normal(source, root, section)
    check_normal_cases(len(items), {"picture" if item["kind"] == "picture" else "volume" for item in items}, rate)
    return items


def _normal(source: str, root: str | None, section: str) -> list[dict[str, Any]]:
    if not str(source).lower().endswith(_LISTS):
        return localization_items(source)
    items = [_item(entry) for entry in read_picture_list(source, root, section=section) if not entry.label]
    if not items:
        raise SettingError(
            f"{Path(source).name}: lists no normal case; a threshold needs those alone", code="setting.empty"
        )
    for item in items:
        item.pop("mask", None)
    return [{key: value for key, value in item.items() if key != "class_name"} for item in items]


def prompts_by_class(
    items: Sequence[Mapping[str, Any]],
    table: PromptTable,
    dataset: str | None = None,
    free_text: bool = False,
    network: Any = None,
) -> dict[str, ClassPrompts]:
    """Return the sentences of every class of a list, see `class_prompts`.

    Args:
        items: each with a ``class_name``.
        table: of states, templates and classes.
        dataset: whose classes they are.
        free_text: see `class_prompts`.
        network: that will read them; the CLIP of an ``AnomalyLocalizer`` is asked whether it can.

    Raises:
        SettingError: a class that the table does not know, or a sentence with more tokens than the CLIP reads.
    """
    names = sorted({str(item["class_name"]) for item in items})
    found = {name: class_prompts(name, table, dataset, free_text) for name in names}
    if isinstance(network, AnomalyLocalizer):
        check_prompts(network.model.clip, found.values())
    return found


def calibration_settings(
    adapters: str | None,
    prompts: ClassPrompts,
    window_hu: str | Sequence[float],
    views: Sequence[str],
    smooth_mm: float,
    skip_background: bool,
    body_only: bool,
    min_volume_mm3: float,
    min_area_px: int,
    blur: Sequence[float] | None = None,
    image_size: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Collect what a threshold depends on; a calibration fits only runs in which all of it is the same."""
    sentences = json.dumps([prompts.normal, prompts.abnormal])
    return {
        "adapters_sha256": read_adapters(adapters)[1].sha256 if adapters is not None else None,
        "prompts_sha256": hashlib.sha256(sentences.encode()).hexdigest(),
        "window_hu": list(find_window(window_hu)),
        "views": sorted([views] if isinstance(views, str) else views),
        "smooth_mm": float(smooth_mm),
        "skip_background": bool(skip_background),
        "body_only": bool(body_only),
        "min_volume_mm3": float(min_volume_mm3),
        "min_area_px": int(min_area_px),
        "blur": blur and [float(part) for part in blur],
        "image_size": image_size and [int(side) for side in image_size],
    }


def open_calibration(path: str | None, settings: Mapping[str, Any]) -> Calibration | None:
    """Read a calibration made with these settings; ``None`` stays ``None``.

    Raises:
        SettingError: the file cannot be read, or was made with other settings.
    """
    return None if path is None else read_calibration(path, settings)


def _item(entry: PictureEntry) -> dict[str, Any]:
    item = {
        "image": str(entry.image),
        "case": entry.case,
        "kind": "picture" if entry.image.name.lower().endswith(PICTURE_ENDINGS) else "scan",
        "class_name": entry.class_name,
        "abnormal": entry.label,
    }
    return item if entry.mask is None else {**item, "mask": str(entry.mask)}


def _pattern(text: str | None) -> re.Pattern[str] | None:
    if text is None:
        return None
    try:
        pattern = re.compile(text)
    except re.error:
        pattern = re.compile("")
    if not pattern.groups:
        raise SettingError(
            f"group_pattern: {text!r} is no regular expression with a group; give one such as '^([^_]+)_'",
            code="setting.pattern",
        )
    return pattern


def _unit(entry: PictureEntry, pattern: re.Pattern[str] | None) -> str:
    if pattern is None:
        return entry.group or str(entry.image)
    found = pattern.search(entry.image.name)
    if found is None or not found.group(1):
        raise SettingError(
            f"{entry.case}: group_pattern {pattern.pattern!r} finds no patient in its name; change it or leave it out",
            code="setting.pattern",
            case=entry.case,
        )
    return found.group(1)
