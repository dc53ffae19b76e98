"""Names, checksums and writing of files, such that nothing half-written is ever seen."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from monai_ext.base.errors import InputError, ManifestError, WriteError

_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".b2nd", ".dcm", ".json", ".png")


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


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file as 64 lower-case hexadecimal digits."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def inside(root: str | os.PathLike[str], relative: str | os.PathLike[str]) -> Path:
    """Resolve a path from a manifest, archive or client under ``root``, following links.

    Raises:
        ManifestError: the path is absolute, or leaves the root through ``..`` or a link.
    """
    base = Path(root).resolve()
    target = (base / relative).resolve()
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
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error).splitlines()[0]
        raise WriteError(
            f"{target.name}: could not be written ({reason}); "
            "free space or choose a writable output folder, then run again",
            code="write.failed",
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


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
