"""Which data sets a licence filter lets through, and why it refuses the others."""

import re
from collections.abc import Collection

from monai_ext.manifests import DatasetCard

SURE = ("verified", "high", "medium")


def refusal(card: DatasetCard, commercial_ok: bool, allowed: Collection[str] = ()) -> str | None:
    """Return why a data set may not be taken, or ``None``.

    What is unknown, or known with low confidence only, is no permission.

    Args:
        card: the data set.
        commercial_ok: take only what may be used commercially.
        allowed: the licences to take, such as ``"CC-BY-4.0"``; any when empty.
    """
    if commercial_ok:
        if card.commercial_use != "yes":
            return f"commercial use: {card.commercial_use}"
        if card.confidence("commercial_use") not in SURE:
            return f"commercial use: yes, but with {card.confidence('commercial_use')} confidence"
        if card.licence == "unknown":
            return "commercial use: yes, but licence unknown"
        # Such as CC-BY-NC-SA-4.0: one of the two facts is wrong, and the filter is for the careful.
        if {"nc", "noncommercial"} & set(re.split(r"[^a-z]+", card.licence.casefold())):
            return f"commercial use: yes, but licence {card.licence}, which forbids it"
    if allowed and card.licence.casefold() not in {name.casefold() for name in allowed}:
        return f"licence {card.licence}"
    if (commercial_ok or allowed) and card.licence != "unknown" and card.confidence("licence") not in SURE:
        return f"licence {card.licence}, but with {card.confidence('licence')} confidence"
    return None


def licence_told(card: DatasetCard) -> str:
    """Return the licence with how sure it is, unless an owner or two sources say so."""
    confidence = card.confidence("licence")
    sure = confidence in ("verified", "high") or card.licence == "unknown"
    return card.licence if sure else f"{card.licence} ({confidence} confidence)"
