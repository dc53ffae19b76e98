"""The entries of a manifest: what is wrong with one, and with all of them together."""

from collections.abc import Collection, Mapping, Sequence
from posixpath import normpath
from typing import Any

from monai_ext.base import ManifestError, plain_name
from monai_ext.manifests.manifest import SPLITS, ManifestEntry
from monai_ext.manifests.schema import entry_rules

_PATH = "give it relative to the root, with /, and without '..', backslash, drive letter or control character"
_WAYS_OUT = {
    "id": (
        'give a plain name of at most 120 characters, without / \\ : * ? " < > | and not starting with a dot or dash'
    ),
    "image": _PATH,
    "label": _PATH,
    "dataset": "give the key of one of its datasets as text",
    "group": "give the patient's name in this list as text, or leave it out",
    "sha256": "give 64 lower-case hexadecimal digits, or leave it out",
    "label_sha256": "give 64 lower-case hexadecimal digits, or leave it out",
    "weight": "give a finite number from 0 on",
    "class_name": "give it as text",
    "abnormal": "give 0 for a normal picture, 1 for an abnormal one",
}


def read_entries(
    content: Mapping[str, Any], datasets: Collection[str], newer: bool
) -> tuple[list[ManifestEntry], list[ManifestError]]:
    """Read the lists of a manifest.

    Args:
        content: the manifest.
        datasets: the ids that it describes.
        newer: of a later minor version, whose further keys are passed over.

    Returns:
        The entries that have no fault of their own, and what is wrong with others or between entries.
    """
    entries: list[ManifestEntry] = []
    problems: list[ManifestError] = []
    for split in SPLITS:
        items = content.get(split, [])
        for number, item in enumerate(items if isinstance(items, list) else ()):
            place = f"{split}[{number}]"
            problem = _problem(item, place, datasets, newer)
            if problem is None:
                entries.append(_entry(item, split))
            else:
                problems.append(problem)
    kept, twice = _once(entries)
    return kept, problems + twice + _in_two_splits(kept)


def entry_content(entry: ManifestEntry) -> dict[str, Any]:
    """Return an entry as it stands in the file; what is at its default is left out."""
    content: dict[str, Any] = {"id": entry.id, "image": entry.image, "dataset": entry.dataset}
    if entry.label is not None:
        content["label"] = entry.label
    if entry.group != entry.id:
        content["group"] = entry.group
    for key in ("sha256", "label_sha256", "class_name", "abnormal"):
        if getattr(entry, key) is not None:
            content[key] = getattr(entry, key)
    if entry.weight != 1:
        content["weight"] = entry.weight
    return content


def entry_problem(content: Any, place: str, datasets: Collection[str]) -> ManifestError | None:
    """Return what is wrong with an entry as it stands in a file, or ``None``."""
    return _problem(content, place, datasets, newer=False)


def _problem(item: Any, place: str, datasets: Collection[str], newer: bool) -> ManifestError | None:
    if not isinstance(item, dict):
        return ManifestError(
            f"{place}: an entry is an object such as {{'id': ..., 'image': ..., 'dataset': ...}}, "
            f"not {type(item).__name__}",
            code="manifest.form",
        )
    rules, required, further = entry_rules()
    # Told by its id where that is one, for numbers change when a list is edited.
    place = f"{place} ({item['id']})" if rules["id"](item.get("id")) else place
    case = item["id"] if rules["id"](item.get("id")) else None
    if not required <= item.keys():
        return _missing(item, place, case, required)
    for key, value in item.items():
        if key not in rules:
            if newer or further.search(key):
                continue
            return ManifestError(
                f"{place}: {_shown(key)} is no key of an entry; correct it, or name your own x_... "
                f"(known: {', '.join(rules)})",
                code="manifest.field",
                case=case,
            )
        if not rules[key](value):
            return _wrong(key, value, place, case)
    if item["dataset"] not in datasets:
        return ManifestError(
            f"{place}: dataset {_shown(item['dataset'])} is not described in this file (it has "
            f"{', '.join(sorted(datasets)[:8])}); add it to datasets, or correct the entry",
            code="manifest.dataset",
            case=case,
        )
    return None


def _missing(item: Mapping[str, Any], place: str, case: str | None, required: Collection[str]) -> ManifestError:
    if "label" in item and "image" not in item:
        return ManifestError(
            f"{place}: it has a label without an image; name the image, or leave the entry out",
            code="manifest.label_alone",
            case=case,
        )
    missing = sorted(required - item.keys())
    return ManifestError(
        f"{place}: it has no {' and no '.join(missing)}; every entry needs id, image and dataset",
        code="manifest.field",
        case=case,
    )


def _wrong(key: str, value: Any, place: str, case: str | None) -> ManifestError:
    if key in ("image", "label") and isinstance(value, str):
        # Of a path only its last part may be told: folders carry names of patients.
        last = value.replace("\\", "/").rsplit("/", 1)[-1]
        code = "manifest.outside_root" if value.startswith("/") or ".." in value else "manifest.path"
        told = f"the path of its {key} ({_shown(last)}) is not relative and plain"
        return ManifestError(f"{place}: {told}; {_WAYS_OUT[key]}", code=code, case=case)
    return ManifestError(f"{place}: {key} is {_shown(value)}; {_WAYS_OUT[key]}", code=f"manifest.{key}", case=case)


def _shown(value: Any) -> str:
    text = repr(plain_name(value) if isinstance(value, str) else value)
    return text if len(text) <= 60 else text[:57] + "..."


def _entry(item: Mapping[str, Any], split: str) -> ManifestEntry:
    abnormal = item.get("abnormal")
    return ManifestEntry(
        id=item["id"],
        dataset=item["dataset"],
        image=item["image"],
        label=item.get("label"),
        group=item.get("group", ""),
        split=split,
        sha256=item.get("sha256"),
        label_sha256=item.get("label_sha256"),
        weight=float(item.get("weight", 1)),
        class_name=item.get("class_name"),
        abnormal=None if abnormal is None else int(abnormal),
    )


def _once(entries: Sequence[ManifestEntry]) -> tuple[list[ManifestEntry], list[ManifestError]]:
    """Keep the first entry of each id; some file systems do not tell A from a, so neither does this."""
    seen: dict[str, ManifestEntry] = {}
    problems = []
    for entry in entries:
        first = seen.setdefault(entry.id.casefold(), entry)
        if first is not entry:
            problems.append(
                ManifestError(
                    f"{entry.split}: the id {entry.id!r} is given twice (first in {first.split}, as {first.id!r}); "
                    "give each entry its own",
                    code="manifest.duplicate_id",
                    case=entry.id,
                )
            )
    return list(seen.values()), problems


def _in_two_splits(entries: Sequence[ManifestEntry]) -> list[ManifestError]:
    problems = []
    for what, code, key in (
        ("patient", "manifest.patient_in_two_splits", lambda entry: entry.patient),
        ("image", "manifest.image_in_two_splits", lambda entry: normpath(entry.image)),
    ):
        first: dict[Any, ManifestEntry] = {}
        for entry in entries:
            earlier = first.setdefault(key(entry), entry)
            if earlier.split != entry.split:
                told = f"{entry.group!r} of {entry.dataset}" if what == "patient" else "file"
                problems.append(
                    ManifestError(
                        f"{entry.split} ({entry.id}): {what} {told} is in {earlier.split} already ({earlier.id}); "
                        "keep all scans of one patient in one list",
                        code=code,
                        case=entry.id,
                    )
                )
    return problems
