"""Reading and writing files of weights without ever running code from them."""

import os
import pickle
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from monai_ext.base import SettingError, WeightsError, replacing

_CONTAINERS = ("state_dict", "model")  # the authors' trainer and ours put the weights under these names
_PICKLE = b"\x80\x02"  # how files of torch before 1.6 begin
_REFUSALS = ("Unsupported global", "unrecognized function", "unsupported class")  # of torch's safe unpickler
_NOT_WEIGHTS = "stands beside the weights in the checkpoint"


@dataclass(frozen=True)
class Checkpoint:
    """Weights as read from a file.

    Attributes:
        source: base name of the file.
        tensors: tensors by name, as stored.
        beside: other entries of the file, such as an optimizer's, each with the reason for leaving it out.
    """

    source: str
    tensors: Mapping[str, Tensor]
    beside: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read safetensors, a state dict, or a trainer's checkpoint (the authors' or this package's).

    Raises:
        WeightsError: the file is missing, empty or truncated, holds code, NaN or no weights at all.
    """
    path = Path(path)
    _check_file(path)
    if is_torchscript(path):
        raise WeightsError(
            f"{path.name}: a TorchScript file holds code and loads only with a known checksum; "
            f"compare `sha256sum {path.name}` with what its author gives, "
            "then pass it as sha256 (weights_sha256 in a bundle)",
            code="weights.torchscript",
        )
    content = _read_safetensors(path) if _is_safetensors(path) else _read_pickle(path)
    tensors, beside = _find_weights(content, path.name)
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise WeightsError(
                f"{path.name}: {name} holds {tensor.dtype} numbers, weights are floating point; "
                "give a checkpoint of Hi-End-MAE",
                code="weights.dtype",
            )
        if not bool(tensor.isfinite().all()):
            raise WeightsError(
                f"{path.name}: {name} holds NaN or infinite numbers; use an earlier checkpoint",
                code="weights.nonfinite",
            )
    return Checkpoint(path.name, tensors, MappingProxyType(dict.fromkeys(beside, _NOT_WEIGHTS)))


def write_checkpoint(tensors: Mapping[str, Tensor], path: str | os.PathLike[str], authors: bool = False) -> None:
    """Write weights so that nothing half-written is ever seen, and read them back.

    Args:
        tensors: tensors by name.
        path: ends in ``.safetensors``, or in ``.pt`` for ``torch.save``.
        authors: name and wrap them as the authors' trainer does: ``module.`` before every name and, in a
            ``.pt`` file, ``{"epoch": 0, "state_dict": ...}``.

    Raises:
        SettingError: another ending.
        WriteError: the disk is full or the folder not writable.
        WeightsError: what was written does not read back.
    """
    path = Path(path)
    if path.suffix not in (".safetensors", ".pt"):
        raise SettingError(
            f"{path.name}: the ending chooses the format; use .safetensors or .pt", code="setting.suffix"
        )
    # Own memory for each: safetensors refuses views, and torch.save would write all that a view looks at.
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    if authors:
        own = {f"module.{name}": tensor for name, tensor in own.items()}

    def verify(written: Path) -> None:
        back = open_checkpoint(written).tensors
        if set(back) != set(own) or any(not torch.equal(back[name], own[name]) for name in own):
            raise WeightsError(
                f"{path.name}: what was written does not read back; check the disk and write again",
                code="weights.verify",
            )

    with replacing(path, verify) as temporary:
        if path.suffix == ".safetensors":
            safetensors.torch.save_file(own, temporary, metadata={"format": "pt"})
        else:
            torch.save({"epoch": 0, "state_dict": own} if authors else own, temporary)


def is_torchscript(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file is a TorchScript archive, without loading it."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise WeightsError(f"{path.name}: a folder; give the file of weights in it", code="weights.folder")
    if not path.is_file():
        raise WeightsError(
            f"{path.name}: no such file of weights; check the path, or train or convert weights first",
            code="weights.no_file",
        )
    if path.stat().st_size == 0:
        raise WeightsError(f"{path.name}: empty (0 bytes); copy or download it again", code="weights.empty")


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as handle:
        head = handle.read(9)
    return path.suffix == ".safetensors" or (len(head) == 9 and head[8:] == b"{" and _header_size(head) < 2**27)


def _header_size(head: bytes) -> int:
    return int(struct.unpack("<Q", head[:8])[0])


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, ValueError) as error:
        raise _unreadable(path) from error


def _read_pickle(path: Path) -> Any:
    zipped = zipfile.is_zipfile(path)
    with path.open("rb") as handle:
        pickled = handle.read(2) == _PICKLE
    if not zipped and not pickled:
        raise _unreadable(path)
    try:
        # Mapped, a checkpoint with optimizer states costs no memory beyond the weights.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        if any(words in str(error) for words in _REFUSALS):
            raise WeightsError(
                f"{path.name}: holds Python objects beside tensors and numbers, which could run code; "
                "save its state_dict alone, with torch.save(network.state_dict(), ...) or safetensors",
                code="weights.code",
            ) from error
        raise _unreadable(path) from error
    except (
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        OSError,
        AttributeError,
        UnicodeDecodeError,
    ) as error:
        raise _unreadable(path) from error


def _unreadable(path: Path) -> WeightsError:
    return WeightsError(
        f"{path.name}: truncated, damaged or not a file of weights ({path.stat().st_size} bytes); "
        "copy or download it again, as .pt or .safetensors",
        code="weights.truncated",
    )


def _find_weights(content: Any, source: str) -> tuple[dict[str, Tensor], list[str]]:
    found, beside = content, []
    if isinstance(content, Mapping):
        for name in _CONTAINERS:
            if isinstance(content.get(name), Mapping):
                found, beside = content[name], [str(other) for other in content if other != name]
                break
    if not isinstance(found, Mapping) or not found:
        raise WeightsError(
            f"{source}: holds a {type(found).__name__} instead of named tensors; save network.state_dict()",
            code="weights.form",
        )
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise WeightsError(
                f"{source}: {name!r} is a {type(value).__name__}, not a tensor; give a state dict, or a "
                "checkpoint that keeps it under 'state_dict' or 'model'",
                code="weights.form",
            )
    return dict(found), beside
