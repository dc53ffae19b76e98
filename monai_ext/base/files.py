"""Names, places and checksums of files."""

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from monai_ext.base.errors import ManifestError

_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".b2nd", ".dcm", ".zip", ".json", ".png")

# Of a set in a regular expression: what steers a terminal, has no width or reverses the order of writing, so that one
# name passes for another. The schema of manifests spells it out too.
UNSEEN = r"\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff"


def case_id(path: str | os.PathLike[str]) -> str:
    """Return the base name without its image ending: the only part of a path that may be shown or logged.

    >>> case_id("/data/Doe^Jane/ct_007.nii.gz")
    'ct_007'
    """
    name = Path(path).name
    for ending in _ENDINGS:
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return name


def plain_name(name: str) -> str:
    r"""Return a name that can be written anywhere: bytes of a file name that are no UTF-8 become ``_``.

    Python holds such bytes as lone surrogates, which no text file takes.

    >>> plain_name("gr\udcfcn.png")
    'gr_n.png'
    """
    return re.sub("[\ud800-\udfff]", "_", name)


def printable(text: str) -> str:
    r"""Return text for a terminal or a table: line breaks and what would steer a terminal become escapes.

    >>> printable("ct\nERROR: all\x1b[31m.nii")
    'ct\\nERROR: all\\x1b[31m.nii'
    """
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def told_apart(names: Sequence[tuple[str, str]]) -> list[str]:
    """Return names for scans of several folders, each with eight digits of its path where others share it.

    Some file systems do not tell A from a, so neither does this.

    Args:
        names: of each scan its name and its path from the root; one path is one scan.

    >>> told_apart([("ct", "a/ct.nii"), ("ct", "b/ct.nii"), ("mr", "mr.nii")])
    ['ct-bf0fbf95', 'ct-b5ca3e0b', 'mr']
    """
    paths = defaultdict(set)
    for name, path in names:
        paths[name.casefold()].add(path)
    return [
        name if len(paths[name.casefold()]) == 1 else f"{name}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"
        for name, path in names
    ]


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file as 64 lower-case hexadecimal digits."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def inside(root: str | os.PathLike[str], relative: str | os.PathLike[str]) -> Path:
    """Resolve a path from a manifest, archive or client under ``root``, following links.

    Raises:
        ManifestError: the path is absolute, leaves the root through ``..`` or a link, or holds a null character.
    """
    # Not Path.resolve, which raises RuntimeError for links that lead round in a circle.
    base = Path(os.path.realpath(root))
    if "\0" in os.fspath(relative):
        name = case_id(relative).replace("\0", "?")
        raise ManifestError(
            f"{name}: a null character (here ?) stands in the path, which no file name has; correct the list",
            code="manifest.path",
            case=name,
        )
    target = Path(os.path.realpath(base / relative))
    if Path(relative).is_absolute() or not target.is_relative_to(base):
        raise ManifestError(
            f"{case_id(relative)}: the path points outside its root folder; "
            "list it relative to the root, without '..' and without links that leave it",
            code="manifest.outside_root",
            case=case_id(relative),
        )
    return target
