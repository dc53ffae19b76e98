"""Judging dotted names and attributes against the lists."""

import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from monai_ext.audit.name_lists import DENIED, KNOWN_BAD, MODULES, NAMES, NEVER, ROOMS

_UNLISTED = "not on the list of what bundles may use"
_LIBRARIES = frozenset({"torch", "monai", "monai_ext", "ignite", "einops"})  # numpy is a method of tensors, too
_ROOTS = {name.partition(".")[0] for name in ROOMS}
_IMPORTABLE = {name.rpartition(".")[0] for name in NAMES} | ROOMS


def why_not_name(name: str) -> str:
    """Return why a dotted name may not be used, ``""`` if it may.

    >>> why_not_name("monai.transforms.LoadImaged"), why_not_name("os.system")
    ('', 'it reaches the system')
    >>> why_not_name("torch.nn.modules.module.torch.hub.load")
    "its part 'torch' leads to another module"
    """
    parts = name.split(".")
    if not name.isascii() or not all(part.isidentifier() for part in parts):
        return "no plain dotted name of ASCII letters"
    above = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]  # the longest first
    denied = next((DENIED[one] for one in above if one in DENIED), None)
    if denied:
        return denied
    entry = next((one for one in above if one in NAMES), None) or next((one for one in above if one in ROOMS), None)
    if entry is None:
        return next((KNOWN_BAD[one] for one in above if one in KNOWN_BAD), _UNLISTED)
    if entry == name and entry in ROOMS:
        return "a whole module handed on"
    for part in parts[entry.count(".") + 1 :]:
        if part in ("torch", "numpy", "monai", "monai_ext", "ignite", "einops"):
            return f"its part {part!r} leads to another module"
        reason = why_not_attribute(part)
        if reason:
            return reason
    return ""


def why_not_attribute(name: str) -> str:
    """Return why an attribute may not be asked of a value whose kind is not known, ``""`` if it may."""
    if not name.isascii():
        return f"its part {name!r} has letters that look like others"
    if name.startswith("_"):
        return f"its part {name!r} is private to Python or a library"
    if name in NEVER:
        return f"its part {name!r} runs, fetches, loads or deletes"
    if name in _LIBRARIES:
        return f"its part {name!r} leads to another module"
    return f"its part {name!r} leads to a module of Python" if name in MODULES else ""


@cache
def is_module(name: str) -> bool:
    """Return whether a dotted name is a module of an installed library, from its files: none of it is imported."""
    root, *parts = name.split(".")
    spec = find_spec(root) if root.isidentifier() and root in _ROOTS else None
    if spec is None or not parts:
        return spec is not None
    for folder in spec.submodule_search_locations or ():
        path = Path(folder).joinpath(*parts)
        if path.with_name(f"{path.name}.py").is_file() or (path / "__init__.py").is_file():
            # A package may show a function by the name of the module that it is from.
            shown = getattr(sys.modules.get(name.rpartition(".")[0]), parts[-1], None)
            return not callable(shown)
    return False


def why_not_import(module: str, name: str | None = None) -> str:
    """Return why a module, or a name from it, may not be imported, ``""`` if it may.

    A module may be imported where anything in it, or in a package below it, is on the list.
    """
    if name is not None and not why_not_name(f"{module}.{name}"):
        return ""
    whole = module if name is None else f"{module}.{name}"
    roots = (one for one in _IMPORTABLE if one == whole or one.startswith(f"{whole}."))
    if next(roots, None) is not None and (name is None or not name.startswith("_")):
        return ""
    if name is None and any(whole.startswith(f"{room}.") for room in ROOMS):
        return why_not_name(whole)
    return why_not_name(whole) or _UNLISTED
