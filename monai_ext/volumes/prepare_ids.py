"""Names of volumes in a store: the scan's own, told apart where two share one, and kept from run to run."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from monai_ext.base import told_apart
from monai_ext.volumes.prepare_source import Source
from monai_ext.volumes.source_places import told_place

LONGEST = 120  # file systems allow 255 bytes, of which endings, temporary names and letters of two bytes take some


def root_mark(root: Path) -> str:
    """Return eight hexadecimal digits that tell root folders apart without naming them."""
    return hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:8]


def assign_ids(
    sources: Sequence[Source],
    root: Path,
    stored: Mapping[str, tuple[str, str]],
    is_whole: Callable[[str], bool] = lambda _: True,
) -> list[tuple[str, tuple[str, ...]]]:
    """Choose the id of each source.

    A scan that the store has, by root and relative path, keeps its id. Else the id is the case name, made
    fit for a file name; where several scans would share it, each gets eight digits derived from its path
    below the root, so that the ids of a folder do not depend on where it lies. A name that a scan of another
    root has in the store gets digits of the root too.

    Args:
        sources: the scans.
        root: the folder that their relative paths start from.
        stored: the mark of the root and the path from there of each volume of the store.
        is_whole: tells whether such a volume's sidecar can be used.

    Returns:
        For each source its id, and ids under which the same relative path of another root is stored: the
        same scan, if the checksum agrees (a data folder that was moved).
    """
    mark = root_mark(root)
    by_path = {source: name for name, source in stored.items()}
    elsewhere = defaultdict(list)
    for name, (other, relative) in sorted(stored.items()):
        if other != mark:
            elsewhere[relative].append(name)
    plain = told_apart([(_file_name(source.case), source.relative) for source in sources])
    taken = {name.casefold(): name for name in stored}
    ids = []
    for source, name in zip(sources, plain, strict=True):
        places = (told_place(source.relative), source.relative)  # an earlier version's sidecars hold it in the clear
        known = next((by_path[mark, place] for place in places if (mark, place) in by_path), None)
        namesake = taken.get(name.casefold())
        # A torn sidecar, which may name another source than it did, holds no name.
        if known is None and namesake is not None and is_whole(namesake):
            name += "-" + hashlib.sha256(f"{mark}/{source.relative}".encode()).hexdigest()[:8]
        moved = dict.fromkeys(other for place in places for other in elsewhere[place])
        ids.append((known or name, tuple(moved)))
    return ids


def called_apart(sources: Sequence[Source], ids: Sequence[str]) -> list[Source]:
    """Let sentences call a scan by its id where others share its name: every patient's folder may hold a "ct".

    Args:
        sources: the scans.
        ids: the id of each.
    """
    counts = Counter(source.case.casefold() for source in sources)
    return [
        replace(
            source,
            case=volume_id,
            problem=source.problem and volume_id + source.problem.removeprefix(source.case),
        )
        if counts[source.case.casefold()] > 1
        else source
        for source, volume_id in zip(sources, ids, strict=True)
    ]


def _file_name(case: str) -> str:
    name = re.sub(r"[^\w.+-]", "_", case).lstrip(".-")[:LONGEST] or "scan"
    # "x.label.b2nd" holds the labels of "x".
    return re.sub(r"\.(label|json|b2nd)$", r"_\1", name, flags=re.IGNORECASE)
