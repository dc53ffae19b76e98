"""Patterns of paths, such as ``imagesTr/word_{number}.nii.gz``: plain text, never regular expressions of a file."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from monai_ext.base import ManifestError

_PLACEHOLDER = re.compile(r"\{([a-z]+)\}|(\*)")
_MOST = 12  # placeholders of one pattern; each makes matching slower
_ABOVE = 5  # folders that archives and people put above the first one of a pattern


@dataclass(frozen=True)
class PatternMatch:
    """How a pattern fits a path.

    Attributes:
        above: the part of the path in front of the pattern, empty or ending in ``/``.
        values: what each placeholder stands for.
    """

    above: str
    values: Mapping[str, str]


class PathPattern:
    """A relative path with placeholders, which may stand below further folders.

    ``{number}`` stands for digits, any other word in braces for text within one part of the path, the same text
    where it occurs twice, and ``*`` for any text within one part. A pattern that ends in ``/`` is of a folder of
    DICOM files. Everything else stands for itself.

    Args:
        text: the pattern.
        classes: what ``{class}`` may stand for; anything when empty.

    Raises:
        ManifestError: too many placeholders, or a brace that is none.

    >>> PathPattern("data/case_{number}/{what}.nii").match("kits/data/case_007/ct.nii").values
    {'number': '007', 'what': 'ct'}
    """

    def __init__(self, text: str, classes: Collection[str] = ()) -> None:
        self.text = text
        parts, literals, names, end = [], [""], set[str](), 0
        for found in _PLACEHOLDER.finditer(text):
            literals.append(text[end : found.start()])
            parts += [re.escape(literals[-1]), _expression(found[1], names, classes)]
            end = found.end()
        literals.append(text[end:])
        self._expression = re.compile(
            rf"(?P<_above>(?:[^/]+/){{0,{_ABOVE}}}?)" + "".join(parts) + re.escape(literals[-1])
        )
        self.names = frozenset(names)
        # Most paths fit no pattern, and these two tell so quickly.
        self._tail, self._longest = literals[-1], max(literals, key=len)
        self.literal = sum(map(len, literals))
        if "{" in "".join(literals) or "}" in "".join(literals) or len(parts) > 2 * _MOST:
            raise ManifestError(
                f"pattern {text[:80]!r}: braces hold a word of small letters, such as {{id}}, at most {_MOST} in all; "
                "correct the layout of the data set",
                code="manifest.pattern",
            )

    def match(self, path: str) -> PatternMatch | None:
        """Return how the pattern fits the end of a path, or ``None`` where it does not."""
        if not path.endswith(self._tail) or self._longest not in path:
            return None
        found = self._expression.fullmatch(path)
        if found is None:
            return None
        values = found.groupdict()
        return PatternMatch(values.pop("_above"), values)


def filled(template: str, values: Mapping[str, str]) -> str:
    """Return a text with each placeholder replaced by what it stands for.

    >>> filled("patient {number}", {"number": "7"})
    'patient 7'

    Raises:
        ManifestError: a placeholder that the pattern does not have.
    """

    def value(found: re.Match[str]) -> str:
        if found[1] not in values:
            raise ManifestError(
                f"template {template[:80]!r}: the pattern of the image has no {found[0]}; correct the layout of the "
                "data set",
                code="manifest.pattern",
            )
        return values[found[1]]

    return _PLACEHOLDER.sub(value, template)


def _expression(name: str | None, names: set[str], classes: Collection[str]) -> str:
    if name is None:
        return "[^/]*"
    if name in names:
        return f"(?P={name})"
    names.add(name)
    if name == "number":
        return f"(?P<{name}>[0-9]+)"
    if name == "class" and classes:
        return f"(?P<{name}>{'|'.join(map(re.escape, sorted(classes, key=len, reverse=True)))})"
    return f"(?P<{name}>[^/]+?)"
