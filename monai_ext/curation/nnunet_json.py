"""``dataset.json`` of nnU-Net v2 (Isensee et al. 2021, Nature Methods 18): what it says, and what it should say."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from monai_ext.base import ManifestError, plain_name
from monai_ext.manifests import Manifest, ManifestEntry

_NUMBER = re.compile("[0-9]{1,5}")
FOLDER_NAME = re.compile(r"Dataset([0-9]{3})_([A-Za-z0-9][A-Za-z0-9_.+-]*)")


def file_ending(content: Mapping[str, Any]) -> str:
    """Return the ending of all files, such as ``".nii.gz"``.

    Raises:
        ManifestError: there is none.
    """
    ending = content.get("file_ending")
    if not isinstance(ending, str) or not re.fullmatch(r"(\.[A-Za-z0-9]{1,8}){1,2}", ending):
        raise ManifestError(
            "dataset.json: no file_ending such as '.nii.gz'; nnU-Net v2 needs one (folders of v1 and of the decathlon "
            "are listed by 'manifest build')",
            code="nnunet.file_ending",
        )
    return ending


def channel_names(content: Mapping[str, Any]) -> dict[int, str]:
    """Return the names of the channels by number.

    Raises:
        ManifestError: there are none.
    """
    names = content.get("channel_names", content.get("modality"))
    if not isinstance(names, dict) or not names or not all(re.fullmatch("[0-9]{1,4}", key) for key in names):
        raise ManifestError(
            "dataset.json: no channel_names such as {'0': 'CT'}; add them as nnU-Net v2 wants them",
            code="nnunet.channel_names",
        )
    channels = {int(key): str(name)[:40] for key, name in names.items()}
    for number, name in channels.items():
        if not name or not name.isprintable():
            raise ManifestError(
                f"dataset.json: channel {number} is called {name!r}; give it a name such as 'CT'",
                code="nnunet.channel_names",
            )
    return channels


def label_names(content: Mapping[str, Any]) -> dict[int, str]:
    """Return the names of the label values, as far as they have one each.

    Raises:
        ManifestError: there are no labels, or two of one value, or one that is no whole number.
    """
    labels = content.get("labels")
    if not isinstance(labels, dict) or not labels:
        raise ManifestError(
            "dataset.json: no labels such as {'background': 0, 'liver': 1}; add them", code="nnunet.labels"
        )
    if all(
        _NUMBER.fullmatch(key) and isinstance(name, str) and not _NUMBER.fullmatch(name) for key, name in labels.items()
    ):
        pairs = [(int(key), name) for key, name in labels.items()]  # the other way round, as v1 has it
    else:
        # Regions are lists of several values, which have no name each.
        pairs = [(value, name) for name, value in labels.items() if not isinstance(value, list)]
    single: dict[int, str] = {}
    for value, name in pairs:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 100_000:
            raise ManifestError(
                f"dataset.json: label {plain_name(name)[:40]!r} is {str(value)[:20]!r}; give a whole number from 0 to "
                "99999, or a list of them for a region",
                code="nnunet.labels",
            )
        if not name or not name.isprintable():
            raise ManifestError(
                f"dataset.json: label {value} is called {plain_name(name)[:40]!r}; give it a name", code="nnunet.labels"
            )
        if single.setdefault(value, name) != name:
            raise ManifestError(
                f"dataset.json: label {value} is called {single[value][:40]!r} and {name[:40]!r}; give each its own "
                "number",
                code="nnunet.label_twice",
            )
    return dict(sorted(single.items()))


def labels_without_gaps(manifest: Manifest, entries: Sequence[ManifestEntry], name: str) -> Mapping[int, str]:
    """Return the names of the label values of some entries.

    Raises:
        ManifestError: they have none, not the same, one twice, or a number is skipped; ``name`` calls the manifest.
    """
    sets = {entry.dataset for entry in entries if entry.label}
    names = [manifest.labels] if manifest.labels else [manifest.datasets[key].label_names for key in sorted(sets)]
    if not all(names) or any(one != names[0] for one in names):
        raise ManifestError(
            f"{name}: the labels of {', '.join(sorted(sets))} have no names, or not the same; put them under 'labels', "
            "such as {'0': 'background', '1': 'liver'}",
            code="nnunet.labels",
        )
    labels = {**names[0], 0: "background"}  # whatever it is called here: nnU-Net wants this name
    if len(set(labels.values())) < len(labels):
        raise ManifestError(
            f"{name}: two labels have one name, and nnU-Net tells them apart by it; give each its own",
            code="nnunet.label_twice",
        )
    missing = sorted(set(range(max(labels))) - labels.keys())
    if missing:
        raise ManifestError(
            f"{name}: label {missing[0]} has no name, and nnU-Net takes labels without gaps; number them anew, for "
            "example with RegroupLabels",
            code="nnunet.label_gap",
        )
    return dict(sorted(labels.items()))


def dataset_json(
    manifest: Manifest, entries: Sequence[ManifestEntry], labels: Mapping[int, str], ending: str, training: int
) -> dict[str, object]:
    """Return the content of ``dataset.json`` for some entries, ``training`` of them in ``imagesTr``."""
    cards = [manifest.datasets[key] for key in dict.fromkeys(entry.dataset for entry in entries)]
    modalities = sorted({str(card.value("modality", "CT")) for card in cards})
    return {
        # nnU-Net normalizes by the channel's name: CT by the whole set's intensities, others scan by scan.
        "channel_names": {"0": modalities[0] if len(modalities) == 1 else "mixed"},
        "labels": {name: number for number, name in labels.items()},
        "numTraining": training,
        "file_ending": ending,
        "name": manifest.title or manifest.name,
        "licence": "; ".join(f"{card.id}: {card.licence}" for card in cards),
    }
