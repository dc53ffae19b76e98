"""What references of a configuration lead to: entries of all files, for any may be merged with any."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from monai_ext.audit.monai_names import full_names

_RELATIVE = re.compile(r"[@%](?:::)+")
_FILE = re.compile(r".*\.(?:json|yaml|yml)(?=(?:::|#)|$)", re.IGNORECASE)
_MOST_STEPS, _MOST_ROUNDS = 50, 10
MOST_LINKS, MOST_IMPORTS = 2000, 500


class _EndlessError(ValueError):
    """References to references without end, or too many of them."""


def absolute(text: str, place: str) -> str:
    """Return a text with references such as ``@::sibling`` as seen from the root.

    >>> absolute("@::b", "a::c"), absolute("%a#b", "")
    ('@a::b', '%a::b')
    """
    text = text.replace("#", "::")
    above = place.split("::")
    for prefix in sorted(set(_RELATIVE.findall(text)), reverse=True):
        steps = prefix.count("::")
        rest = above[:-steps] if steps <= len(above) else []
        text = text.replace(prefix, prefix[0] + "".join(f"{one}::" for one in rest))
    return text


def imports_of(text: str) -> dict[str, str] | None:
    """Return what an import statement binds, name to dotted path; ``None`` if the text is something else."""
    try:
        body = ast.parse(text[1:]).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if not body or not isinstance(body[0], ast.Import | ast.ImportFrom):
        return None
    first = body[0]
    above = f"{'.' * first.level}{first.module or ''}." if isinstance(first, ast.ImportFrom) else ""
    return {one.asname or one.name: f"{above}{one.name}" for one in first.names}


class Entries:
    """What stands at each id, and which imported modules and functions a reference to it would hand on.

    Places of a list are not told apart, for lists of several files are joined when they are merged.

    Args:
        found: ids and what stands there, over all configurations.

    Raises:
        ValueError: more references or imports than can be judged.
    """

    def __init__(self, found: Iterable[tuple[str, Any]]) -> None:
        self._held: dict[str, list[Any]] = defaultdict(list)
        for place, value in found:
            link = isinstance(value, str) and value.startswith(("@", "%"))
            self._held[_general(place)].append(absolute(value, place) if link else value)
        self._below: dict[str, set[str]] = defaultdict(set)
        self._known: dict[str, set[str] | None] = {}
        self._gather()

    def paths(self, name: str) -> set[str] | None:
        """Return the dotted paths that a reference may stand for, empty where it is a value.

        Returns:
            ``None`` where no file has such an entry, or too many steps lead there, so that nothing can be told.
        """
        if name not in self._known:
            try:
                values = list(self._contents(name, set()))
            except _EndlessError:
                values = []
            self._known[name] = set().union(*map(_paths_of, values)) if values else None
        return self._known[name]

    def handed_on(self, name: str) -> set[str]:
        """Return the dotted paths of everything imported at an entry or below it."""
        found = set(self.paths(name) or ()) | self._below.get(_general(name), set())
        for target in self._through(_general(name)):
            found |= self._below.get(target, set())
        return found

    def _gather(self) -> None:
        links = []
        for place, values in self._held.items():
            for value in values:
                if isinstance(value, str) and value.startswith(("@", "%")):
                    links.append((place, _target_of(value)))
                elif isinstance(value, str):
                    self._spread(place, _paths_of(value))
        if len(links) > MOST_LINKS or len(self._below.get("", ())) > MOST_IMPORTS:
            raise _EndlessError(f"more than {MOST_LINKS} references or {MOST_IMPORTS} imports, too many to judge")
        for _ in range(_MOST_ROUNDS):
            # Each round follows one more step of references to references.
            changed = [self._spread(place, self.handed_on(target)) for place, target in links]
            if not any(changed):
                return
        for place, _ in links:
            self._spread(place, set(self._below.get("", ())))  # too many steps to tell: it may be any of them

    def _spread(self, place: str, paths: set[str]) -> bool:
        if paths <= self._below.get(place, set()):
            return False
        parts = place.split("::")
        for count in range(len(parts) + 1):
            self._below["::".join(parts[:count])] |= paths
        return True

    def _contents(self, name: str, seen: set[str]) -> Iterator[Any]:
        name = _general(name)
        if name in seen:
            return
        if len(seen) > _MOST_STEPS:
            raise _EndlessError("too many steps to follow")
        seen.add(name)
        for value in self._held.get(name, ()):
            if isinstance(value, str) and value.startswith(("@", "%")):
                yield from self._contents(_target_of(value), seen)
            else:
                yield value
        for target in self._through(name):
            yield from self._contents(target, seen)

    def _through(self, name: str) -> Iterator[str]:
        """Yield where an id leads if an entry above it is a macro or a reference."""
        parts = name.split("::")
        for count in range(1, len(parts)):
            for value in self._held.get("::".join(parts[:count]), ()):
                if isinstance(value, str) and value.startswith(("@", "%")):
                    yield _general("::".join([one for one in [_target_of(value)] if one] + parts[count:]))


def _general(place: str) -> str:
    return "::".join("0" if part.isdecimal() else part for part in place.replace("#", "::").split("::"))


def _target_of(link: str) -> str:
    file = _FILE.match(link[1:]) if link.startswith("%") else None
    return _general((link[1 + file.end() :] if file else link[1:]).removeprefix("::"))


def _paths_of(value: Any) -> set[str]:
    if isinstance(value, str) and value.startswith("$"):
        return set((imports_of(value) or {}).values())
    if isinstance(value, Mapping) and value.get("_mode_", "default") != "default":
        target = value.get("_target_")
        return set(full_names(target)) if isinstance(target, str) else set()
    return set()
