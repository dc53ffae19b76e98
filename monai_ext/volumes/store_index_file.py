"""The index on disk: a copy of what the sidecars say, so that opening a store does not read them all.

It is made anew from the sidecars that changed, and never believed without a look at them: a row counts while its
sidecar has the size and the time of change that it was read with. Anybody may delete it.
"""

import hashlib
import io
import time
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import numpy as np

from monai_ext.base import WriteError, replacing
from monai_ext.volumes.store_index import StoreIndex, fits, joined, list_sidecars, read_rows

INDEX = ".index"
_HEAD = b"monai-ext store index 1\n"  # another number for other columns, which makes an older file worth nothing
_SETTLED_NS = 2 * 10**9  # the coarsest clock of a file system: within it a change may leave the time as it was


def open_index(folder: Path) -> StoreIndex:
    """Return the index of a store, reading the sidecars that are new or changed, and keep it for the next time.

    Several processes may do so at once and while others add volumes: the file is replaced whole, and whatever
    it says of a sidecar is compared with the sidecar at the next opening. Where nothing can be written, nothing is.

    Raises:
        StoreError: the folder cannot be listed, or a sidecar is torn, foreign or from a newer version.
    """
    now = time.time_ns()
    found = list_sidecars(folder)
    kept, kept_at = _read(folder / INDEX)
    marks = kept.marks.tolist()
    same = [
        row
        for row, name in enumerate(kept.ids.tolist())
        if found.get(name) == tuple(marks[row]) and marks[row][1] + _SETTLED_NS < kept_at
    ]
    if len(same) == len(kept) == len(found):
        return kept
    old = kept.take(np.array(same, np.int64))
    index = joined([old, read_rows(folder, found.keys() - set(old.ids.tolist()))])
    with suppress(WriteError):  # a read-only or full disk: the next opening reads the sidecars again
        _write(folder / INDEX, index, now)
    return index


def _write(path: Path, index: StoreIndex, taken_at: int) -> None:
    content = io.BytesIO()
    np.savez(
        content, taken_at=np.int64(taken_at), **{field.name: getattr(index, field.name) for field in fields(index)}
    )
    with replacing(path) as temporary:
        temporary.write_bytes(_HEAD + hashlib.sha256(content.getvalue()).digest() + content.getvalue())


def _read(path: Path) -> tuple[StoreIndex, int]:
    """Return the index of a file and when it was made; an empty one for a file that is absent, torn or altered."""
    nothing = read_rows(path.parent, ()), 0
    try:
        content = path.read_bytes()
    except OSError:
        return nothing
    start = len(_HEAD) + hashlib.sha256().digest_size
    body = content[start:]
    if not content.startswith(_HEAD) or hashlib.sha256(body).digest() != content[len(_HEAD) : start]:
        return nothing
    try:
        with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
            columns = {name: arrays[name] for name in arrays.files}
        taken_at = int(columns.pop("taken_at"))
        index = StoreIndex(**columns)
    except (ValueError, TypeError, KeyError):  # whole, but not what this version writes
        return nothing
    return (index, taken_at) if fits(index) else nothing
