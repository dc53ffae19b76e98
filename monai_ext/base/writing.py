"""Writing of files, such that nothing half-written is ever seen and nothing stays behind a killed writer."""

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai_ext.base.errors import InputError, WriteError
from monai_ext.base.leftovers import PREFIX, hold, remove_leftovers_once

_inherited: dict[Path, list[int]] = {}  # locks of files that took the place of another writer's temporary file


@contextmanager
def replacing(target: str | os.PathLike[str], verify: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Write beside ``target`` and rename over it only when everything went well.

    The temporary file keeps the target's ending (writers choose the format by it), is flushed to
    disk, optionally re-read by ``verify``, and removed on any failure. It is locked meanwhile: write into it, or
    over it by ``replacing`` again. The first writing of a process into a folder removes what killed writers left there.

    Args:
        target: the final path; its folder is made when absent.
        verify: called with the temporary path, last before the rename; it raises to refuse the file.

    Raises:
        WriteError: the disk is full, the folder is read-only, or another system error occurred.
    """
    target = Path(target)
    temporary: Path | None = None
    held: list[int] = []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers_once(target.parent)
        temporary = _begin(target, held)
        yield temporary
        held += _inherited.pop(temporary, [])
        flush(temporary)
        if verify is not None:
            verify(temporary)
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, target)
        temporary = None
        if target.name.startswith(PREFIX):
            _inherited[target], held = held, []
        flush(target.parent)
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
            held += _inherited.pop(temporary, [])
        for descriptor in held:
            os.close(descriptor)


def save_torch(content: Any, path: str | os.PathLike[str]) -> None:
    """Do as ``torch.save``, but by way of Python's own file, which tells a full disk from other troubles."""
    import torch  # not above: reading scans loads this room, and needs no torch

    with open(path, "wb") as handle:
        torch.save(content, handle)


def save_tensors(tensors: Mapping[str, Any], path: str | os.PathLike[str], texts: Mapping[str, str]) -> None:
    """Do as ``safetensors.torch.save_file``, which writes a file of its own name and renames it over ``path``.

    Args:
        tensors: by name, each with memory of its own.
        path: the file.
        texts: the file's metadata.
    """
    from safetensors.torch import save  # not above, as torch

    with open(path, "wb") as handle:
        handle.write(save(dict(tensors), dict(texts)))


def flush(path: Path) -> None:
    """Have the system bring a file or folder to the disk, and wait for it.

    Raises:
        OSError: the disk is full, or fails.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


def _begin(target: Path, held: list[int]) -> Path:
    """Make a temporary file beside the target, locked for as long as the descriptor that joins ``held`` is open."""
    while True:
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=PREFIX, suffix=f"-{target.name}")
        held.append(descriptor)
        hold(descriptor)
        # Whoever clears the folder may have taken it between its making and its locking.
        if os.path.exists(name):
            return Path(name)


def _of_the_system(error: BaseException) -> OSError | None:
    """Return the system's error behind one of a library: torch's stands before it, safetensors' quotes it."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        quoted = re.search(r"\(os error (\d+)\)", str(cause))
        cause = OSError(int(quoted[1]), "") if quoted else cause.__context__
    return cause


def _umask() -> int:
    # mkstemp makes files private; outputs follow the user's umask like any other file.
    mask = os.umask(0)
    os.umask(mask)
    return mask
