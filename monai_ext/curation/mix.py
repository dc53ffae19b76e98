"""Composing manifests: one list of several, by licence and weight, with a look at what leaks."""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from posixpath import normpath

from monai_ext.base import ManifestError, SettingError
from monai_ext.curation.known_leaks import KnownLeak, known_leaks, shared_within
from monai_ext.curation.known_overlaps import KnownOverlap
from monai_ext.curation.licences import refusal
from monai_ext.curation.mix_cards import JoinedCards
from monai_ext.curation.mix_entries import moved, told_apart_entries, weighted
from monai_ext.curation.targets import check_manifest_target
from monai_ext.manifests import (
    SPLITS,
    DatasetCard,
    Manifest,
    ManifestEntry,
    read_manifest,
    shipped_cards,
    write_manifest,
)


@dataclass(frozen=True)
class MixPart:
    """A manifest to take scans from.

    Attributes:
        path: the manifest.
        weight: a factor for the weights of its scans, such as ``"2.5"``, or its share of each split, such as
            ``"30%"``; the parts without a share divide the rest by their own weights. ``None`` keeps them.
        root: the folder that its paths start from; its own by default.
    """

    path: Path
    weight: str | None = None
    root: Path | None = None


@dataclass
class MixSummary:
    """What a mix holds.

    Attributes:
        path: the manifest written.
        manifest: its content.
        refused: by data set the reason and how many scans were left out.
        twice: scans that several parts list, each taken once.
        leaks: known ones with what is evaluated on, the worst first.
        shared: pairs of data sets within the mix that share scans.
        notes: what else to know.
        written: whether the file was written.
    """

    path: Path
    manifest: Manifest
    refused: dict[str, tuple[str, int]] = field(default_factory=dict)
    twice: int = 0
    leaks: list[KnownLeak] = field(default_factory=list)
    shared: list[KnownOverlap] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    written: bool = True


def mix_manifests(
    parts: Sequence[MixPart],
    out: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    commercial_ok: bool = False,
    licences: Collection[str] = (),
    splits: Collection[str] = (),
    exclude: Collection[str] = (),
    evaluate_on: Collection[str] = (),
    fail_on_leakage: bool = False,
) -> MixSummary:
    """Compose manifests into one, the same each time.

    Args:
        parts: the manifests, each with its weight.
        out: the manifest to write.
        root: the folder that its paths start from; that of ``out`` by default. It holds all data sets.
        commercial_ok: leave out what is not known to be allowed for commercial use.
        licences: the licences to take; any by default.
        splits: the lists to take; all by default.
        exclude: data sets to leave out.
        evaluate_on: data sets that results will be reported on; all that are described as such by default.
        fail_on_leakage: write nothing if a leak is known.

    Raises:
        ManifestError: a part cannot be read, lists no scans or lies outside the root; a root is no folder; nothing
            is left; a patient or a scan is in two splits.
        SettingError: an impossible weight, a split or data set that is not there, or a part that would be replaced.
        WriteError: the file could not be written.
    """
    target = Path(out).absolute()
    base = Path(root).absolute() if root is not None else target.parent
    _check_roots(parts, root)
    weights = _weights(parts)
    check_manifest_target(target, *(part.path for part in parts))
    _check_words("split", splits, SPLITS)
    joined, refused = JoinedCards(), dict[str, tuple[str, int]]()
    found: list[tuple[str, ManifestEntry]] = []
    labels: list[Mapping[int, str] | None] = []
    every: set[str] = set()
    names: list[str] = []
    for number, part in enumerate(parts):
        manifest = _with_scans(part.path)
        every |= manifest.datasets.keys()
        names.append(manifest.name + (f" ({part.weight})" if part.weight else ""))
        taken = [
            entry
            for entry in manifest.entries
            if (not splits or entry.split in splits)
            and entry.dataset not in exclude
            and not _refused(manifest.datasets[entry.dataset], commercial_ok, licences, refused)
        ]
        for name in sorted({entry.dataset for entry in taken}):
            joined.add(manifest.datasets[name], manifest.sources, part.path.name)
        if any(entry.label and entry.abnormal is None for entry in taken):
            labels.append(manifest.labels)
        found += [(str(number), entry) for entry in moved(taken, part.root or part.path.parent, base, part.path.name)]
    _check_words("exclude", exclude, sorted(every))
    once, twice, relabelled = _once(found)
    if not once:
        raise ManifestError(_nothing(refused), code="manifest.empty")
    entries = told_apart_entries(weighted(once, weights))
    known = {**shipped_cards(), **joined.cards}
    summary = MixSummary(
        target,
        Manifest(
            name=re.sub(r"[^A-Za-z0-9_.+-]", "_", target.stem).lstrip("_.+-")[:80] or "mix",
            datasets=joined.cards,
            title=f"Mix of {len(parts)} manifests",
            status=_status(names, commercial_ok, licences),
            sources=joined.sources,
            labels=labels[0] if labels and all(one == labels[0] for one in labels) else None,
            entries=tuple(sorted(entries, key=lambda entry: SPLITS.index(entry.split))),
        ),
        refused=refused,
        twice=twice,
        leaks=known_leaks(entries, known, evaluate_on),
    )
    if relabelled:
        summary.notes.append(
            f"{relabelled} scans have another label in another part; that of the first part given is kept"
        )
    shared = _patients_of_several(once, parts)
    if shared:
        summary.notes.append(
            f"{len(shared)} patients are named by several parts, such as that of {shared[0]}, and each is taken for "
            "one; if they are others, give the data sets of the parts ids of their own"
        )
    if any(one != labels[0] for one in labels):
        summary.notes.append(
            "the parts name their labels differently, so the mix names none: do not train labels on it"
        )
    summary.shared = shared_within(summary.manifest)
    summary.written = not (fail_on_leakage and summary.leaks)
    if summary.written:
        write_manifest(target, summary.manifest)
    return summary


