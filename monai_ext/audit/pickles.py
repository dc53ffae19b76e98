"""What files of weights and data would run when they are loaded, from their first bytes and their opcodes alone."""

import hashlib
import io
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from monai_ext.audit.findings import Findings

MOST_PICKLE = 64 * 2**20  # bytes of a pickle without its tensors; those of networks have a few thousand
_OF_OLD_TORCH = 5  # pickles that files of torch before 1.6 hold, before the numbers
# What torch.load(weights_only=True) builds tensors from, and data that cannot act.
_TENSORS = re.compile(
    r"torch\.(_utils\._rebuild_(tensor|tensor_v2|parameter|parameter_with_state|device_tensor_from_numpy|meta_tensor\w*)"
    r"|_tensor\._rebuild_from_type_v2|[A-Z][A-Za-z0-9]*Storage|storage\.(Untyped|Typed)Storage|Size|device|Tensor"
    r"|nn\.parameter\.Parameter|serialization\._get_layout|[a-z]+[0-9]*)"
    r"|collections\.(OrderedDict|Counter|defaultdict)|builtins\.(set|dict|list|int|float)|_codecs\.encode"
    r"|numpy\.(core|_core)\.multiarray\.(_reconstruct|scalar)|numpy\.(dtype|ndarray)"
    r"|numpy\.dtypes\.\w+DType"
)
_TORCH_VALUES = re.compile(r"(b?float|complex|u?int|q?u?int)[0-9]*|bool|half|double|long|short|strided|uint8|bfloat16")
_MACHINE_CODE = (b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"#!")
_ENGINES = (".ts", ".engine", ".plan", ".trt", ".onnx", ".pt2")


def judge_data(path: Path, file: str, findings: Findings) -> None:
    """Judge one file that is neither text of a bundle nor Python.

    Args:
        path: the file.
        file: its path inside the bundle.
        findings: what is found goes here.
    """
    with path.open("rb") as handle:
        head = handle.read(16)
    if head.startswith(_MACHINE_CODE):
        findings.add(file, "", "code", file, "a program or library of machine code")
    elif zipfile.is_zipfile(path):
        _archive(path, file, findings)
    elif head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        with path.open("rb") as handle:
            _pickle(handle, file, "", findings)
    elif head.startswith(b"\x93NUMPY"):
        _array(path.open("rb"), file, "", findings)
    elif path.suffix.lower() in (".pkl", ".pickle", ".pth", ".pt", ".ckpt", ".bin", ".joblib"):
        with path.open("rb") as handle:
            _pickle(handle, file, "", findings)  # protocols 0 and 1 have no mark at their beginning
    elif path.suffix.lower() in _ENGINES:
        _unknown_code(path, file, findings)


def _archive(path: Path, file: str, findings: Findings) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if any(name.endswith(("/constants.pkl", "constants.pkl")) or "/code/" in name for name in names):
                return _unknown_code(path, file, findings)
            if path.suffix.lower() in _ENGINES:
                return _unknown_code(path, file, findings)
            found = False
            for name in names:
                if name.endswith((".pkl", ".pickle")):
                    found = True
                    with archive.open(name) as handle:
                        _pickle(handle, file, name, findings)
                elif name.endswith(".npy"):
                    found = True
                    _array(archive.open(name), file, name, findings)
            if not found:
                findings.add(file, "", "code", file, "an archive, of which nothing here tells what unpacks it")
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError, EOFError, ValueError):
        findings.add(file, "", "form", file, "a damaged or encrypted archive")


def _unknown_code(path: Path, file: str, findings: Findings) -> None:
    with path.open("rb") as handle:
        checksum = hashlib.file_digest(handle, "sha256").hexdigest()
    why = f"TorchScript or another compiled network is code; where you know its sha256, --allow {checksum}"
    findings.add(file, "", "code", checksum, why)


def _array(handle: IO[bytes], file: str, place: str, findings: Findings) -> None:
    with handle:
        header = handle.read(4096)
    if re.search(rb"'descr': *'?\|?O", header) or b"'O'" in header or b"|O" in header:
        findings.add(file, place, "code", file, "an array of objects, which loads by running a pickle")


def _pickle(handle: IO[bytes], file: str, place: str, findings: Findings) -> None:
    rest = handle.read(MOST_PICKLE)
    count = 0
    while rest and count < _OF_OLD_TORCH:
        stream = io.BytesIO(rest)
        try:
            for name in _globals(stream):
                why = "" if _harmless(name) else "a pickle that calls this when it is loaded"
                findings.add(file, place, "code", name, why)
        except (ValueError, EOFError, IndexError, KeyError, UnicodeDecodeError, OverflowError, MemoryError):
            findings.add(file, place, "form", file, "a damaged pickle, or no file of weights")
            return
        rest, count = rest[stream.tell() :], count + 1


def _harmless(name: str) -> bool:
    if not _TENSORS.fullmatch(name):
        return False
    module, _, last = name.rpartition(".")
    plain = module != "torch" or last in ("Size", "device", "Tensor") or last.endswith("Storage")
    return plain or bool(_TORCH_VALUES.fullmatch(last))


def _globals(stream: IO[bytes]) -> Iterator[str]:
    """Yield each name that a pickle looks up; ``?`` for a part that is computed."""
    texts: list[str] = []
    for code, argument, _ in pickletools.genops(stream):
        if code.name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".")
        elif code.name == "STACK_GLOBAL":
            # Only the two texts just before are sure; torch's own files have no such opcode.
            yield ".".join(texts[-2:]) if len(texts) > 1 else "?"
            yield "a name from the stack"
        elif code.name in ("EXT1", "EXT2", "EXT4"):
            yield "a name of copyreg's registry"
        elif code.name == "PERSID":
            yield "a persistent id of protocol 0"
        if isinstance(argument, str) and "UNICODE" in code.name:
            texts.append(argument)
        elif code.name not in ("MEMOIZE", "BINPUT", "PUT", "LONG_BINPUT", "FRAME", "PROTO", "STACK_GLOBAL"):
            texts.clear()
