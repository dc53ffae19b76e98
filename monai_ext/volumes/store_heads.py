"""Which scans a store holds, from the first lines of its sidecars: ten thousand in a fraction of a second.

A run that prepares ten thousand scans must know the names of all, but nothing of their chunks and bodies.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from monai_ext.base import StoreError
from monai_ext.volumes.store_sidecar import FORMAT, VERSION, read_record, sidecar_path

_HEAD = 4096  # bytes; a sidecar names its source within the first thousand, unless the path is very long
_STRING = r'"(?:[^"\\]|\\.)*"'
_SOURCE = re.compile(rf'^ "source": ({_STRING}),\n "source_root": ({_STRING}),$', re.MULTILINE)
_START = f'{{\n "format": {json.dumps(FORMAT)},\n "version": {VERSION},\n "id": '


def stored_sources(folder: Path) -> dict[str, tuple[str, str]]:
    """Return, of each volume's id, the mark of its root and the scan's path from there.

    What is damaged further on in a sidecar goes unseen here; see :func:`has_whole_sidecar`.

    Raises:
        StoreError: a sidecar is foreign, from a newer version or closed. Torn ones are passed over: their scans
            are prepared again.
    """
    return dict(_sources(folder))


def has_whole_sidecar(folder: Path, volume_id: str) -> bool:
    """Tell whether a sidecar can be used; it is read anew, all of it."""
    try:
        read_record(sidecar_path(folder, volume_id))
    except StoreError:
        return False
    return True


def _sources(folder: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    for path in folder.glob("[!.]*.json"):
        try:
            with path.open("rb") as handle:
                head = handle.read(_HEAD).decode(errors="replace")
        except OSError:
            head = ""  # reading it whole will tell
        name = path.name.removesuffix(".json")
        # A copy of another volume's sidecar would give that one's scan a second name: reading it whole refuses it.
        found = _SOURCE.search(head) if head.startswith(f"{_START}{json.dumps(name)},\n") else None
        if found:
            yield name, (json.loads(found[2]), json.loads(found[1]))
            continue
        try:
            record = read_record(path)
        except StoreError as error:
            # A second run may just be replacing it. Torn ones are prepared again; nobody else's file is touched.
            if error.code not in ("store.torn", "store.missing"):
                raise
        else:
            yield record.id, (record.source_root, record.source)
