"""Scans whose results shall be DICOM too: they must be DICOM series that a result can refer to."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_ext.base import InputError, SettingError
from monai_ext.outputs import check_referable
from monai_ext.volumes.dicom_places import is_series


def dicom_items(items: Sequence[Mapping[str, Any]], wanted: bool) -> list[dict[str, Any]]:
    """Give each scan the entry ``series``, by which writers find its headers, if DICOM output is wanted.

    A series that lacks what a result refers to gets a ``problem``, so that no network runs for it.

    Args:
        items: of ``scan_items`` or ``localization_items``.
        wanted: whether there will be DICOM output; else the items stay as they are.

    Raises:
        SettingError: some are no DICOM series, or highdicom is not installed.
    """
    if not wanted:
        return [dict(item) for item in items]
    others = [str(item["case"]) for item in items if "image" in item and not is_series(Path(item["image"]))]
    if others:
        listed = ", ".join(others[:8]) + (f" and {len(others) - 8} more" if len(others) > 8 else "")
        raise SettingError(
            f"dicom_seg: {listed}: no DICOM series, which DICOM output belongs to; give DICOM series alone, or set "
            "dicom_seg to false",
            code="setting.dicom_seg",
        )
    return [_checked(dict(item)) for item in items]


def _checked(item: dict[str, Any]) -> dict[str, Any]:
    if "problem" in item:
        return item
    try:
        check_referable(item["image"], str(item["case"]))
    except SettingError:
        raise
    except InputError as error:
        return {**item, "problem": str(error)}
    return {**item, "series": item["image"]}
