"""MONAI datalists: JSON files that name images and labels relative to a root folder."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from monai_ext.base import ManifestError, case_id, inside


@dataclass(frozen=True)
class DatalistEntry:
    """One scan of a datalist.

    Attributes:
        image: the scan, a file or a DICOM series folder, resolved inside the root.
        label: the label volume, or ``None``.
        section: the part of the datalist that lists it, such as ``"training"``.
        case: the entry's own ``"id"`` when it has one, else the image's base name.
    """

    image: Path
    label: Path | None
    section: str
    case: str


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

    Raises:
        ManifestError: not JSON of that form, a section is missing, or a path leaves the root.
    """
    path = Path(path)
    content = _load(path)
    lists = {key: value for key, value in content.items() if isinstance(value, list) and _is_entries(value)}
    for name in sections or ():
        if name not in lists:
            raise ManifestError(
                f"{path.name}: no section {name!r}; it has {', '.join(map(repr, lists)) or 'none'}",
                code="manifest.section",
            )
    root = Path(root) if root is not None else path.parent
    return [
        _entry(item, name, root, path.name, number)
        for name in (sections or lists)
        for number, item in enumerate(lists[name])
    ]


def _load(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ManifestError(f"{path.name}: no such datalist; check the path", code="manifest.missing") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ManifestError(
            f"{path.name}: not valid JSON ({error}); repair it or export it again", code="manifest.json"
        ) from error
    if not isinstance(content, dict):
        raise ManifestError(
            f"{path.name}: a datalist is an object such as {{'training': [...]}}, not a {type(content).__name__}",
            code="manifest.form",
        )
    return content


def _is_entries(value: list[object]) -> bool:
    # Decathlon files carry other lists too ("tags" and the like); only lists of objects or paths count.
    return all(isinstance(item, str) or (isinstance(item, dict) and "image" in item) for item in value)


def _entry(item: object, section: str, root: Path, source: str, number: int) -> DatalistEntry:
    record = {"image": item} if isinstance(item, str) else item
    assert isinstance(record, dict)  # _is_entries let nothing else through
    image, label = record["image"], record.get("label")
    for key, value in (("image", image), ("label", label)):
        if not isinstance(value, str | None) or (key == "image" and not value):
            raise ManifestError(
                f"{source}: {section}[{number}].{key} is {value!r}; give one path as text",
                code="manifest.path",
            )
    return DatalistEntry(
        image=inside(root, image),
        label=inside(root, label) if label else None,
        section=section,
        case=str(record.get("id") or case_id(image)),
    )
