"""Lists of pictures with their class, label and mask: JSON lines as published for AA-CLIP, or MONAI datalists."""

import json
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from monai_ext.base import ManifestError, inside, plain_name, replacing


@dataclass(frozen=True)
class PictureEntry:
    """One picture of a list.

    Attributes:
        image: the picture, resolved inside the root.
        mask: its mask, likewise; ``None`` for a picture without one.
        label: 0 normal, 1 abnormal.
        class_name: what it shows, a key of the file of prompts such as ``"candle"``.
        dataset: the data set whose names the class has there, such as ``"VisA"``; may be ``None``.
        case: class and base name, for messages, and the line where several of a list share these.
        group: what pictures of one patient or video share; ``None`` where each stands alone.
    """

    image: Path
    mask: Path | None
    label: int
    class_name: str
    dataset: str | None
    case: str
    group: str | None = None


def read_picture_list(
    path: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    *,
    dataset: str | None = None,
    classes: Collection[str] | None = None,
    section: str | None = None,
) -> list[PictureEntry]:
    """Read a list of pictures.

    ``.jsonl``, as published (arXiv:2503.06661): one object a line with ``image_path``, ``label`` (0 or 1, also as
    0.0 and 1.0), ``class_name`` and, where there is one, ``mask_path``. ``.json``: a MONAI datalist such as
    ``{"training": [{"image": ..., "mask": ..., "label": 1, "class_name": ...}]}``; a ``label`` that is a path is
    the mask, and a picture with a mask but no number is abnormal. Both may name a ``group`` or a ``patient``.

    Args:
        path: the list.
        root: folder that its paths start from; the list's own by default.
        dataset: name of the data set, kept with each entry.
        classes: the classes to take; all by default.
        section: of a datalist, ``"training"`` by default.

    Raises:
        ManifestError: no such list, a line that is not of that form, a picture that is listed twice, a class that
            is not in it, nothing left, or a path that leaves the root.
    """
    path = Path(path)
    root = Path(root) if root is not None else path.parent
    records = _records(path, section)
    entries = [_entry(record, f"{path.name}, {place}", root, dataset) for place, record in records]
    entries = _told_apart(entries, [place for place, _ in records], path.name)
    if classes is not None:
        known = {entry.class_name for entry in entries}
        for name in classes:
            if name not in known:
                raise ManifestError(
                    f"{path.name}: no picture of class {name!r}; it has {', '.join(sorted(known)) or 'none'}",
                    code="manifest.class",
                )
        entries = [entry for entry in entries if entry.class_name in classes]
    if not entries:
        raise ManifestError(f"{path.name}: lists no picture; add some, or choose other classes", code="manifest.empty")
    return entries


def write_picture_list(
    path: str | os.PathLike[str], entries: Sequence[PictureEntry], root: str | os.PathLike[str]
) -> None:
    """Write entries as JSON lines of the published form, with paths relative to the root.

    Raises:
        ManifestError: a picture lies outside the root.
        WriteError: the file could not be written.
    """
    base = Path(root).resolve()
    lines = [json.dumps(_record(entry, base), ensure_ascii=False) for entry in entries]
    with replacing(path) as temporary:
        temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _told_apart(entries: Sequence[PictureEntry], places: Sequence[str], name: str) -> list[PictureEntry]:
    """Add the place in the list to cases that share a name, such as 000 of the normal and of the abnormal."""
    found: dict[tuple[Path, str], str] = {}
    for entry, place in zip(entries, places, strict=True):
        earlier = found.setdefault((entry.image, entry.class_name), place)
        if earlier != place:
            raise ManifestError(
                f"{name}, {place}: {entry.case} is listed in {earlier} already, and would count twice; leave one out",
                code="manifest.twice",
                case=entry.case,
            )
    shared = Counter(entry.case for entry in entries)
    return [
        entry if shared[entry.case] == 1 else replace(entry, case=f"{entry.case} ({place})")
        for entry, place in zip(entries, places, strict=True)
    ]


