"""Where the files of a case go, such that no scan's results ever take another one's place."""

import json
from pathlib import Path

from monai_ext.base import WriteError, case_id


def place_for(folder: Path, case: str, name: str, fingerprint: str | None) -> Path:
    """Return ``folder/case/name``, if it is free or holds results of the same scan.

    Args:
        folder: the folder of all cases.
        case: the id of the case.
        name: the file's name; a JSON sidecar of the same name tells which scan it came from.
        fingerprint: sha256 of the scan, ``None`` when unknown.

    Raises:
        WriteError: the case cannot name a folder, or the place holds another scan's results.
    """
    if case in ("", ".", "..") or any(letter in "/\\" or not letter.isprintable() for letter in case):
        raise WriteError(
            f"{case!r}: this case id cannot name a folder; give an id of letters, digits, '-' and '_'",
            code="output.case",
            case=case,
        )
    path = folder / case / name
    if path.exists() and (fingerprint is None or _fingerprint(path) != fingerprint):
        raise WriteError(
            f"{case}: {name} exists and is the result of another scan; give the two scans different ids in "
            "the datalist, or choose another output folder",
            code="output.taken",
            case=case,
        )
    return path


def _fingerprint(path: Path) -> str | None:
    sidecar = path.with_name(f"{case_id(path)}.json")
    try:
        content = json.loads(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content.get("scan_sha256") if isinstance(content, dict) else None
