"""A manifest of a folder in the form of nnU-Net v2 (``DatasetNNN_NAME``; Isensee et al. 2021)."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from monai_ext.base import ManifestError, plain_name
from monai_ext.curation.mix_entries import moved
from monai_ext.curation.nnunet_json import FOLDER_NAME, channel_names, file_ending, label_names
from monai_ext.curation.targets import check_manifest_target
from monai_ext.manifests import (
    DatasetCard,
    Fact,
    Manifest,
    ManifestEntry,
    entry_content,
    entry_problem,
    load_datalist,
    read_shipped,
    shipped_manifests,
    write_manifest,
)

_SOURCE = "DATASET-JSON"


@dataclass
class NnunetImport:
    """What became of a folder.

    Attributes:
        path: the manifest written.
        manifest: its content.
        left_out: why files were left out, with their base names.
    """

    path: Path
    manifest: Manifest
    left_out: dict[str, list[str]] = field(default_factory=dict)


def import_nnunet(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    dataset: str | None = None,
    channel: int = 0,
    root: str | os.PathLike[str] | None = None,
) -> NnunetImport:
    """Write a manifest of the cases of an nnU-Net folder.

    ``imagesTr`` becomes training and ``imagesTs`` test; where ``splits_final.json`` lies in the folder, cases that its
    first fold validates on become validation. nnU-Net knows no patients: each case counts as one.

    Args:
        folder: ``DatasetNNN_NAME`` with ``dataset.json``.
        out: the manifest to write.
        dataset: id of the shipped data set that it is, for its licence and the rest; one of unknown licence by default.
        channel: which of several channels to take.
        root: the folder that paths of the manifest start from; that of ``out`` by default.

    Raises:
        ManifestError: no such folder or data set, ``dataset.json`` is missing or wrong, no cases, or the folder lies
            outside the root.
        WriteError: the manifest could not be written.
    """
    folder, target = Path(folder).absolute(), Path(out).absolute()
    base = Path(root).absolute() if root is not None else target.parent
    if not (folder / "dataset.json").is_file():
        raise ManifestError(
            f"{plain_name(folder.name)}: no dataset.json in it; give a folder in nnU-Net's form, such as "
            "Dataset001_NAME, or list a plain one with 'manifest build'",
            code="nnunet.no_dataset_json",
        )
    check_manifest_target(target)
    content = load_datalist(folder / "dataset.json")
    ending, channels = file_ending(content), channel_names(content)
    if channel not in channels:
        raise ManifestError(
            f"dataset.json: no channel {channel}; it has "
            + ", ".join(f"{number} ({name})" for number, name in sorted(channels.items())),
            code="nnunet.channel",
        )
    labels = label_names(content)
    manifest = _described(folder, content, dataset, channels[channel], labels)
    (name,) = manifest.datasets
    result = NnunetImport(target, manifest)
    held = _held_out(folder)
    entries = [
        *_cases(folder, "training", f"_{channel:04}", ending, name, result),
        *_cases(folder, "test", f"_{channel:04}", ending, name, result),
    ]
    entries = [
        replace(one, split="validation") if one.split == "training" and one.id in held else one for one in entries
    ]
    # Else a list of other names would leave all for training in silence.
    told = {name for names in result.left_out.values() for name in names}
    strangers = sorted(
        {plain_name(name) for name in held - {one.id for one in entries if one.split == "validation"}} - told
    )
    if strangers:
        result.left_out["named by splits_final.json, but no case of imagesTr"] = strangers
    if not entries:
        raise ManifestError(
            f"{plain_name(folder.name)}: no image such as imagesTr/CASE_{channel:04}{ending}; check file_ending in "
            "dataset.json",
            code="nnunet.empty",
        )
    order = ("training", "validation", "test")
    entries.sort(key=lambda entry: order.index(entry.split))
    # Entries are checked before they are moved, so that sentences name paths of this folder.
    result.manifest = replace(manifest, entries=tuple(moved(entries, folder, base, plain_name(folder.name))))
    write_manifest(target, result.manifest)
    return result


def _described(
    folder: Path, content: Mapping[str, Any], dataset: str | None, channel: str, labels: Mapping[int, str]
) -> Manifest:
    known = FOLDER_NAME.fullmatch(folder.name)
    short = re.sub(r"[^A-Za-z0-9_.+-]", "_", known[2] if known else folder.name).lstrip("_.+-")[:80] or "nnunet"
    names = {str(number): name for number, name in labels.items()}
    if dataset is not None:
        if dataset not in shipped_manifests() or "/" in dataset:  # a list is of several data sets
            raise ManifestError(
                f"{dataset}: no data set of that id is shipped; leave --dataset out, or give one of "
                + ", ".join(name for name in shipped_manifests() if "/" not in name),
                code="manifest.unknown",
            )
        manifest = read_shipped(dataset)
        return replace(manifest, name=short, labels=labels, status="Imported from a folder in nnU-Net's form.")
    told = content.get("licence", content.get("license"))
    licence = (
        Fact(None)
        if not isinstance(told, str) or not told.strip() or not told.isprintable()
        else Fact(told, "medium", (_SOURCE,))
    )
    title = content.get("name") if isinstance(content.get("name"), str) else short
    card = DatasetCard(
        id=short.lower(),
        facts={
            "title": Fact(str(title) if str(title).isprintable() and title else short, "medium", (_SOURCE,)),
            "licence": licence,
            "commercial_use": Fact("unknown"),
            "modality": Fact(channel, "medium", (_SOURCE,)),
            "label_names": Fact(names, "medium", (_SOURCE,)),
        },
    )
    return Manifest(
        name=short,
        datasets={card.id: card},
        title=card.title,
        status="Imported from a folder in nnU-Net's form. Patients are unknown: every case counts as one.",
        sources={_SOURCE: {"kind": "file", "locator": "dataset.json of the imported folder"}},
        labels=labels,
    )


def _held_out(folder: Path) -> frozenset[str]:
    path = folder / "splits_final.json"
    if not path.is_file():
        return frozenset()
    try:
        folds = json.loads(path.read_text(encoding="utf-8-sig"))
        held = folds[0]["val"]
        if not isinstance(held, list) or not all(isinstance(name, str) for name in held):
            raise TypeError("val is no list of names")
        return frozenset(held)
    except (ValueError, LookupError, TypeError, RecursionError, OSError) as error:
        raise ManifestError(
            "splits_final.json: not a list such as [{'train': [...], 'val': [...]}]; repair it, or take it away",
            code="nnunet.splits",
        ) from error


def _cases(folder: Path, split: str, mark: str, ending: str, dataset: str, result: NnunetImport) -> list[ManifestEntry]:
    images, labels = ("imagesTr", "labelsTr") if split == "training" else ("imagesTs", "labelsTs")
    tail = mark + ending
    entries, with_label = [], _names(folder / labels, ending)
    for case in sorted(_names(folder / images, tail)):
        label = f"{labels}/{case}{ending}" if case in with_label else None
        entry = ManifestEntry(case, dataset, f"{images}/{case}{tail}", label, split=split)
        problem = entry_problem(entry_content(entry), f"{split}", [dataset])
        if problem is not None:
            result.left_out.setdefault("its name cannot be an id", []).append(plain_name(case))
        elif label is None and split == "training":
            result.left_out.setdefault("an image of imagesTr without a label", []).append(plain_name(case))
        else:
            entries.append(entry)
    alone = with_label - _names(folder / images, tail)
    if alone:
        result.left_out["a label without an image"] = [
            *result.left_out.get("a label without an image", []),
            *sorted(map(plain_name, alone)),
        ]
    return entries


def _names(folder: Path, ending: str) -> set[str]:
    if not folder.is_dir():
        return set()
    return {
        path.name[: -len(ending)]
        for path in folder.iterdir()
        if path.name.endswith(ending) and not path.name.startswith(".") and len(path.name) > len(ending)
    }
