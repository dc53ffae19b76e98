"""Judging plain values: addresses, paths, and text by which libraries find code."""

import re
import sys
from typing import Any

from monai_ext.audit.name_lists import KNOWN_BAD
from monai_ext.audit.names import why_not_name

_ADDRESS = re.compile(r"(?i)(?<![a-z0-9])[a-z][a-z0-9+.-]*://|^hf-hub:|^\\\\[^\\]")
_DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.\w+)+")
_ROOTS = (
    frozenset(sys.stdlib_module_names) | {name.partition(".")[0] for name in KNOWN_BAD} | {"torch", "numpy", "monai"}
)
_ENDINGS = (
    ".json",
    ".jsonl",
    ".yaml",
    ".yml",
    ".txt",
    ".csv",
    ".gz",
    ".nii",
    ".pt",
    ".pth",
    ".ts",
    ".png",
    ".jpg",
    ".log",
    ".md",
    ".dcm",
    ".zip",
    ".db",
    ".npy",
)
_SYSTEM = ("/etc", "/proc", "/sys", "/dev", "/root", "/boot", "/usr", "/bin", "/sbin", "/lib", "/var", "/run")
_READERS = frozenset(
    {
        "itkreader",
        "nibabelreader",
        "numpyreader",
        "pilreader",
        "pydicomreader",
        "nrrdreader",
        "wsireader",
        "cucim",
        "openslide",
        "tifffile",
        "itkwriter",
        "nibabelwriter",
        "pilwriter",
        "avgmerger",
        "zarravgmerger",
        "pickle",
    }
)


def why_not_text(text: str) -> list[tuple[str, str]]:
    """Return what text stands for that may not be used: pairs of kind and reason.

    >>> why_not_text("subprocess.Popen"), why_not_text("model.pt")
    ([('argument', 'text that names code: it starts programs')], [])
    """
    found = []
    if _ADDRESS.search(text):
        found.append(("network", "an address of the network"))
    root, _, _ = text.partition(".")
    if _DOTTED.fullmatch(text) and root in _ROOTS and not text.endswith(_ENDINGS):
        why = why_not_name(text)
        found += [("argument", f"text that names code: {why}")] if why else []
    why = why_not_path(text) if text.startswith(("/", "~", "..")) or "/.." in text else ""
    return found + ([("read", why)] if why else [])


def why_not_path(text: str) -> str:
    """Return why a path may not be read or written, ``""`` if it may.

    >>> why_not_path("/workspace/data/image.nii.gz"), why_not_path("/etc/passwd")
    ('', 'a folder of the system')
    """
    parts = text.replace("\\", "/").split("/")
    if ".." in parts:
        return "it leaves its folder"
    if text.startswith("~") or any(part.startswith(".") and part != "." for part in parts[:-1]):
        return "a private folder of the user"
    return "a folder of the system" if any(text == one or text.startswith(f"{one}/") for one in _SYSTEM) else ""


def why_not_reader(text: str) -> str:
    """Return why a reader, writer or merger may not be chosen by this text, ``""`` if it may."""
    if text.lower() in _READERS or (text.startswith("monai.") and not why_not_name(text)):
        return ""
    return "no reader of MONAI; any other name is imported and called"


def why_not_argument(name: str, value: Any) -> str:
    """Return why an argument may not be given, ``""`` if it may.

    Args:
        name: of the argument.
        value: a constant; ``...`` where it cannot be told.
    """
    name = name.lower()
    off = value is False or value is None or value == ""
    if name == "weights_only":
        return "" if value is True else "anything but true lets a pickle run code"
    if name in ("allow_pickle", "trust_remote_code", "_debug_"):
        return "" if off else "it lets data run code, or stops in a debugger"
    if "pretrained" in name or name == "download" or name.endswith("url") or name.endswith("uri"):
        return "" if off else "it may fetch"
    return ""