def _record(entry: PictureEntry, root: Path) -> dict[str, Any]:
    record: dict[str, Any] = {"image_path": _relative(entry.image, root, entry.case), "label": entry.label}
    record["class_name"] = entry.class_name
    if entry.mask is not None:
        record["mask_path"] = _relative(entry.mask, root, entry.case)
    return record if entry.group is None else {**record, "group": entry.group}


def _relative(path: Path, root: Path, case: str) -> str:
    if not path.is_relative_to(root):
        raise ManifestError(
            f"{case}: lies outside the root that the list is written for; give the folder that holds every picture",
            code="manifest.outside_root",
        )
    return path.relative_to(root).as_posix()


def _records(path: Path, section: str | None) -> list[tuple[str, Mapping[str, Any]]]:
    """Return each record with its place in the list, by the names of the published form."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(
            f"{path.name}: no such list of pictures, or not text; check the path", code="manifest.missing"
        ) from error
    if path.suffix.lower() == ".jsonl":
        # Not splitlines, which ends a line at characters that file names may have.
        lines = [(f"line {number}", line) for number, line in enumerate(text.split("\n"), start=1)]
        return [(place, _object(line, f"{path.name}, {place}")) for place, line in lines if line.strip()]
    content = _object(text, path.name)
    name = section or "training"
    items = content.get(name)
    if not isinstance(items, list):
        known = [key for key, value in content.items() if isinstance(value, list)]
        raise ManifestError(
            f"{path.name}: no section {name!r}; it has {', '.join(map(repr, known)) or 'none'}", code="manifest.section"
        )
    return [(f"{name}[{n}]", _published(item, f"{path.name}, {name}[{n}]")) for n, item in enumerate(items)]


def _object(text: str, place: str) -> Mapping[str, Any]:
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ManifestError(f"{place}: its JSON is nested too deeply; export it again", code="manifest.json") from error
    except ValueError as error:
        raise ManifestError(
            f"{place}: not valid JSON ({error}); repair it or export it again", code="manifest.json"
        ) from error
    if not isinstance(content, dict):
        raise ManifestError(f"{place}: not an object in braces but {type(content).__name__}", code="manifest.form")
    return content


def _published(item: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(item, dict):
        raise ManifestError(f"{place}: not an object in braces but {type(item).__name__}", code="manifest.form")
    label, mask = item.get("label"), item.get("mask")
    if isinstance(label, str):
        label, mask = None, label
    if label is None:
        label = int(bool(mask))
    names = {"image_path": item.get("image"), "mask_path": mask, "label": label}
    return {**{key: value for key, value in item.items() if key not in ("image", "mask", "label")}, **names}


def _entry(record: Mapping[str, Any], place: str, root: Path, dataset: str | None) -> PictureEntry:
    image, mask, label, name = (record.get(key) for key in ("image_path", "mask_path", "label", "class_name"))
    for key, value, needed in (("image_path", image, True), ("class_name", name, True), ("mask_path", mask, False)):
        if not isinstance(value, str | None) or (needed and not value):
            raise ManifestError(f"{place}: {key} is {value!r}; give it as text", code="manifest.field")
    if plain_name(f"{image}{mask}{name}") != f"{image}{mask}{name}":
        raise ManifestError(
            f"{place}: a path or class holds bytes that are no UTF-8; rename the file, or correct the list",
            code="manifest.encoding",
        )
    if isinstance(label, bool) or label not in (0, 1):
        raise ManifestError(
            f"{place}: label is {label!r}; give 0 for a normal picture, 1 for an abnormal one", code="manifest.label"
        )
    group = record.get("group", record.get("patient"))
    return PictureEntry(
        image=inside(root, str(image)),
        mask=inside(root, mask) if mask else None,
        label=int(label),
        class_name=str(name),
        dataset=dataset,
        case=f"{name}/{Path(str(image)).stem}",
        group=None if group is None else str(group),
    )
