"""Files that are fetched later, and the checksums of those that are there."""

import hashlib
import re
from pathlib import Path
from typing import Any

from monai_ext.audit.arguments import why_not_path
from monai_ext.audit.findings import Findings

_LENGTHS = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}


def judge_large_files(root: Path, file: str, content: Any, findings: Findings) -> None:
    """Judge ``large_files.yml``: where each file comes from and goes to, and whether it is the one that was meant.

    Args:
        root: the bundle's folder.
        file: path of the list inside the bundle.
        content: of the list, as plain data.
        findings: what is found goes here.
    """
    listed = content.get("large_files", []) if isinstance(content, dict) else None
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        findings.add(file, "", "form", file, "no list of files under large_files")
        return
    for number, one in enumerate(listed):
        _entry(root, file, f"large_files::{number}", one, findings)


def judge_beside(root: Path, file: str, findings: Findings) -> None:
    """Compare a file with the checksum that stands beside it in ``NAME.sha256``.

    Args:
        root: the bundle's folder.
        file: path of the ``.sha256`` inside the bundle.
        findings: what is found goes here.
    """
    named = file.removesuffix(".sha256")
    with (root / file).open("rb") as handle:
        words = handle.read(4096).decode("utf-8", "replace").split()
    if not words or not re.fullmatch("[0-9a-fA-F]{64}", words[0]):
        findings.add(file, "", "checksum", named, "the file beside it holds no sha256")
    elif not (root / named).is_file():
        findings.add(file, "", "checksum", named, "the file that it is the checksum of is missing")
    else:
        _compare(root / named, "sha256", words[0], file, "", named, findings)


def _entry(root: Path, file: str, place: str, entry: dict[str, Any], findings: Findings) -> None:
    path, url = str(entry.get("path", "")), str(entry.get("url", ""))
    kind, value = str(entry.get("hash_type") or "md5").lower(), str(entry.get("hash_val") or "").lower()
    outside = not path or Path(path).is_absolute() or why_not_path(path)
    findings.add(file, place, "write", path, "it would be written outside the bundle" if outside else "")
    unsafe = "" if url.startswith("https://") else "not fetched by https"
    findings.add(file, place, "network", url or "(no url)", unsafe)
    if not re.fullmatch("[0-9a-f]+", value) or len(value) != _LENGTHS.get(kind, -1):
        findings.add(file, place, "checksum", path, "fetched without a checksum that could be compared")
    elif not outside and (root / path).is_file():
        _compare(root / path, kind, value, file, place, path, findings)
    else:
        findings.add(file, place, "checksum", f"{kind} {value}")


def _compare(path: Path, kind: str, value: str, file: str, place: str, named: str, findings: Findings) -> None:
    with path.open("rb") as handle:
        actual = hashlib.file_digest(handle, kind).hexdigest()
    why = "" if actual == value.lower() else f"its {kind} is {actual}, not {value}"
    findings.add(file, place, "checksum", named, why)
