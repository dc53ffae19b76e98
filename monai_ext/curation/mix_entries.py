"""Entries of several manifests in one: paths from a common root, ids and patients told apart, weights."""

import hashlib
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from monai_ext.base import ManifestError
from monai_ext.manifests import ManifestEntry

_LONGEST_ID, _LONGEST_GROUP = 120, 200


def moved(entries: Sequence[ManifestEntry], part_root: Path, root: Path, name: str) -> list[ManifestEntry]:
    """Return entries with paths that start from another root.

    Args:
        entries: of one manifest.
        part_root: the folder that their paths start from.
        root: the folder that the new ones start from.
        name: of the manifest, for messages.

    Raises:
        ManifestError: the former folder lies outside the latter.
    """
    # By real paths: a link would be refused later, where scans are read.
    base, folder = Path(os.path.realpath(root)), Path(os.path.realpath(part_root))
    if not folder.is_relative_to(base):
        raise ManifestError(
            f"{name}: its scans lie outside the root of the mix; give --root with a folder that holds all data sets "
            "(links that lead out of it do not count), or move them below it",
            code="manifest.outside_root",
        )
    prefix = "" if folder == base else folder.relative_to(base).as_posix() + "/"
    return [
        replace(entry, image=prefix + entry.image, label=None if entry.label is None else prefix + entry.label)
        for entry in entries
    ]


def told_apart_entries(entries: Sequence[ManifestEntry]) -> list[ManifestEntry]:
    """Put the data set before ids that several entries share, and before patients that several data sets share."""
    ids = Counter(entry.id.casefold() for entry in entries)
    sets: dict[str, set[str]] = {}
    for entry in entries:
        sets.setdefault(entry.group, set()).add(entry.dataset)
    named = [
        replace(
            entry,
            id=entry.id if ids[entry.id.casefold()] == 1 else _short(f"{entry.dataset}-{entry.id}", entry.image),
            group=entry.group if len(sets[entry.group]) == 1 else f"{entry.dataset}:{entry.group}"[:_LONGEST_GROUP],
        )
        for entry in entries
    ]
    again = Counter(entry.id.casefold() for entry in named)
    return [
        entry if again[entry.id.casefold()] == 1 else replace(entry, id=_short(entry.id, entry.image, always=True))
        for entry in named
    ]


def weighted(entries: Sequence[tuple[str, ManifestEntry]], weights: Mapping[str, str]) -> list[ManifestEntry]:
    """Multiply weights of entries by the factor of their part, or scale them to its share of each split.

    Args:
        entries: each with the key of its part.
        weights: by key a factor such as ``"2.5"`` or a share such as ``"30%"``; a part without one keeps its own.

    Raises:
        ManifestError: shares that leave nothing for the other parts, or weights that are all 0 or too large to add.
    """
    scaled = {key: float(text) for key, text in weights.items() if not text.endswith("%")}
    shares = {key: float(text[:-1]) / 100 for key, text in weights.items() if text.endswith("%")}
    made = [(key, replace(entry, weight=entry.weight * scaled.get(key, 1))) for key, entry in entries]
    if not math.isfinite(sum(entry.weight for _, entry in made)):
        raise ManifestError(
            "the weights are too large to be added up; give smaller ones, for only their ratio counts",
            code="manifest.weights",
        )
    factors = {split: _factors([p for p in made if p[1].split == split], shares) for split in _splits(made)}
    done = [
        # Six digits are plenty, and the same on every machine.
        replace(entry, weight=float(f"{entry.weight * factors[entry.split].get(key, 1):.6g}"))
        for key, entry in made
    ]
    if not any(entry.weight for entry in done):
        raise ManifestError(
            "every weight is 0, so that no scan could be drawn; give one part a factor above 0", code="manifest.weights"
        )
    return done


def _factors(entries: Sequence[tuple[str, ManifestEntry]], shares: Mapping[str, float]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for key, entry in entries:
        sums[key] = sums.get(key, 0) + entry.weight
    here = {key: share for key, share in shares.items() if sums.get(key)}
    total, rest = sum(here.values()), sum(weight for key, weight in sums.items() if key not in here)
    if total > 1 + 1e-9 or (rest and total > 1 - 1e-9):
        raise ManifestError(
            f"the shares add up to {100 * total:g}%{', which leaves nothing for the other parts' if rest else ''}; "
            "give smaller ones",
            code="manifest.shares",
        )
    whole = rest / (1 - total) if rest else sum(sums.values()) / (total or 1)
    return {key: share * whole / sums[key] for key, share in here.items()}


def _splits(entries: Sequence[tuple[str, ManifestEntry]]) -> list[str]:
    return list(dict.fromkeys(entry.split for _, entry in entries))


def _short(name: str, path: str, always: bool = False) -> str:
    if len(name) <= _LONGEST_ID and not always:
        return name
    return f"{name[: _LONGEST_ID - 9]}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"
