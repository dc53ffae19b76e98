"""Finding and reading the weights of open_clip models, and filling a model with them."""

import hashlib
import io
import math
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict
from open_clip.pretrained import (
    download_pretrained,
    download_pretrained_from_hf,
    get_pretrained_cfg,
    get_pretrained_url,
    list_pretrained,
)
from torch import Tensor, nn
from torch.nn import functional as F

from monai_ext.base import WeightsError, verify_digest
from monai_ext.networks.checkpoint_content import is_torchscript, read_content, read_verified

HUB, FOLDER = "hf-hub:", "local-dir:"
_HOUSE_FILE = "{name}.{tag}.safetensors"  # where a file fetched by hand is found
_HUB_FILE = "open_clip_model.safetensors"
_NUMBERS = ("input_resolution", "context_length", "vocab_size")  # stand among the weights of OpenAI's archives
_POSITIONS = "visual.positional_embedding"


def find_tag_weights(name: str, tag: str, cache_dir: str | os.PathLike[str] | None) -> Path:
    """Return the file of an architecture's pretrained weights, fetched where it is not there yet.

    Args:
        name: architecture, as :func:`load_clip` takes it.
        tag: of open_clip.
        cache_dir: looked into first.

    Raises:
        WeightsError: the hub cannot be reached; the message says which file to fetch and where to put it.
    """
    if name.startswith(FOLDER):
        return _in_folder(Path(name.removeprefix(FOLDER)))
    folder = Path(cache_dir) if cache_dir is not None else Path.home() / ".cache" / "clip"
    config = get_pretrained_cfg(name, tag)
    address = str(config.get("url", ""))
    house = folder / _HOUSE_FILE.format(name=name.removeprefix(HUB).replace("/", "--"), tag=tag)
    for path in (folder / address.rpartition("/")[2], house):
        if path.is_file():
            return path
    try:
        if name.startswith(HUB):
            return Path(download_pretrained_from_hf(name.removeprefix(HUB), cache_dir=_text(cache_dir)))
        return Path(download_pretrained(config, cache_dir=_text(cache_dir)))
    except Exception as error:  # the hub's client and urllib raise many kinds, some of them bare
        repository = (
            name.removeprefix(HUB) if name.startswith(HUB) else str(config.get("hf_hub", "")).rpartition("/")[0]
        )
        file = address or f"https://huggingface.co/{repository}/resolve/main/{_HUB_FILE}"
        place = folder / address.rpartition("/")[2] if address else house
        shown = str(place).replace(str(Path.home()), "~", 1)
        raise WeightsError(
            f"{name} with weights {tag!r}: the hub cannot be reached ({type(error).__name__}); "
            f"fetch {file} elsewhere and put it at {shown}, or give its path as weights",
            code="weights.hub",
        ) from error


