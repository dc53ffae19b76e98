"""What a file of weights must be before its numbers are used: torch and safetensors read more than that."""

import json
import os
import struct
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import IO, Any

import torch
from torch import Tensor

from monai_ext.base import WeightsError

_PIECE = 1 << 24
_WEIGHTS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def check_archive(source: str | os.PathLike[str] | IO[bytes], name: str) -> None:
    """Refuse a zip that torch would not write: torch compares no checksum and takes one of equal names.

    Args:
        source: the archive.
        name: what sentences call it.

    Raises:
        WeightsError: a bit differs from what was written, or members are packed, doubled, or lead out of it.
    """
    with zipfile.ZipFile(source) as archive:
        members = archive.infolist()
        names = [member.filename for member in members]
        if len(set(names)) < len(names) or any(".." in path.split("/") or path.startswith("/") for path in names):
            raise _refusal(name, "a zip whose members stand twice or lead out of it, which torch never writes")
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise _refusal(name, "a zip of packed members, which torch never writes and may unpack to gigabytes")
        try:
            for member in members:
                with archive.open(member) as handle:
                    while handle.read(_PIECE):
                        pass
        except (zipfile.BadZipFile, EOFError):
            raise _refusal(name, "damaged, for its checksums do not fit what it holds") from None


def check_records(source: str | os.PathLike[str] | IO[bytes], content: Any, name: str) -> None:
    """Refuse what torch read from a zip if its records are shorter: mapped, it reads on into the next one.

    Raises:
        WeightsError: more numbers than were written.
    """
    with zipfile.ZipFile(source) as archive:
        written = Counter(member.file_size for member in archive.infolist())
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in _tensors(content)}
    if any(size and count > written[size] for size, count in Counter(storages.values()).items()):
        raise _refusal(name, "damaged, for it announces more numbers than it holds")


def _tensors(content: Any) -> Iterator[Tensor]:
    if isinstance(content, Tensor) and content.layout == torch.strided and content.device.type == "cpu":
        yield content
    elif isinstance(content, Mapping | list | tuple):
        for part in content.values() if isinstance(content, Mapping) else content:
            yield from _tensors(part)


def check_header(header: bytes, name: str) -> None:
    """Refuse the header of a safetensors file that names a tensor twice: one of the two would be lost.

    Raises:
        WeightsError: naming the file.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise _refusal(name, "a file that names a tensor twice")
        return found

    json.loads(header, object_pairs_hook=once)


def header_of(start: IO[bytes]) -> bytes:
    """Return the header of a safetensors file, from its beginning."""
    (size,) = struct.unpack("<Q", start.read(8))
    return start.read(size)


def check_tensors(tensors: Mapping[str, Tensor], size: int, name: str) -> None:
    """Refuse tensors that cannot be weights, before they are looked at.

    Args:
        tensors: by name.
        size: bytes of the file that they come from; a tensor of more shows one number many times.
        name: what sentences call the file.

    Raises:
        WeightsError: not floating point, sparse, without values, larger than the file, NaN or infinite.
    """
    for key, tensor in tensors.items():
        if tensor.dtype not in _WEIGHTS:
            raise WeightsError(
                f"{name}: {key} holds {tensor.dtype} numbers, weights are floating point of 16 to 64 bits; "
                "give a checkpoint of Hi-End-MAE",
                code="weights.dtype",
            )
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_nested:
            raise WeightsError(
                f"{name}: {key} is sparse, nested or without values; save it as a plain tensor", code="weights.form"
            )
        if tensor.numel() * tensor.element_size() > size:
            raise WeightsError(
                f"{name}: {key} has {tensor.numel()} numbers, more than the file holds; save it as a plain tensor",
                code="weights.form",
            )
        if not bool(tensor.isfinite().all()):
            raise WeightsError(
                f"{name}: {key} holds NaN or infinite numbers; use an earlier checkpoint", code="weights.nonfinite"
            )


def _refusal(name: str, what: str) -> WeightsError:
    return WeightsError(
        f"{name}: {what}; copy or download it again, or save it again with torch.save or safetensors",
        code="weights.archive",
    )
