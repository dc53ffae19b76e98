"""Where the files of a case go, such that no scan's results ever take another one's place."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib

from monai_ext.base import WriteError, case_id

SCAN = "scan_sha256"  # of the scan's place and shape, see monai_ext.transforms.ReadScand
_COMMENT = 6  # NIFTI_ECODE_COMMENT


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
    check_free(path, case, fingerprint)
    return path


def check_free(path: Path, case: str, fingerprint: str | None) -> None:
    """Refuse a place that another scan's results hold, or its sidecar's; arguments and error as of `place_for`."""
    sidecar = _sidecar(path)
    if sidecar.is_dir():
        raise WriteError(
            f"{case}: {sidecar.name} is a folder, and the sidecar of {path.name} needs its name; remove it, or choose "
            "another output folder",
            code="output.taken",
            case=case,
        )
    taken = path if path.exists() and (fingerprint is None or _fingerprint(path) != fingerprint) else None
    if taken is None and sidecar != path and sidecar.exists() and _is_anothers(sidecar, path, fingerprint):
        taken = sidecar
    if taken is not None:
        raise WriteError(
            f"{case}: {taken.name} exists and is the result of another scan; give the two scans different ids in "
            "the datalist, or choose another output folder",
            code="output.taken",
            case=case,
        )


def scan_extension(fingerprint: str | None, **table: Any) -> nib.nifti1.Nifti1Extension:
    """Return a comment for a NIfTI's header that holds a table, and which scan the volume belongs to.

    A run that is killed between a volume and its sidecar leaves the volume alone; by its header the next run knows
    whose it is.
    """
    table |= {SCAN: fingerprint} if fingerprint else {}
    return nib.nifti1.Nifti1Extension(_COMMENT, json.dumps(table).encode())


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{case_id(path)}.json")


def _fingerprint(path: Path) -> str | None:
    if not _sidecar(path).exists():
        return _in_header(path)
    content = _content(_sidecar(path))
    # s.nii and s.nii.gz would have one sidecar; it speaks of the one that it names.
    return _in_header(path) if content.get("file", path.name) != path.name else content.get(SCAN)


def _is_anothers(sidecar: Path, path: Path, fingerprint: str | None) -> bool:
    """Tell whether a sidecar is of another scan, or of another file that is there."""
    content = _content(sidecar)
    file = content.get("file", path.name)
    if fingerprint is None or content.get(SCAN) != fingerprint:
        return True
    return bool(file != path.name and (path.parent / Path(str(file)).name).exists())


def _content(sidecar: Path) -> dict[str, Any]:
    try:
        content = json.loads(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _in_header(path: Path) -> str | None:
    """Return what a NIfTI says of its scan; ``None`` where it says nothing, or is no NIfTI."""
    try:
        for extension in nib.Nifti1Image.from_filename(path).header.extensions:
            table = json.loads(extension.get_content()) if extension.get_code() == _COMMENT else None
            if isinstance(table, dict) and table.get(SCAN):
                return str(table[SCAN])
    except Exception:  # nibabel raises many kinds for what is none; it then stays as it is
        return None
    return None
