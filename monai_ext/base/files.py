"""Names, checksums and writing of files, such that nothing half-written is ever seen."""

import hashlib
import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai_ext.base.errors import InputError, ManifestError, WriteError

_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".b2nd", ".dcm", ".zip", ".json", ".png")


def case_id(path: str | os.PathLike[str]) -> str:
    """Return the base name without its image ending: the only part of a path that may be shown or logged.

    >>> case_id("/data/Doe^Jane/ct_007.nii.gz")
    'ct_007'
    """
    name = Path(path).name
    for ending in _ENDINGS:
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return name


def plain_name(name: str) -> str:
    r"""Return a name that can be written anywhere: bytes of a file name that are no UTF-8 become ``_``.

    Python holds such bytes as lone surrogates, which no text file takes.

    >>> plain_name("gr\udcfcn.png")
    'gr_n.png'
    """
    return re.sub("[\ud800-\udfff]", "_", name)


def told_apart(names: Sequence[tuple[str, str]]) -> list[str]:
    """Return names for scans of several folders, each with eight digits of its path where others share it.

    Some file systems do not tell A from a, so neither does this.

    Args:
        names: of each scan its name and its path from the root; one path is one scan.

    >>> told_apart([("ct", "a/ct.nii"), ("ct", "b/ct.nii"), ("mr", "mr.nii")])
    ['ct-bf0fbf95', 'ct-b5ca3e0b', 'mr']
    """
    paths = defaultdict(set)
    for name, path in names:
        paths[name.casefold()].add(path)
    return [
        name if len(paths[name.casefold()]) == 1 else f"{name}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"
        for name, path in names
    ]


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file as 64 lower-case hexadecimal digits."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def inside(root: str | os.PathLike[str], relative: str | os.PathLike[str]) -> Path:
    """Resolve a path from a manifest, archive or client under ``root``, following links.

    Raises:
        ManifestError: the path is absolute, leaves the root through ``..`` or a link, or holds a null character.
    """
    # Not Path.resolve, which raises RuntimeError for links that lead round in a circle.
    base = Path(os.path.realpath(root))
    if "\0" in os.fspath(relative):
        name = case_id(relative).replace("\0", "?")
        raise ManifestError(
            f"{name}: a null character (here ?) stands in the path, which no file name has; correct the list",
            code="manifest.path",
            case=name,
        )
    target = Path(os.path.realpath(base / relative))
    if Path(relative).is_absolute() or not target.is_relative_to(base):
        raise ManifestError(
            f"{case_id(relative)}: the path points outside its root folder; "
            "list it relative to the root, without '..' and without links that leave it",
            code="manifest.outside_root",
            case=case_id(relative),
        )
    return target


@contextmanager
def replacing(target: str | os.PathLike[str], verify: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Write beside ``target`` and rename over it only when everything went well.

    The temporary file keeps the target's ending (writers choose the format by it), is flushed to
    disk, optionally re-read by ``verify``, and removed on any failure.

    Args:
        target: the final path; its folder is made when absent.
        verify: called with the temporary path before the rename; it raises to refuse the file.

    Raises:
        WriteError: the disk is full, the folder is read-only, or another system error occurred.
    """
    target = Path(target)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".writing-", suffix=f"-{target.name}")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        _flush(temporary)
        if verify is not None:
            verify(temporary)
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, target)
        temporary = None
        _flush(target.parent)
    except InputError:
        raise
    except Exception as error:
        cause = _of_the_system(error)
        if cause is None:
            raise
        reason = os.strerror(cause.errno) if cause.errno else str(cause).splitlines()[0]
        raise WriteError(
            f"{target.name}: could not be written ({reason}); "
            "free space or choose a writable output folder, then run again",
            code="write.failed",
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def save_torch(content: Any, path: str | os.PathLike[str]) -> None:
    """Do as ``torch.save``, but by way of Python's own file, which tells a full disk from other troubles."""
    import torch  # not above: reading scans loads this room, and needs no torch

    with open(path, "wb") as handle:
        torch.save(content, handle)


def check_output(folder: str | os.PathLike[str]) -> None:
    """Refuse an output folder that cannot be written, before hours are spent on what would go into it.

    Raises:
        WriteError: it, or a folder above it, is a file or read-only.
    """
    path = Path(folder).absolute()
    there = next(place for place in (path, *path.parents) if os.path.lexists(place))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        reason = "cannot be written" if there.is_dir() else "is no folder"
        raise WriteError(
            f"{path.name}: {there.name} {reason}; choose a writable output folder"
            if there != path
            else f"{path.name}: {reason}; choose a writable output folder",
            code="write.folder",
        )


def _of_the_system(error: BaseException) -> OSError | None:
    """Return the system's error behind one of a library: torch's stands before it, safetensors' quotes it."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        quoted = re.search(r"\(os error (\d+)\)", str(cause))
        cause = OSError(int(quoted[1]), "") if quoted else cause.__context__
    return cause


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    # mkstemp makes files private; outputs follow the user's umask like any other file.
    mask = os.umask(0)
    os.umask(mask)
    return mask
