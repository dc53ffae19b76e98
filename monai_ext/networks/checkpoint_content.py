"""The content of files of weights, read without ever running code from them."""

import hashlib
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import IO, Any

import safetensors.torch
import torch
from torch import Tensor

from monai_ext.base import WeightsError, refuse_forced_unpickling
from monai_ext.networks.checkpoint_checks import check_archive, check_header, check_records, header_of

_PICKLE = b"\x80\x02"  # how files of torch before 1.6 begin
_REFUSALS = ("Unsupported global", "unrecognized function", "unsupported class")  # of torch's safe unpickler


def check_file(path: Path) -> None:
    """Refuse a file of weights that is missing, a folder, or empty.

    Raises:
        WeightsError: saying which.
    """
    if path.is_dir():
        raise WeightsError(f"{path.name}: a folder; give the file of weights in it", code="weights.folder")
    if not path.is_file():
        raise WeightsError(
            f"{path.name}: no such file of weights; check the path, or train or convert weights first",
            code="weights.no_file",
        )
    if not os.access(path, os.R_OK):
        raise WeightsError(f"{path.name}: you may not read it; change its permissions", code="weights.closed")
    if path.stat().st_size == 0:
        raise WeightsError(f"{path.name}: empty (0 bytes); copy or download it again", code="weights.empty")


def read_verified(path: str | os.PathLike[str], sha256: str) -> bytes:
    """Read a file whole and compare its checksum; only these bytes are known to be the author's.

    A file hashed first and opened again later can be another one by then.

    Args:
        path: the file.
        sha256: its checksum as its author gives it.

    Raises:
        WeightsError: the file is missing or empty, or has another checksum; or the environment reopens pickles.
    """
    path = Path(path)
    refuse_forced_unpickling()
    check_file(path)
    content = path.read_bytes()
    actual = hashlib.sha256(content).hexdigest()
    if actual != sha256.strip().lower():
        raise WeightsError(
            f"{path.name}: its sha256 is {actual}, not {sha256}; download it again, or do not use it",
            code="weights.sha256",
        )
    return content


def read_content(path: str | os.PathLike[str], content: bytes | None = None) -> Any:
    """Return what a file of weights holds, as it is stored: tensors by name, or a trainer's dictionary.

    Args:
        path: the file.
        content: see :func:`open_checkpoint`.

    Raises:
        WeightsError: the file is missing, empty or truncated, or holds code; or the environment reopens pickles.
    """
    path = Path(path)
    refuse_forced_unpickling()
    if content is None:
        check_file(path)
    if is_torchscript(_source(path, content)):
        raise WeightsError(
            f"{path.name}: a TorchScript file holds code and loads only with a known checksum; "
            f"compare `sha256sum {path.name}` with what its author gives, "
            "then pass it as sha256 (weights_sha256 in a bundle)",
            code="weights.torchscript",
        )
    head = _head(path, content)
    safe = path.suffix == ".safetensors" or (head[8:] == b"{" and _header_size(head) < 2**27)
    return _read_safetensors(path, content) if safe else _read_pickle(path, content, head)


def is_torchscript(source: str | os.PathLike[str] | IO[bytes]) -> bool:
    """Tell whether a file is a TorchScript archive, without loading it."""
    try:
        with zipfile.ZipFile(source) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except Exception:  # no zip, or a damaged one, for which Python raises many types
        return False


def _source(path: Path, content: bytes | None) -> Path | IO[bytes]:
    return path if content is None else io.BytesIO(content)


def _head(path: Path, content: bytes | None) -> bytes:
    if content is not None:
        return content[:9]
    with path.open("rb") as handle:
        return handle.read(9)


def _header_size(head: bytes) -> int:
    return int(struct.unpack("<Q", head[:8])[0])


def _read_safetensors(path: Path, content: bytes | None) -> dict[str, Tensor]:
    try:
        tensors = safetensors.torch.load_file(path) if content is None else safetensors.torch.load(content)
        with path.open("rb") if content is None else io.BytesIO(content) as start:
            check_header(header_of(start), path.name)
    except WeightsError:
        raise
    except Exception as error:  # safetensors' own, and whatever torch makes of sizes that cannot be
        raise _unreadable(path) from error
    return dict(tensors)


def _read_pickle(path: Path, content: bytes | None, head: bytes) -> Any:
    zipped = zipfile.is_zipfile(_source(path, content))
    if not zipped and not head.startswith(_PICKLE):
        raise _unreadable(path)
    try:
        if zipped:
            check_archive(_source(path, content), path.name)
        # Mapped, a checkpoint with optimizer states costs no memory beyond the weights.
        found = torch.load(
            _source(path, content), map_location="cpu", weights_only=True, mmap=zipped and content is None
        )
        if zipped:
            check_records(_source(path, content), found, path.name)
    except pickle.UnpicklingError as error:
        if any(words in str(error) for words in _REFUSALS):
            raise WeightsError(
                f"{path.name}: holds Python objects beside tensors and numbers, which could run code; "
                "save its state_dict alone, with torch.save(network.state_dict(), ...) or safetensors",
                code="weights.code",
            ) from error
        raise _unreadable(path) from error
    except WeightsError:
        raise
    except Exception as error:  # torch's safe unpickler raises many types for a damaged file
        raise _unreadable(path) from error
    return found


def _unreadable(path: Path) -> WeightsError:
    return WeightsError(
        f"{path.name}: truncated, damaged or not a file of weights ({path.stat().st_size} bytes); "
        "copy or download it again, as .pt or .safetensors",
        code="weights.truncated",
    )
