"""Reading and writing sidecars: JSON that carries its own checksum.

The sidecar is written last, so a volume without one does not exist. Keys that this version does not know are
passed over, so that a later one may add some.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from monai_ext.base import StoreError
from monai_ext.volumes.store_fields import from_json, to_json
from monai_ext.volumes.store_record import StoreRecord

FORMAT = "monai-ext volume store"
VERSION = 1


class SidecarMark(NamedTuple):
    """What tells, without reading it, whether a sidecar is still the one that was read."""

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "SidecarMark":
        """Take the mark from what the system says about the file."""
        return cls(status.st_size, status.st_mtime_ns)


def sidecar_path(folder: Path, volume_id: str) -> Path:
    """Return where the sidecar of a volume lies."""
    return folder / f"{volume_id}.json"


def data_path(folder: Path, volume_id: str, kind: str) -> Path:
    """Return where the data of a volume lie; ``kind`` is ``"image"`` or ``"label"``."""
    return folder / (f"{volume_id}.b2nd" if kind == "image" else f"{volume_id}.label.b2nd")


def read_record(path: Path) -> StoreRecord:
    """Read one sidecar.

    Raises:
        StoreError: absent, torn or altered, no sidecar of ours, or from a newer version.
    """
    return read_marked(path)[0]


def read_marked(path: Path) -> tuple[StoreRecord, SidecarMark]:
    """Read one sidecar as :func:`read_record` does, and the mark of the very file that was read."""
    name = path.name.removesuffix(".json")
    try:
        with path.open("rb") as handle:  # open, it stays the same one when another is renamed over it
            mark = SidecarMark.of(os.fstat(handle.fileno()))
            content = json.loads(handle.read())
    except FileNotFoundError:
        raise StoreError(
            f"{name}: the store has no such volume; list its .ids or prepare the scan",
            code="store.missing",
            case=name,
        ) from None
    except OSError as error:
        raise StoreError(
            f"{name}: its sidecar cannot be read ({error.strerror}); make {name}.json readable",
            code="store.closed",
            case=name,
        ) from None
    except (ValueError, RecursionError):
        raise _torn(name) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise StoreError(
            f"{path.name}: not a sidecar of a volume store; move it out, or choose another store folder",
            code="store.foreign",
            case=name,
        )
    if content.get("version") != VERSION:
        raise StoreError(
            f"{name}: store format {content.get('version')!r}, while this monai-ext reads {VERSION}; "
            "upgrade monai-ext, or prepare into another folder",
            code="store.version",
            case=name,
        )
    try:
        if content.pop("checksum") != _checksum(content) or content["id"] != name:
            raise _torn(name)
        return from_json(content), mark
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, StoreError):
            raise
        raise _torn(name) from error


def record_text(record: StoreRecord) -> str:
    """Return the sidecar's text; the same record always gives the same text."""
    content = {"format": FORMAT, "version": VERSION, **to_json(record)}
    return json.dumps({**content, "checksum": _checksum(content)}, indent=1) + "\n"


def _torn(name: str) -> StoreError:
    return StoreError(
        f"{name}: its sidecar is torn or was altered; prepare the scan again, or delete {name}.json",
        code="store.torn",
        case=name,
    )


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
