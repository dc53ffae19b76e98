"""Checksums beside files of weights: ``NAME.sha256`` as ``sha256sum`` writes it, right through any interruption.

Two files cannot take their places at one time. Before new weights replace others that have a checksum, a line
``# next SHA-256`` joins it; once they are there, a checksum of theirs alone replaces it. Whenever the writer is killed,
the weights are those before or those after, and the checksum names either; ``sha256sum -c`` passes over the line.
"""

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from monai_ext.base.errors import WeightsError
from monai_ext.base.files import sha256_of
from monai_ext.base.writing import replacing

_LINE = re.compile(r"(?:# next )?\\?([0-9a-fA-F]{64})(?:[ \t]+\*?(.*?))?[ \t]*")
_BYTES = 1 << 16  # a checksum takes a hundred
_TRIES = 5  # a reader meets a writer at most once a rename
_told: set[str] = set()


def digest_path(path: str | os.PathLike[str]) -> Path:
    """Return where the checksum of a file lies.

    >>> digest_path("models/model.pt").name
    'model.pt.sha256'
    """
    return Path(path).with_name(f"{Path(path).name}.sha256")


@contextmanager
def replacing_weights(target: str | os.PathLike[str], verify: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Do as :func:`replacing`, and leave a checksum beside the file that :func:`verify_digest` compares.

    Raises:
        WriteError: see :func:`replacing`.
    """
    target = Path(target)
    sha256 = ""

    def check(written: Path) -> None:
        nonlocal sha256
        if verify is not None:
            verify(written)
        sha256 = sha256_of(written)
        _announce(target, sha256)

    with replacing(target, check) as temporary:
        yield temporary
    _put(target, sha256)


def copy_weights(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Copy a file of weights, whole or not at all, and leave a checksum beside the copy.

    Raises:
        WeightsError: the source does not have the checksum beside it, or the copy reads back otherwise.
        WriteError: see :func:`replacing`.
        OSError: the source cannot be read.
    """
    verify_digest(source, tell=False)
    meant = sha256_of(source)

    def verify(written: Path) -> None:
        if sha256_of(written) != meant:
            raise WeightsError(
                f"{Path(target).name}: the copy reads back otherwise than the weights; check the disk and copy again",
                code="weights.verify",
            )

    with replacing_weights(target, verify) as temporary:
        shutil.copyfile(source, temporary)


def write_digest(path: str | os.PathLike[str]) -> str:
    """Write the checksum of a file beside it, and return it.

    Raises:
        WriteError: the folder cannot be written.
    """
    sha256 = sha256_of(path)
    _put(Path(path), sha256)
    return sha256


def verify_digest(path: str | os.PathLike[str], content: bytes | None = None, tell: bool = True) -> bool:
    """Compare a file of weights with the checksum beside it.

    Args:
        path: the file.
        content: what was read from it, if it was.
        tell: log that there is no checksum, once for each file.

    Returns:
        Whether there is a checksum; weights of others have none.

    Raises:
        WeightsError: the file has another checksum, or what lies in the checksum's place is none.
        OSError: the file cannot be read.
    """
    path = Path(path)
    for _ in range(_TRIES):
        mark = _mark(path)
        actual = sha256_of(path) if content is None else hashlib.sha256(content).hexdigest()
        known = _known(path)
        if known is None:
            if tell:
                _tell_once(path)
            return False
        if actual in known:
            return True
        if content is not None or _mark(path) == mark:
            break
    raise WeightsError(
        f"{path.name}: its sha256 is {actual[:16]}..., not that of {digest_path(path).name}: the file was damaged or "
        "replaced; copy it again or use an earlier one, or "
        f"remove {digest_path(path).name} if you replaced it yourself",
        code="weights.sha256",
    )


def remove_weights(path: str | os.PathLike[str]) -> None:
    """Remove a file of weights and its checksum; either may be absent."""
    # The checksum first: alone, it would refuse a file that is copied there later.
    digest_path(path).unlink(missing_ok=True)
    Path(path).unlink(missing_ok=True)


def _announce(target: Path, sha256: str) -> None:
    beside = digest_path(target)
    if not beside.exists():
        return  # weights without a checksum pass whatever they are
    text = _text(beside).rstrip("\n")
    with replacing(beside) as temporary:
        temporary.write_text(f"{text}\n# next {sha256}\n", encoding="utf-8")


def _put(target: Path, sha256: str) -> None:
    with replacing(digest_path(target)) as temporary:
        temporary.write_text(f"{sha256}  {target.name}\n", encoding="utf-8")


def _known(path: Path) -> set[str] | None:
    """Return the checksums that a file may have; ``None`` where there is no file of checksums."""
    try:
        text = _text(digest_path(path))
    except FileNotFoundError:
        return None
    lines = (_LINE.fullmatch(line.strip()) for line in text.splitlines())
    known = {line[1].lower() for line in lines if line and (not line[2] or Path(line[2]).name == path.name)}
    if not known:
        raise WeightsError(
            f"{digest_path(path).name}: holds no SHA-256 of {path.name}; remove it, or make it anew with "
            f"sha256sum {path.name}",
            code="weights.sha256",
        )
    return known


def _text(beside: Path) -> str:
    with beside.open("rb") as handle:
        return handle.read(_BYTES).decode("utf-8", errors="replace")


def _mark(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _tell_once(path: Path) -> None:
    place = os.path.realpath(path)
    if place not in _told:
        _told.add(place)
        logging.getLogger("monai_ext").warning(
            "%s: no %s beside it, so damage to it may go unnoticed", path.name, digest_path(path).name
        )