def read_clip_weights(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """Read safetensors, a state dict, or a TorchScript archive whose checksum is known.

    Args:
        path: the file.
        sha256: its checksum as its author gives it; those of OpenAI's archives are known.

    Raises:
        WeightsError: the file is missing or broken, has another checksum, holds code, NaN or no weights.
    """
    content = read_verified(path, sha256) if sha256 is not None else None
    if content is None and path.is_file():
        verify_digest(path, tell=False)  # whose weights come from a hub has none
    if content is None and path.is_file() and is_torchscript(path):
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() not in _openai_checksums():
            content = None  # read_content refuses it, and says how to go on
    if content is not None and is_torchscript(io.BytesIO(content)):
        return _weights_in(_open_torchscript(content, path.name), path.name)
    return _weights_in(read_content(path, content), path.name)


def fill_clip(
    model: nn.Module, tensors: Mapping[str, Tensor], source: str, native_grid: tuple[int, int] | None = None
) -> None:
    """Fill an open_clip model, every tensor of it; nothing changes unless all fit.

    Args:
        model: an open_clip ViT.
        tensors: by open_clip's or OpenAI's names.
        source: what to call them in messages.
        native_grid: patches down and across of their positions, where that is not a square.

    Raises:
        WeightsError: a tensor is missing, unknown or of another shape.
    """
    own = model.state_dict()
    found = dict(convert_state_dict(model, dict(tensors)))
    if "positional_embedding" in found and "positional_embedding" not in own:
        found = convert_to_custom_text_state_dict(found)
    for name in ("logit_scale", "logit_bias"):  # one number, in an array or not
        if name in found and name in own and found[name].numel() == own[name].numel():
            found[name] = found[name].reshape(own[name].shape)
    if _POSITIONS in found and found[_POSITIONS].ndim == 2:
        target: tuple[int, int] = tuple(cast(Any, model.visual).grid_size)
        grid = _grid_of(found[_POSITIONS].shape[0] - 1, native_grid, target, source)
        found[_POSITIONS] = resize_positions(found[_POSITIONS], grid, target)
    for kind, names in (("missing", own.keys() - found.keys()), ("unknown to the model", found.keys() - own.keys())):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise WeightsError(
                f"{source}: {min(names)}{more} is {kind}; give the architecture that the weights were made for",
                code="weights.names",
            )
    for name, tensor in found.items():
        if tensor.shape != own[name].shape:
            raise WeightsError(
                f"{source}: {name} has shape {list(tensor.shape)}, the model needs {list(own[name].shape)}; "
                "give the architecture that the weights were made for",
                code="weights.shape",
            )
    model.load_state_dict(found)


def resize_positions(table: Tensor, grid: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Resize image positions to another grid: bicubic, antialiased; the class row stays.

    As open_clip does, which takes every table for that of a square, and one of as many rows for one that fits.

    Shape:
        ``(1 + gh*gw, d) -> (1 + target, d)``
    """
    if grid == target:
        return table
    first, patches = table[:1], table[1:].float()
    picture = patches.reshape(1, *grid, -1).permute(0, 3, 1, 2)
    picture = F.interpolate(picture, size=target, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([first, picture.permute(0, 2, 3, 1).reshape(target[0] * target[1], -1).to(table.dtype)])


def _grid_of(rows: int, native: tuple[int, int] | None, target: tuple[int, int], source: str) -> tuple[int, int]:
    side = math.isqrt(rows)
    for grid in (native, target, (side, side)):
        if grid is not None and grid[0] * grid[1] == rows:
            return grid
    raise WeightsError(
        f"{source}: its {rows} positions make no square grid; give the image size that the weights were made for",
        code="weights.positions",
    )


def _in_folder(folder: Path) -> Path:
    if (folder / _HUB_FILE).is_file():
        return folder / _HUB_FILE
    for ending in (".safetensors", ".bin", ".pth", ".pt"):
        found = sorted(folder.glob(f"*{ending}"))
        if len(found) == 1:
            return found[0]
    raise WeightsError(
        f"{folder.name}: no folder with one file of weights ({_HUB_FILE}); give the file as weights",
        code="weights.folder",
    )


@cache
def _openai_checksums() -> frozenset[str]:
    # OpenAI's addresses hold the checksum of the file.
    addresses = (get_pretrained_url(*entry) for entry in list_pretrained())
    return frozenset(address.split("/")[-2] for address in addresses if "openaipublic" in address)


def _open_torchscript(content: bytes, source: str) -> dict[str, Tensor]:
    try:
        return dict(torch.jit.load(io.BytesIO(content), map_location="cpu").state_dict())
    except RuntimeError as error:
        raise WeightsError(
            f"{source}: no TorchScript that torch {torch.__version__} reads; download it again",
            code="weights.torchscript",
        ) from error


def _weights_in(content: Any, source: str) -> dict[str, Tensor]:
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(
            f"{source}: holds a {type(content).__name__} instead of named tensors; give a state dict of open_clip",
            code="weights.form",
        )
    tensors: dict[str, Tensor] = {}
    for name, tensor in content.items():
        if name in _NUMBERS:
            continue
        if not isinstance(tensor, Tensor):
            raise WeightsError(
                f"{source}: {name!r} is a {type(tensor).__name__}, not a tensor; give a state dict of open_clip",
                code="weights.form",
            )
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise WeightsError(
                f"{source}: {name} holds NaN or infinite numbers; download it again", code="weights.nonfinite"
            )
        tensors[str(name).removeprefix("module.")] = tensor
    return tensors


def _text(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else os.fspath(path)