def _check_roots(parts: Sequence[MixPart], root: str | os.PathLike[str] | None) -> None:
    for place in (root, *(part.root for part in parts)):
        if place is not None and not os.path.isdir(place):
            raise ManifestError(
                f"{Path(place).name}: no such folder; give the one that the paths start from", code="manifest.root"
            )


def _weights(parts: Sequence[MixPart]) -> dict[str, str]:
    for part in parts:
        if part.weight is not None and not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?%?", part.weight):
            raise SettingError(
                f"{part.path.name}={part.weight[:20]}: no weight; give a factor such as 2.5 or a share such as 30%",
                code="setting.weight",
            )
    return {str(number): part.weight for number, part in enumerate(parts) if part.weight is not None}


def _check_words(option: str, words: Collection[str], known: Sequence[str]) -> None:
    for word in words:
        if word not in known:
            raise SettingError(
                f"{option}: {word!r} is not there; give one of {', '.join(known)}", code=f"setting.{option}"
            )


def _with_scans(path: Path) -> Manifest:
    manifest = read_manifest(path)
    if not manifest.entries:
        raise ManifestError(
            f"{path.name}: describes data sets but lists no scans; download them, and make a list of them with "
            "'python -m monai_ext manifest build FOLDER'",
            code="manifest.no_entries",
        )
    return manifest


def _refused(
    card: DatasetCard, commercial_ok: bool, licences: Collection[str], refused: dict[str, tuple[str, int]]
) -> bool:
    reason = refusal(card, commercial_ok, licences)
    if reason is not None:
        refused[card.id] = (reason, refused.get(card.id, ("", 0))[1] + 1)
    return reason is not None


def _once(found: Sequence[tuple[str, ManifestEntry]]) -> tuple[list[tuple[str, ManifestEntry]], int, int]:
    """Keep the first of entries that are the same scan in the same split; it takes over a label that it lacks.

    Returns:
        The entries, how many were dropped, and how many of these had another label.

    Raises:
        ManifestError: one scan is of two data sets, or in two splits.
    """
    seen: dict[tuple[str, str | None], tuple[str, ManifestEntry]] = {}
    splits: dict[str, ManifestEntry] = {}
    relabelled = 0
    for key, entry in found:
        # Before the same scan gets another id for each split, which its owner would not know again.
        image = normpath(entry.image)
        other = splits.setdefault(image, entry)
        if other.split != entry.split:
            raise ManifestError(
                f"{entry.id}: its image is in {other.split} of one part and in {entry.split} of another; keep it in "
                "one of them, or choose with --split",
                code="manifest.image_in_two_splits",
                case=entry.id,
            )
        place = (image, entry.class_name)
        first_key, first = seen.setdefault(place, (key, entry))
        if first.dataset != entry.dataset:
            raise ManifestError(
                f"{entry.id}: one file is of {first.dataset} here and of {entry.dataset} there; correct one part",
                code="manifest.two_datasets",
                case=entry.id,
            )
        if first.label is None and entry.label is not None:
            seen[place] = first_key, replace(first, label=entry.label, label_sha256=entry.label_sha256)
        elif first.label is not None and entry.label is not None:
            relabelled += normpath(first.label) != normpath(entry.label)
    return list(seen.values()), len(found) - len(seen), relabelled


def _patients_of_several(entries: Sequence[tuple[str, ManifestEntry]], parts: Sequence[MixPart]) -> list[str]:
    """Return an id for each patient whom parts of several folders name: it may be one, or two of the same number."""
    roots = {str(number): os.path.realpath(part.root or part.path.parent) for number, part in enumerate(parts)}
    first: dict[tuple[str, str], tuple[str, str]] = {}
    shared: dict[tuple[str, str], str] = {}
    for key, entry in entries:
        root, name = first.setdefault(entry.patient, (roots[key], entry.id))
        if root != roots[key]:
            shared.setdefault(entry.patient, name)
    return list(shared.values())


def _nothing(refused: Mapping[str, tuple[str, int]]) -> str:
    told = "; ".join(f"{name}: {reason}" for name, (reason, _) in sorted(refused.items())[:5])
    return f"nothing is left for the mix ({told or 'no scan in the splits and data sets asked for'}); relax the filter"


def _status(names: Sequence[str], commercial_ok: bool, licences: Collection[str]) -> str:
    limits = [*(["commercial use allowed"] if commercial_ok else []), *sorted(licences)]
    return f"Composed of {', '.join(names)}" + (f"; filtered by {', '.join(limits)}." if limits else ".")
