"""From files found to entries: ids that are told apart, patients kept together, splits that do not share them."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from monai_ext.base import case_id, plain_name, told_apart
from monai_ext.base.files import UNSEEN
from monai_ext.curation.layout_patterns import filled
from monai_ext.curation.layouts import FoundImage
from monai_ext.curation.problems import Problem
from monai_ext.curation.scan_files import SeriesFound
from monai_ext.manifests import ManifestEntry
from monai_ext.volumes import PICTURE_ENDINGS

_NOT_IN_IDS = re.compile(rf'[/\\:*?"<>|{UNSEEN}]')
_LONGEST = 110  # ten characters are left for the digits that tell equal names apart


@dataclass(frozen=True)
class Draft:
    """An entry to be, without its checksums; fields as of `ManifestEntry`, the group empty where none is known."""

    name: str
    image: str
    label: str | None
    group: str
    split: str
    class_name: str | None = None
    abnormal: int | None = None


def drafts_of(images: Sequence[FoundImage], series: Mapping[str, Sequence[SeriesFound]]) -> list[Draft]:
    """Return a draft for each file, and for each series of a folder of DICOM files.

    Args:
        images: what the layout found.
        series: of each folder of DICOM files, by its path.
    """
    drafts = []
    for image in images:
        if image.path.endswith("/"):
            drafts += [_draft(image, one.path, one.case) for one in series[image.path]]
        else:
            drafts.append(_draft(image, image.path, base_name(image.path)))
    return drafts


def by_patient(drafts: Sequence[Draft], series: Mapping[str, Sequence[SeriesFound]]) -> list[Draft]:
    """Give series of one patient, as their headers say, one group: the name of the first of them."""
    patients = {one.path: one.patient for some in series.values() for one in some if one.patient}
    first: dict[str, str] = {}
    grouped = []
    for draft in drafts:
        patient = patients.get(draft.image)
        if patient and not draft.group:
            draft = replace(draft, group=first.setdefault(patient, draft.name))
        grouped.append(draft)
    return grouped


def entries_of(drafts: Sequence[Draft], dataset: str) -> tuple[list[ManifestEntry], list[Problem]]:
    """Return the entries, each with an id of its own, without those whose patient is in another split already."""
    ids = told_apart([(_plain(draft.name), draft.image) for draft in drafts])
    entries = [
        ManifestEntry(
            id=entry_id,
            dataset=dataset,
            image=draft.image,
            label=draft.label,
            group=draft.group or entry_id,
            split=draft.split,
            class_name=draft.class_name,
            abnormal=draft.abnormal,
        )
        for entry_id, draft in zip(ids, drafts, strict=True)
    ]
    splits = defaultdict(set)
    for entry in entries:
        splits[entry.group].add(entry.split)
    return list(_disjoint(entries, splits)), [_shared(entry) for entry in entries if _comes_second(entry, splits)]


def base_name(path: str) -> str:
    """Return the last part of a path without its ending, be it of a scan or of a picture."""
    name = PurePosixPath(path.rstrip("/")).name
    ending = next((ending for ending in PICTURE_ENDINGS if name.lower().endswith(ending)), "")
    return plain_name(name[: -len(ending)] if ending and len(name) > len(ending) else case_id(name))


def _draft(image: FoundImage, path: str, case: str) -> Draft:
    rule, values = image.rule, image.values
    name = filled(rule.id, values) if rule.id else values.get("id", case)
    if rule.id and "#" in path:  # several series of one folder
        name = f"{name}-{path.rpartition('#')[2]}"
    class_name = filled(rule.class_name, values) if rule.class_name else values.get("class")
    group = filled(rule.group, values) if rule.group else values.get("group", "")
    return Draft(name, path, image.label, group, rule.split, class_name, rule.abnormal)


def _plain(name: str) -> str:
    return _NOT_IN_IDS.sub("_", name).lstrip(".- \t")[:_LONGEST] or "scan"


def _comes_second(entry: ManifestEntry, splits: Mapping[str, set[str]]) -> bool:
    return len(splits[entry.group]) > 1 and entry.split != _kept(splits[entry.group])


def _kept(splits: set[str]) -> str:
    # What is evaluated on stays; nothing of its patients may be learnt from.
    return next(split for split in ("test", "validation", "training", "unassigned") if split in splits)


def _disjoint(entries: Sequence[ManifestEntry], splits: Mapping[str, set[str]]) -> Iterator[ManifestEntry]:
    return (entry for entry in entries if not _comes_second(entry, splits))


def _shared(entry: ManifestEntry) -> Problem:
    sentence = (
        f"{entry.id}: its patient is in another split too, so it is left out of {entry.split}; keep all scans of one "
        "patient in one split"
    )
    return Problem("manifest.patient_in_two_splits", entry.id, sentence)
