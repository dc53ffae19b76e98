"""Checkpoints: named tensors from files of weights, and back into them."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from monai_ext.base import SettingError, WeightsError, replacing_weights, save_tensors, save_torch, verify_digest
from monai_ext.networks.checkpoint_checks import check_tensors
from monai_ext.networks.checkpoint_content import check_file, read_content

_CONTAINERS = ("state_dict", "model")  # the authors' trainer and ours put the weights under these names
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


def open_checkpoint(path: str | os.PathLike[str], content: bytes | None = None) -> Checkpoint:
    """Read safetensors, a state dict, or a trainer's checkpoint (the authors' or this package's).

    A file with ``NAME.sha256`` beside it must have that checksum.

    Args:
        path: the file.
        content: what :func:`read_verified` read from it; the file is not opened again then.

    Raises:
        WeightsError: the file is missing, empty, damaged or truncated, holds code, NaN or no weights at all.
    """
    path = Path(path)
    if content is None:
        check_file(path)
        verify_digest(path)
    return _checkpoint(path, content)


@contextmanager
def naming(source: str) -> Iterator[None]:
    """Let errors about tensors begin with the file that they came from."""
    try:
        yield
    except WeightsError as error:
        if str(error).startswith(f"{source}: "):
            raise
        raise WeightsError(f"{source}: {str(error).removeprefix('weights: ')}", code=error.code) from error


def write_checkpoint(tensors: Mapping[str, Tensor], path: str | os.PathLike[str], authors: bool = False) -> None:
    """Write weights and their checksum so that nothing half-written is ever seen, and read them back.

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
        back = _checkpoint(written).tensors
        if set(back) != set(own) or any(not torch.equal(back[name], own[name]) for name in own):
            raise WeightsError(
                f"{path.name}: what was written does not read back; check the disk and write again",
                code="weights.verify",
            )

    with replacing_weights(path, verify) as temporary:
        if path.suffix == ".safetensors":
            save_tensors(own, temporary, {"format": "pt"})
        else:
            save_torch({"epoch": 0, "state_dict": own} if authors else own, temporary)


def _checkpoint(path: Path, content: bytes | None = None) -> Checkpoint:
    tensors, beside = _find_weights(read_content(path, content), path.name)
    check_tensors(tensors, path.stat().st_size if content is None else len(content), path.name)
    return Checkpoint(path.name, tensors, MappingProxyType(dict.fromkeys(beside, _NOT_WEIGHTS)))


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
