"""Which data set a folder is: the one that the user names, the one whose layout fits, or none that is known."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from monai_ext.base import ManifestError, case_id, plain_name
from monai_ext.curation.drafts import base_name
from monai_ext.curation.layouts import Assignment, FoundImage, assign, recognise
from monai_ext.curation.problems import Problem, first_names
from monai_ext.manifests import (
    CONFIDENCES,
    DatasetCard,
    Fact,
    LayoutRule,
    Manifest,
    ManifestEntry,
    read_manifest,
    read_shipped,
    shipped_manifests,
)
from monai_ext.manifests.cards import sources_of
from monai_ext.volumes.prepare_sources import LABEL_FOLDERS, LABEL_NAME, SCAN_ENDINGS

Sources = Mapping[str, Mapping[str, str]]

_GENERIC = tuple(
    rule
    for ending in SCAN_ENDINGS
    for rule in (
        LayoutRule(f"imagesTr/{{id}}{ending}", "training", f"labelsTr/{{id}}{ending}"),
        LayoutRule(f"imagesTs/{{id}}{ending}", "test", f"labelsTs/{{id}}{ending}"),
        LayoutRule(f"images/{{id}}{ending}", "unassigned", f"labels/{{id}}{ending}"),
    )
)
_ANY = LayoutRule("*", "unassigned")
_GENERIC_STATUS = (
    "Scans found in a folder of no known layout. Licence and patients are unknown: every file counts as a patient of "
    "its own, DICOM series by their patient; correct the groups where one patient has several scans."
)


@dataclass
class Chosen:
    """The data set of a folder and what its layout makes of the files.

    Attributes:
        card: the data set; one made up for this folder where none is known.
        known: whether it is one with a layout.
        told: how it was chosen.
        images: its scans.
        left_out: paths by the reason why they are left out.
        problems: labels without an image.
        sources: of the facts of the card.
    """

    card: DatasetCard
    known: bool
    told: str
    images: list[FoundImage] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    sources: Sources = field(default_factory=dict)

    @property
    def is_ct(self) -> bool:
        """Whether only CT belongs to it; of an unknown folder everything may."""
        return self.known and "CT" in str(self.card.value("modality", "CT"))

    def manifest(self, entries: Sequence[ManifestEntry]) -> Manifest:
        """Return the manifest with these entries."""
        labelled = any(entry.label for entry in entries)
        return Manifest(
            name=self.card.id,
            datasets={self.card.id: self.card},
            title=self.card.title,
            status=f"Found in a downloaded folder by the layout of {self.card.id}." if self.known else _GENERIC_STATUS,
            sources=self.sources,
            labels=dict(self.card.label_names) or None if labelled else None,
            entries=tuple(entries),
        )


def shipped_descriptions() -> dict[str, tuple[DatasetCard, Sources]]:
    """Return the shipped description of each data set by its id, with the sources of its facts."""
    manifests = {name: read_shipped(name) for name in shipped_manifests() if "/" not in name}
    return {name: (manifest.datasets[name], manifest.sources) for name, manifest in manifests.items()}


def choose_card(
    paths: Sequence[str], root: Path, dataset: str | None, cards: Mapping[str, tuple[DatasetCard, Sources]]
) -> Chosen:
    """Choose the data set that a folder is.

    Args:
        paths: its scans and pictures.
        root: the folder; its name and that of the folder above tell some data sets apart.
        dataset: id or file given by the user.
        cards: the known data sets.

    Raises:
        ManifestError: no such data set, a layout that fits nothing, or several that fit equally well.
    """
    lead = "".join(f"{part}/" for part in root.parts[-2:] if part != root.anchor)
    if dataset is not None:
        card, sources = _named(dataset, cards)
        if not card.layout:
            told = f"taken for {card.id} as asked; no layout of it is known, so every scan found is listed"
            return Chosen(card, False, told, sources=_of_card(card, sources))
        found = assign(card, paths, lead)
        if not found.images:
            expected = first_names([rule.image for rule in card.layout if not rule.leave_out], 3)
            raise ManifestError(
                f"{root.name}: no file fits the layout of {card.id}, which has {expected}; give the folder that holds "
                "these, or another --dataset",
                code="build.layout",
            )
        return _chosen(found, len(paths), f"taken for {card.id} as asked", sources)
    best = recognise([card for card, _ in cards.values()], paths, lead)
    if best is None:
        return Chosen(_unknown_card(root), False, "of no known layout; licence and patients are unknown")
    return _chosen(best, len(paths), f"recognised as {best.card.id} by its layout", cards[best.card.id][1])


def generic_images(chosen: Chosen, paths: Sequence[str]) -> list[FoundImage]:
    """Return every scan and picture of a folder without a layout, with labels where common folder names pair them."""
    found = assign(DatasetCard(chosen.card.id, layout=_GENERIC), paths)
    unpaired = []
    for path in found.unknown:
        name, folder = base_name(path), path.rpartition("/")[0].rpartition("/")[2].lower()
        if LABEL_NAME.search(name) or folder in LABEL_FOLDERS:
            chosen.left_out.setdefault("named like labels, of which no image is known", []).append(path)
        else:
            unpaired.append(FoundImage(path, _ANY, {}))
    chosen.problems += [_lone(path) for path in found.lone_labels]
    return sorted([*found.images, *unpaired], key=lambda image: image.path)


def _named(dataset: str, cards: Mapping[str, tuple[DatasetCard, Sources]]) -> tuple[DatasetCard, Sources]:
    if dataset in cards:
        return cards[dataset]
    if not dataset.lower().endswith(".json"):
        raise ManifestError(
            f"--dataset {plain_name(dataset)[:60]!r}: no data set of that name is shipped; give a file that describes "
            f"it, or one of {', '.join(sorted(cards)) or 'none'}",
            code="build.dataset",
        )
    manifest = read_manifest(dataset)
    if len(manifest.datasets) != 1:
        raise ManifestError(
            f"{Path(dataset).name}: describes {len(manifest.datasets)} data sets; give a file that describes the one "
            "that this folder is",
            code="build.dataset",
        )
    return next(iter(manifest.datasets.values())), manifest.sources


def _chosen(found: Assignment, total: int, told: str, sources: Sources) -> Chosen:
    rules = {image.rule for image in found.images}
    confidence = max((rule.confidence for rule in rules), key=CONFIDENCES.index)
    doubt = "" if confidence in ("verified", "high") else f"; its layout is of {confidence} confidence, so look at it"
    told = f"{told}: {len(found.explained)} of {total} files fit{doubt}"
    left_out = dict(found.left_out)
    if found.unknown:
        left_out["fit no pattern of the layout"] = found.unknown
    problems = [_lone(path) for path in found.lone_labels]
    return Chosen(found.card, True, told, found.images, left_out, problems, _of_card(found.card, sources))


def _lone(path: str) -> Problem:
    name = base_name(path)
    return Problem("label.alone", name, f"{name}: a label without an image; download the image, or remove the label")


def _of_card(card: DatasetCard, sources: Sources) -> Sources:
    return {key: sources[key] for key in sorted(sources_of([card])) if key in sources}


def _unknown_card(root: Path) -> DatasetCard:
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "_", case_id(root)).strip("_.-+")[:60] or "folder"
    facts = {
        "title": Fact(name),
        "licence": Fact(None, note="unknown to the program that made this list; enter it before you share or mix"),
        "commercial_use": Fact("unknown"),
    }
    return DatasetCard(name, facts)
