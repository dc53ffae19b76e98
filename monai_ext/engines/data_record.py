"""Which data a run trains on, by checksum: a run that goes on compares them with those it began with."""

from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

from monai_ext.base import case_id, gather, plain_name, rank, sha256_of, world
from monai_ext.volumes import VolumeStore

DataRecord = list[tuple[str, str]]
_DIGITS = 16  # of 64: changes by accident are to be told, of some ten thousand scans


def stored_data(store: str, items: Sequence[Mapping[str, Any]]) -> DataRecord:
    """Return each volume's name, and the checksum of its stored voxels from its sidecar.

    Args:
        store: folder of a `VolumeStore`.
        items: as `store_items` lists them.

    Raises:
        StoreError: a volume is missing or its sidecar is torn.
    """
    opened = VolumeStore(store)
    own = {place: opened.record(items[place]["image"]).image.sha256[:_DIGITS] for place in _share(items)}
    return [(str(item["image"]), digits) for item, digits in zip(items, _joined(own, items), strict=True)]


def filed_data(
    items: Sequence[Mapping[Hashable, Any]], keys: Sequence[str], workers: int = 4, read: bool = True
) -> DataRecord:
    """Return each item's name and the checksum of its files; the ranks share the work.

    Files that are not there are left to whoever reads them.

    Args:
        items: ``[{"case": name, key: path, ...}, ...]``; a path may be that of a folder of slices, or empty.
        keys: whose files are read.
        workers: threads that read.
        read: ``False`` goes by the sizes of the files, for which none is opened.
    """
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        mine = _share(items)
        found = pool.map(lambda place: _of_item(items[place], keys, read), mine)
        own = dict(zip(mine, found, strict=True))
    return [(plain_name(str(item["case"])), digits) for item, digits in zip(items, _joined(own, items), strict=True)]


def _of_item(item: Mapping[Hashable, Any], keys: Sequence[str], read: bool) -> str:
    summed = sha256()
    for key in keys:
        path = Path(item[key]) if item.get(key) else None
        files = sorted(path.rglob("*")) if path is not None and path.is_dir() else [path]
        # What is listed without a file, such as a mask of a normal picture, counts too.
        marks = [_of_file(file, read) for file in files if file is None or not file.is_dir()]
        summed.update("\n".join([key, *marks, ""]).encode())
    return summed.hexdigest()[:_DIGITS]


def _of_file(path: Path | None, read: bool) -> str:
    if path is None or not path.exists():
        return "absent"
    return sha256_of(path) if read else f"{case_id(path)} {path.stat().st_size}"


def _share(items: Sequence[Any]) -> range:
    # Neighbours of a list lie in one folder, so each rank takes a stretch of it.
    bounds = [len(items) * number // world() for number in range(world() + 1)]
    return range(*list(pairwise(bounds))[rank()])


def _joined(own: Mapping[int, str], items: Sequence[Any]) -> list[str]:
    every = {place: digits for part in gather(own) for place, digits in part.items()}
    return [every[place] for place in range(len(items))]
