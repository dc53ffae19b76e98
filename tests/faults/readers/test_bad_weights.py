"""Bad checkpoints: code, lies about sizes, damage, and tensors that are no weights."""

import builtins
import io
import json
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

STATE = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(5)}
NAN = float("nan")


class Runs:
    """Would run code when unpickled."""

    def __reduce__(self):
        return builtins.print, ("SENTINEL",)


def torch_file(content: object, **options: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def safe_file(header: object, data: bytes = bytes(24), size: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def told(dtype: str = "F32", shape: tuple[int, ...] = (6,), offsets: tuple[int, int] = (0, 24)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def rewritten(change: Callable[[str, bytes], list[tuple[str, bytes]]], method: int = zipfile.ZIP_STORED) -> bytes:
    """Return torch's zip with other members."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(torch_file(STATE))) as old, zipfile.ZipFile(stream, "w", method) as new:
        for name in old.namelist():
            for there, content in change(name, old.read(name)):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of names that stand twice
                    new.writestr(there, content)
    return stream.getvalue()


def scripted() -> bytes:
    stream = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), stream)
    return stream.getvalue()


def flipped_data() -> bytes:
    content = bytearray(torch_file(STATE))
    content[content.index(struct.pack("<f", 4.0))] ^= 1
    return bytes(content)


BAD: dict[str, Callable[[], bytes]] = {
    "code": lambda: torch_file({"state_dict": STATE, "more": Runs()}),
    "code, as of old": lambda: torch_file(Runs(), _use_new_zipfile_serialization=False),
    "code through NumPy": lambda: torch_file({"a": np.array([Runs()], dtype=object)}),
    "an array of NumPy": lambda: torch_file({"a": np.ones(3)}),
    "a whole network": lambda: torch_file(torch.nn.Linear(2, 2)),
    "TorchScript": scripted,
    "nothing": lambda: b"",
    "text": lambda: b"<html>not found</html>",
    "half a zip": lambda: torch_file(STATE)[:700],
    "a zip without its end": lambda: torch_file(STATE)[:-22],
    "a bit of a weight": flipped_data,
    "names that lead out": lambda: rewritten(lambda name, content: [(name, content), (f"../{name}", content)]),
    "members twice": lambda: rewritten(lambda name, content: [(name, content), (name, content)]),
    "members packed": lambda: rewritten(lambda name, content: [(name, content)], zipfile.ZIP_DEFLATED),
    "members cut": lambda: rewritten(lambda name, content: [(name, content[:-1] if "/data/" in name else content)]),
    "pickle cut": lambda: rewritten(lambda name, content: [(name, content[:-5] if "pkl" in name else content)]),
    "pickle of noise": lambda: rewritten(
        lambda name, content: [(name, b"\x80\x02}q" * 9 if "pkl" in name else content)]
    ),
    "one number for all": lambda: torch_file({"a": torch.zeros(1).expand(10**10)}),
    "sparse": lambda: torch_file({"a": torch.ones(3, 3).to_sparse()}),
    "on no device": lambda: torch_file({"a": torch.ones(3, device="meta")}),
    "of 8 bits": lambda: torch_file({"a": torch.ones(3).to(torch.float8_e4m3fn)}),
    "quantized": lambda: torch_file({"a": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)}),
    "complex": lambda: torch_file({"a": torch.ones(3, dtype=torch.complex64)}),
    "whole numbers": lambda: torch_file({"a": torch.ones(3, dtype=torch.int32)}),
    "NaN": lambda: torch_file({"a": torch.tensor([1.0, NAN])}),
    "infinite": lambda: torch_file({"a": torch.tensor([1.0, float("inf")])}),
    "a list": lambda: torch_file([torch.ones(3)]),
    "no tensors": lambda: torch_file({}),
    "numbers for names": lambda: torch_file({3: torch.ones(3)}),
    "safetensors: half": lambda: safetensors.torch.save(STATE)[:-9],
    "safetensors: more": lambda: safetensors.torch.save(STATE) + bytes(8),
    "safetensors: header of 2**63": lambda: safe_file({"a": told()}, size=2**63),
    "safetensors: header too long": lambda: safe_file({"a": told()}, size=500),
    "safetensors: header too short": lambda: safe_file({"a": told()}, size=20),
    "safetensors: header of 200 MB": lambda: safe_file({"a": told()}, size=200_000_000),
    "safetensors: no JSON": lambda: safe_file(b"{not JSON}"),
    "safetensors: a list": lambda: safe_file([1, 2]),
    "safetensors: overlap": lambda: safe_file({"a": told(), "b": told(offsets=(0, 24))}),
    "safetensors: hole": lambda: safe_file(
        {"a": told(shape=(3,), offsets=(0, 12)), "b": told(shape=(2,), offsets=(16, 24))}
    ),
    "safetensors: beyond the end": lambda: safe_file({"a": told(shape=(60,), offsets=(0, 240))}),
    "safetensors: backwards": lambda: safe_file({"a": told(offsets=(24, 0))}),
    "safetensors: another shape": lambda: safe_file({"a": told(shape=(7,))}),
    "safetensors: shape that overflows": lambda: safe_file({"a": told(shape=(2**62, 4, 2**62))}),
    "safetensors: type unknown": lambda: safe_file({"a": told("F33")}),
    "safetensors: NaN": lambda: safetensors.torch.save({"a": torch.tensor([NAN])}),
    "safetensors: a name twice": lambda: safe_file(b'{"a":%b,"a":%b}' % ((json.dumps(told()).encode(),) * 2)),
    "safetensors: deep": lambda: safe_file(b'{"a":' * 100_000),
}


@pytest.mark.filterwarnings("ignore")  # of torch, about what is written here
@pytest.mark.parametrize("bad", BAD)
def test_checkpoint(tmp_path: Path, limited, judged, bad: str) -> None:
    path = tmp_path / ("model.safetensors" if bad.startswith("safetensors") else "model.pt")
    path.write_bytes(BAD[bad]())
    judged("checkpoints", bad, limited("open_checkpoint", path), str(tmp_path))
