"""Weights in and out of networks, every tensor accounted for: the public side of the checkpoint modules."""

import io
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from monai_ext.base import WeightsError, WriteError
from monai_ext.networks.checkpoint_account import Account
from monai_ext.networks.checkpoint_content import is_torchscript, read_verified
from monai_ext.networks.checkpoint_conversion import Converted, Target, convert
from monai_ext.networks.checkpoint_files import Checkpoint, naming, open_checkpoint, write_checkpoint
from monai_ext.networks.checkpoint_loading import check_whole, load_into
from monai_ext.networks.checkpoint_names import kind_of, unwrap
from monai_ext.networks.checkpoint_sizes import sizes_of

__all__ = [
    "Account",
    "Checkpoint",
    "Converted",
    "Target",
    "convert",
    "convert_file",
    "kind_of",
    "load_into",
    "open_checkpoint",
    "open_weights",
    "read_checkpoint",
    "sizes_of",
    "write_checkpoint",
]


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Return the weights in a file by name, without the prefixes of wrappers.

    Args:
        path: safetensors, a state dict, or a trainer's checkpoint (the authors' or this package's).

    Raises:
        WeightsError: see :func:`open_checkpoint`.
    """
    return unwrap(open_checkpoint(path).tensors)


def open_weights(network: nn.Module, path: str | os.PathLike[str], sha256: str | None = None) -> nn.Module:
    """Return a network ready for inference: ``network`` with weights from a file, or a TorchScript file.

    With a checksum the file is read once, into memory, and what was checked is what loads.

    Args:
        network: gets the weights, see :func:`load_into`; unused for TorchScript.
        path: weights, or a TorchScript archive.
        sha256: the file's checksum as its author gives it; required for TorchScript, which holds code.

    Returns:
        The network in eval mode, on the CPU if it came from TorchScript.

    Raises:
        WeightsError: another checksum, TorchScript without one, or weights that do not fill the network.
    """
    path = Path(path)
    content = None if sha256 is None else read_verified(path, sha256)
    if content is not None and is_torchscript(io.BytesIO(content)):
        try:
            scripted: nn.Module = torch.jit.load(io.BytesIO(content), map_location="cpu")
        except RuntimeError as error:
            raise WeightsError(
                f"{path.name}: no TorchScript that torch {torch.__version__} reads; export it again",
                code="weights.torchscript",
            ) from error
        return scripted.eval()
    account = load_into(network, open_checkpoint(path, content))
    if account.initialised:
        first = next(iter(account.initialised))
        raise WeightsError(
            f"{path.name}: holds no {first}, one of {len(account.initialised)} tensors that would stay random; "
            "fine-tune first, or give weights of the whole network",
            code="weights.incomplete",
        )
    return network.eval()


def convert_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    to: Target,
    *,
    patch_size: Sequence[int] | None = None,
    published: bool = False,
) -> tuple[Account, dict[str, Any]]:
    """Convert a file of weights into another, see :func:`convert`.

    Args:
        source: any file that :func:`open_checkpoint` reads.
        target: ends in ``.safetensors`` or ``.pt``; replaced only when everything went well.
        to: whose names and shapes to write.
        patch_size: see :func:`convert`.
        published: see :func:`convert`.

    Returns:
        What became of every tensor, and the sizes that the weights tell, see :func:`sizes_of`.

    Raises:
        WeightsError: the source cannot be read, or a tensor is missing, unknown or misshapen.
        WriteError: the target cannot be written, or is the source.
    """
    checkpoint = open_checkpoint(source)
    if os.path.exists(target) and os.path.samefile(source, target):
        raise WriteError(
            f"{Path(target).name}: it would be written over itself, and what is left out would be lost; name another "
            "target",
            code="write.source",
        )
    with naming(checkpoint.source):
        ours = convert(checkpoint.tensors, patch_size=patch_size).tensors
        check_whole(ours, checkpoint.source)
        tensors, account = convert(checkpoint.tensors, to, patch_size=patch_size, published=published)
    write_checkpoint(tensors, target, authors=to in ("authors", "authors_encoder"))
    dropped = MappingProxyType({**account.dropped, **checkpoint.beside})
    return replace(account, source=checkpoint.source, dropped=dropped), sizes_of(ours)
