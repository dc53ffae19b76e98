"""Checksums kept between runs of ``manifest build``, so that one that was killed need not read a terabyte again.

A checksum is used again only where every file of the scan has the size, the times of change and the inode that it
had: the time of the inode's change cannot be set back by copying or by touch. What is written carries no names.
"""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from monai_ext.base import WriteError, replacing

_VERSION = 1
_EVERY_S = 30.0  # at most this much reading is lost when a run is killed
_SETTLED_NS = 2_000_000_000  # two changes within the clock of a file system (2 s on FAT) look like one


class ChecksumNotes:
    """Checksums by a digest of path and state, in a hidden file beside the manifest.

    Args:
        manifest: the manifest's file, which they are written beside.
    """

    def __init__(self, manifest: str | os.PathLike[str]) -> None:
        path = Path(manifest)
        self.path = path.with_name(f".{path.name}.checksums")
        self._known = _read(self.path)
        self._used: dict[str, str] = {}
        self._written = time.monotonic()

    def get(self, state: str | None) -> str | None:
        """Return the checksum of a scan that is in the state in which it was read, if it was."""
        found = self._known.get(state) if state else None
        if state and found:
            self._used[state] = found
        return found

    def add(self, state: str | None, checksum: str) -> None:
        """Note a checksum; written now and then, and by `write`."""
        if state:
            self._known[state] = self._used[state] = checksum
            if time.monotonic() - self._written > _EVERY_S:
                self._write(self._known)
                self._written = time.monotonic()

    def keep(self) -> None:
        """Write everything that is known, as well as can be: the run ends early."""
        with suppress(WriteError):
            self._write(self._known)

    def write(self) -> None:
        """Write the checksums that this run used or made; those of files that are gone are dropped."""
        self._write(self._used)

    def _write(self, checksums: dict[str, str]) -> None:
        try:
            with replacing(self.path) as temporary:
                temporary.write_text(json.dumps({"version": _VERSION, "checksums": checksums}), encoding="utf-8")
        except WriteError as error:
            # Named by the manifest: nobody knows the hidden file.
            name = self.path.name.removeprefix(".").removesuffix(".checksums")
            reason = str(error).partition(": ")[2]
            raise WriteError(f"{name}: notes of its checksums beside it {reason}", code=error.code) from error


def state_of(relative: str, files: Sequence[Path], now_ns: int | None = None) -> str | None:
    """Return a digest of a scan's path and of the state of its files; ``None`` if one changed a moment ago.

    Args:
        relative: path of the scan from the root.
        files: what it consists of.
        now_ns: the time, by default that of the system.
    """
    now = time.time_ns() if now_ns is None else now_ns
    digest = hashlib.sha256(relative.encode())
    for path in sorted(files):
        state = path.stat()
        if now - max(state.st_mtime_ns, state.st_ctime_ns) < _SETTLED_NS:
            return None
        numbers = (state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)
        digest.update(f"\0{path.name}\0{numbers}".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _read(path: Path) -> dict[str, str]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}  # none yet, or not ours: everything is read again
    if not isinstance(content, dict) or content.get("version") != _VERSION:
        return {}
    checksums = content.get("checksums")
    pairs = checksums.items() if isinstance(checksums, dict) else ()
    return {state: value for state, value in pairs if isinstance(value, str) and len(value) == 64}
