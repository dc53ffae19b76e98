"""MONAI datalists: JSON files that name images and labels relative to a root folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from posixpath import normpath
from typing import Any

from monai_ext.base import ManifestError, case_id, inside, plain_name, told_apart


@dataclass(frozen=True)
class DatalistEntry:
    """One scan of a datalist.

    Attributes:
        image: the scan, a file or a DICOM series folder, resolved inside the root; ``None`` with a problem.
        label: the label volume, or ``None``.
        section: the part of the datalist that lists it, such as ``"training"``.
        case: the entry's own ``"id"`` when it has one, else the image's base name; where several images
            share that, eight digits of its path tell them apart.
        problem: why the entry cannot be used; the others can.
    """

    image: Path | None
    label: Path | None
    section: str
    case: str
    problem: ManifestError | None = None


def read_datalist(
    path: str | Path,
    root: str | Path | None = None,
    sections: Sequence[str] | None = None,
) -> list[DatalistEntry]:
    """Read a datalist in MONAI's decathlon form: ``{"training": [{"image": ..., "label": ...}], ...}``.

    Args:
        path: the JSON file.
        root: the folder that relative paths start from; the datalist's own folder by default.
        sections: which lists to read, in this order; every list of entries by default.

    Returns:
        One entry for each in the file. One without an image, or whose paths leave the root, has a problem.

    Raises:
        ManifestError: not JSON of that form, or a section is missing.
    """
    path = Path(path)
    content = load_datalist(path)
    known = {key: value for key, value in content.items() if isinstance(value, list)}
    lists = [key for key, value in known.items() if _is_entries(value)]
    for name in sections or ():
        if name not in known:
            raise ManifestError(
                f"{path.name}: no section {name!r}; it has {', '.join(map(repr, lists)) or 'none'}",
                code="manifest.section",
            )
    if not sections and not lists:
        raise ManifestError(
            f"{path.name}: lists no scans; give it lists such as {{'training': [{{'image': 'ct.nii.gz'}}]}}",
            code="manifest.form",
        )
    folder = Path(root) if root is not None else path.parent
    found = [(name, item, f"{name}[{number}]") for name in sections or lists for number, item in enumerate(known[name])]
    # Names are compared among all lists, so that a scan is called the same whichever are read.
    everything = [(item, f"{name}[{number}]") for name in lists for number, item in enumerate(known[name])]
    names = _cases([*everything, *((item, place) for _, item, place in found)])
    return [_entry(item, name, names[place], folder) for name, item, place in found]


def load_datalist(path: Path) -> dict[str, Any]:
    """Read the file as it is.

    Raises:
        ManifestError: it cannot be read, or is no JSON object.
    """
    try:
        # Editors on Windows put a byte order mark before it.
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_object)
    except FileNotFoundError as error:
        raise ManifestError(f"{path.name}: no such datalist; check the path", code="manifest.missing") from error
    except OSError as error:
        raise ManifestError(
            f"{path.name}: the datalist cannot be read ({error.strerror}); give a .json file that you may read",
            code="manifest.missing",
        ) from error
    except RecursionError as error:
        raise ManifestError(
            f"{path.name}: its JSON is nested too deeply; export it again", code="manifest.json"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ManifestError(
            f"{path.name}: not valid JSON ({error}); repair it or export it again", code="manifest.json"
        ) from error
    except _TwiceError as error:
        raise ManifestError(
            f"{path.name}: {error} stands twice in one object, so that one of the two would be lost; join them",
            code="manifest.key_twice",
        ) from error
    except ValueError as error:  # of Python's, which reads no number of more than 4300 digits
        raise ManifestError(
            f"{path.name}: a number in it has too many digits to be read; correct it", code="manifest.json"
        ) from error
    if not isinstance(content, dict):
        raise ManifestError(
            f"{path.name}: a datalist is an object such as {{'training': [...]}}, not a {type(content).__name__}",
            code="manifest.form",
        )
    return content


class _TwiceError(ValueError):
    """A key that stands twice in one object."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Python keeps the last of equal keys: of two lists joined by hand, the first would be gone without a word.
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _TwiceError(repr(plain_name(twice)[:40]))
    return content


def _is_entries(value: list[object]) -> bool:
    # Decathlon files carry other lists too ("tags" and the like); only lists of objects or paths count. One
    # entry with an image is enough: those without one are mistakes to be told, not another kind of list.
    return any(isinstance(item, dict) and "image" in item for item in value) or all(
        isinstance(item, str) for item in value
    )


def _record(item: object) -> dict[str, Any]:
    return item if isinstance(item, dict) else {"image": item}


def _cases(items: Sequence[tuple[object, str]]) -> dict[str, str]:
    """Return the case of every entry by its place."""
    images = {place: _record(item).get("image") for item, place in items}
    plain = {
        place: str(
            _record(item).get("id")
            or (case_id(image.replace("\0", "")) if isinstance(image := images[place], str) and image else place)
        )
        for item, place in items
    }
    told = told_apart([(name, normpath(str(images[place] or place))) for place, name in plain.items()])
    return dict(zip(plain, told, strict=True))


def _entry(item: object, section: str, case: str, root: Path) -> DatalistEntry:
    record = _record(item)
    try:
        image = _inside(record, "image", case, root)
        label = None if record.get("label") in (None, "") else _inside(record, "label", case, root)
    except ManifestError as problem:
        return DatalistEntry(None, None, section, case, problem)
    return DatalistEntry(image, label, section, case)


def _inside(record: Mapping[str, Any], key: str, case: str, root: Path) -> Path:
    value = record.get(key)
    if not isinstance(value, str) or not value or "\0" in value:
        has = f"its {key} as {type(value).__name__}" if value else f"no {key} (its keys: {_listed(record)})"
        if isinstance(value, str) and value:
            has = f"its {key} with a zero byte"
        raise ManifestError(
            f"{case}: the datalist gives {has}; give the path of one {key} as text", code="manifest.path", case=case
        )
    try:
        return inside(root, value)
    except ManifestError as error:
        raise ManifestError(
            f"{case}: its {key} lies outside the root folder; list it relative to the root, without '..' and "
            "without links that leave it",
            code=error.code,
            case=case,
        ) from None


def _listed(record: Mapping[str, Any]) -> str:
    return ", ".join(repr(str(key)[:40]) for key in list(record)[:5]) or "none"
