"""What a client tells about a file, before it is kept and shown to others."""

import json
from typing import Any

from monai_ext.base import SettingError

# What the server itself keeps about a file, and acts on.
_OWN = {
    "name",
    "ts",
    "path",
    "checksum",
    "strategy",
    "uncertainty",
    "uncertainty_of",
    "dice",
    "seg",
    "model",
    "provenance",
}
_MOST_LETTERS, _DEEPEST = 100_000, 6


def json_object(text: str | None) -> dict[str, Any]:
    """Return the JSON object of a form field.

    Raises:
        SettingError: it is none, larger or deeper than anything that a client has to say, or not to be printed.
    """
    if len(text or "") > _MOST_LETTERS:
        raise SettingError(f"params: more than {_MOST_LETTERS} letters; send less", code="label.params")
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise SettingError('params: no JSON object; send such as {"device": "cpu"}', code="label.params")
    if not _plain(found, _DEEPEST):
        raise SettingError(
            f"params: nested more than {_DEEPEST} deep, or with letters that are none; send plain text and numbers",
            code="label.params",
        )
    return found


def told_info(text: str | None) -> dict[str, Any]:
    """Return what a client tells about a file, without the entries that are the server's own.

    Raises:
        SettingError: see `json_object`.
    """
    return {name: value for name, value in json_object(text).items() if name not in _OWN}


def _plain(value: Any, deepest: int) -> bool:
    if isinstance(value, str):
        return not any("\ud800" <= sign <= "\udfff" for sign in value)
    if isinstance(value, dict):
        return deepest > 0 and all(_plain(name, 1) and _plain(entry, deepest - 1) for name, entry in value.items())
    if isinstance(value, list):
        return deepest > 0 and all(_plain(entry, deepest - 1) for entry in value)
    return value is None or isinstance(value, bool | int) or value == value  # NaN is no JSON
