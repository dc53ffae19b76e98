"""What the names of labels mean, as codes of SNOMED CT that viewers and archives know."""

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

SNOMED, PRIVATE = "SCT", "99MONAIEXT"  # a name of our own begins with 99 (PS3.16 section 8)
MOST_LETTERS = 64  # of a code's meaning, and of a segment's label


@dataclass(frozen=True)
class Coding:
    """One coded concept.

    Attributes:
        scheme: ``"SCT"``, or ``"99MONAIEXT"`` for what has no code there.
        code: at most 16 letters.
        meaning: for people, at most 64 letters.
    """

    scheme: str
    code: str
    meaning: str


@dataclass(frozen=True)
class NameCodes:
    """The codes of a label.

    Attributes:
        category: anatomy, or what is abnormal in it.
        kind: the organ or the abnormality.
        side: left, right or both, where the name says so.
    """

    category: Coding
    kind: Coding
    side: Coding | None = None


def codes_of(name: str) -> NameCodes:
    """Return the codes of a label's name, in any order of its words and with any signs between them.

    A name that the table does not hold gets a code of our own, for a wrong code would be believed.

    >>> codes_of("kidney_right").kind.meaning, codes_of("right kidney").side.meaning
    ('Kidney', 'Right')
    >>> codes_of("thing").kind.scheme
    '99MONAIEXT'
    """
    words = _words(name)
    known, sides = _known(), _table()["sides"]
    entry = known.get(words)
    side = entry.get("side") if entry else None
    for word in sorted(words & {"left", "right"}):
        paired = known.get(words - {word})
        if entry is None and paired is not None and paired.get("paired"):
            entry, side = paired, word
    if entry is None:
        return NameCodes(Coding(PRIVATE, "UNSPECIFIED", "Unspecified"), private_code(name))
    category = _table()["categories"][entry.get("category", "anatomy")]
    return NameCodes(_coding(category), _coding(entry), _coding(sides[side]) if side else None)


def private_code(meaning: str) -> Coding:
    """Return a code of our own: the same for the same words, in whatever program and whenever."""
    digits = hashlib.sha256(" ".join(meaning.casefold().split()).encode()).hexdigest()[:12]
    return Coding(PRIVATE, f"N-{digits}", meaning[:MOST_LETTERS])


def _words(name: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z0-9]+", name.casefold()))


def _coding(entry: dict[str, str]) -> Coding:
    return Coding(entry.get("scheme", SNOMED), entry["code"], entry["meaning"])


@cache
def _table() -> dict[str, Any]:
    text = (files("monai_ext.outputs") / "dicom_codes.json").read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)
    return table


@cache
def _known() -> dict[frozenset[str], dict[str, Any]]:
    return {_words(name): entry for entry in _table()["structures"] for name in entry["names"]}
