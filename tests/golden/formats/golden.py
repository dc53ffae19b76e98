"""Read a golden file, whatever its name, and find the files beside it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch

# Where the numbers come from, in words: no output of a network.
PROVENANCE = ("origin",)


@dataclass(frozen=True)
class Golden:
    """The content of a golden file.

    Attributes:
        path: where it lies; its name says nothing about its content.
        tensors: the tensors of a safetensors file; empty for JSON.
        content: the JSON content, or the metadata of a safetensors file with its JSON decoded.
    """

    path: Path
    tensors: dict[str, torch.Tensor]
    content: dict[str, Any]

    def entries(self) -> dict[str, Any]:
        """Return every stored value by name: tensors first, then the leaves of the JSON."""
        found = dict(self.tensors)
        for key, value in self.content.items():
            if key not in PROVENANCE:
                found.update(leaves(value, key))
        return found

    def siblings(self) -> "Iterator[Golden]":
        """Yield the other golden files of the folder, in order of their names."""
        for path in sorted(self.path.parent.iterdir()):
            if path != self.path and path.is_file():
                try:
                    yield read(path)
                except ValueError:
                    continue


def read(path: Path) -> Golden:
    """Read a safetensors or JSON file.

    Raises:
        ValueError: it is neither, or it is broken.
    """
    with path.open("rb") as file:
        start = file.read(9)
    # A safetensors file: the length of its header, then the header. Eight letters of JSON make no such length.
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        try:
            with safetensors.safe_open(path, "pt") as stored:
                tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118 - not a dict
                metadata = stored.metadata() or {}
        except safetensors.SafetensorError as error:
            raise ValueError(f"not a whole safetensors file ({error})") from error
        return Golden(path, tensors, {key: _decoded(text) for key, text in metadata.items()})
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"neither safetensors nor JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"JSON, but a {type(content).__name__} where goldens hold an object")
    return Golden(path, {}, content)


def leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield named leaves of JSON: scalars, lists of scalars and columns of tables, as ``a.b[2].c``."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{name}.{key}")
    elif _is_table(value):
        for key in value[0]:
            yield f"{name}.{key}", [row[key] for row in value]
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        for number, item in enumerate(value):
            yield from leaves(item, f"{name}[{number}]")
    else:
        yield name, value


def _is_table(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 1
        and all(isinstance(row, dict) and row.keys() == value[0].keys() for row in value)
        and not any(isinstance(item, dict | list) for row in value for item in row.values())
    )


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
