"""Leaks that descriptions of data sets tell: training on scans that others evaluate on."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate

from monai_ext.base import SettingError, case_id
from monai_ext.curation.known_overlaps import KnownOverlap, known_overlaps
from monai_ext.manifests import DatasetCard, Manifest, ManifestEntry, Relation

_SEVERITIES = ("high", "medium", "low", "unknown")


@dataclass(frozen=True)
class KnownLeak:
    """A data set to train on that shares scans with one to evaluate on.

    Attributes:
        dataset: to train on.
        evaluation: to evaluate on.
        count: entries of the former; how many of them are shared is what ``what`` says.
        what: which scans, in words.
        severity, confidence: as of a `Relation`; of a set with itself ``"high"`` and ``"verified"``.
        by_name: no entry names the data set; files or folders bear its names.
    """

    dataset: str
    evaluation: str
    count: int
    what: str
    severity: str
    confidence: str
    by_name: bool = False


def known_leaks(
    entries: Sequence[ManifestEntry],
    cards: Mapping[str, DatasetCard],
    evaluate_on: Collection[str] = (),
) -> list[KnownLeak]:
    """Find what is known to leak when these scans are trained on.

    A scan counts for the data set that its entry names, and for one whose file names or folder it bears, such as the
    ``BDMAP_*`` of AbdomenAtlas.

    Args:
        entries: to train on.
        cards: descriptions of their data sets and of those to evaluate on.
        evaluate_on: ids of the latter; every set that results are reported on by default.

    Returns:
        Each pair of data sets once, the worst first.

    Raises:
        SettingError: a data set to evaluate on that is not described.
    """
    benchmarks = _benchmarks(cards, evaluate_on)
    named = {entry.dataset for entry in entries}
    leaks = []
    for dataset, count in sorted(_counts(entries, cards).items()):
        for benchmark in benchmarks:
            found = _relation(dataset, benchmark, cards)
            if found is not None:
                by_name = dataset not in named
                leaks.append(
                    KnownLeak(dataset, benchmark, count, found.what, found.severity, found.confidence, by_name)
                )
    return sorted(leaks, key=lambda leak: (_SEVERITIES.index(leak.severity), leak.evaluation, leak.dataset))


def shared_within(manifest: Manifest) -> list[KnownOverlap]:
    """Return the data sets of a list that share scans, which are drawn twice; each pair once, in the gravest words."""
    pairs: dict[tuple[str, str], KnownOverlap] = {}
    for pair in sorted(known_overlaps(manifest), key=lambda pair: _SEVERITIES.index(pair.severity)):
        pairs.setdefault((pair.first, pair.second), pair)
    return list(pairs.values())


def _benchmarks(cards: Mapping[str, DatasetCard], wanted: Collection[str]) -> list[str]:
    known = {name.casefold(): name for name in cards}
    for name in wanted:
        if name.casefold() not in known:
            told = ", ".join(name for name, card in cards.items() if card.evaluation)
            raise SettingError(
                f"evaluate-on: {name!r} is no data set that is described; give ids such as {told}",
                code="setting.evaluate_on",
            )
    return sorted({known[name.casefold()] for name in wanted} or {k for k, card in cards.items() if card.evaluation})


def _counts(entries: Sequence[ManifestEntry], cards: Mapping[str, DatasetCard]) -> dict[str, int]:
    patterns = [
        (name, re.compile(translate(pattern)))
        for name, card in cards.items()
        for pattern in (*card.value("file_names", ()), card.value("folder", "/"))
        if "/" not in pattern
    ]
    # Most names fit no pattern, and this one tells so at once.
    some = re.compile("|".join(f"(?:{pattern.pattern})" for _, pattern in patterns) or r"(?!)")
    counts: dict[str, int] = {}
    for entry in entries:
        parts = {case_id(part) for part in (*entry.image.split("/"), entry.id) if part}
        told = [part for part in parts if some.match(part)]
        for name in {entry.dataset, *(name for name, pattern in patterns if any(map(pattern.match, told)))}:
            counts[name] = counts.get(name, 0) + 1
    return counts


def _relation(dataset: str, other: str, cards: Mapping[str, DatasetCard]) -> Relation | None:
    """Return the worst that either description says of both."""
    if dataset == other:
        return Relation(other, "is itself evaluated on", "high", "verified")
    found = [
        relation
        for one, two in ((dataset, other), (other, dataset))
        if one in cards
        for relation in (*cards[one].contains, *cards[one].overlaps)
        if relation.dataset == two
    ]
    return min(found, key=lambda relation: _SEVERITIES.index(relation.severity), default=None)
