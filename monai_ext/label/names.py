"""Ids and tags that come from a client, before any of them becomes part of a path or of a request to a PACS."""

import re

from monai_ext.base import ManifestError

HEAT_MAP = "heatmap"  # the tag under which the server keeps a model's map of log-odds
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")  # PS3.5 chapter 9
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_SESSION = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def image_id(value: object) -> str:
    """Return the id of an image of a folder: the base name of its file without the ending.

    Raises:
        ManifestError: it is no base name, hidden, too long, or cannot be printed.
    """
    text = value if isinstance(value, str) else ""
    if (
        not 1 <= len(text.encode(errors="replace")) <= 200
        or text.startswith(".")
        or any(sign in text for sign in "/\\")
        or _unprintable(text)
    ):
        raise ManifestError(
            f"image id {_short(value)}: no plain name; give the id that the list of images shows, without a folder",
            code="label.image_id",
        )
    return text


def series_uid(value: object) -> str:
    """Return a DICOM series instance UID.

    Raises:
        ManifestError: it is none.
    """
    if not isinstance(value, str) or len(value) > 64 or not _UID.fullmatch(value):
        raise ManifestError(
            f"image id {_short(value)}: no series instance UID; give an id that the list of images shows",
            code="label.series_uid",
        )
    return value


def label_tag(value: object) -> str:
    """Return the tag that tells labels of one image apart, such as ``final`` or ``original``.

    Raises:
        ManifestError: it cannot name a folder everywhere.
    """
    text = getattr(value, "value", value)  # the server's own tags are an enumeration
    if not isinstance(text, str) or not _TAG.fullmatch(text):
        raise ManifestError(
            f"label tag {_short(value)}: give up to 32 letters, digits, '-' and '_', beginning with a letter or digit",
            code="label.tag",
        )
    return text


def session_id(value: object) -> str:
    """Return the id of a session.

    Raises:
        ManifestError: it is none.
    """
    if not isinstance(value, str) or not _SESSION.fullmatch(value):
        raise ManifestError(
            f"session {_short(value)}: no id of a session; give the one that the server made", code="label.session"
        )
    return value


def ending_of(name: str | None, allowed: tuple[str, ...]) -> str:
    """Return the ending of an uploaded file, one of those allowed.

    Raises:
        ManifestError: the file has another one.
    """
    found = next((ending for ending in allowed if str(name or "").lower().endswith(ending)), None)
    if found is None:
        raise ManifestError(
            f"upload: the file ends in none of {', '.join(allowed)}; convert it first", code="label.ending"
        )
    return found


def _unprintable(text: str) -> bool:
    return not text.isprintable() or any("\ud800" <= sign <= "\udfff" for sign in text)


def _short(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
