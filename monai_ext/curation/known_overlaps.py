"""What the descriptions of data sets say themselves about scans that two of them share."""

from collections.abc import Iterator
from dataclasses import dataclass

from monai_ext.manifests import DatasetCard, Manifest


@dataclass(frozen=True, order=True)
class KnownOverlap:
    """Two data sets that share scans.

    Attributes:
        first, second: their ids.
        what: which scans.
        severity: ``"high"``, ``"medium"``, ``"low"`` or ``"unknown"``; ``"high"`` where they are one set.
    """

    first: str
    second: str
    what: str
    severity: str


def known_overlaps(first: Manifest, second: Manifest | None = None) -> list[KnownOverlap]:
    """Return what is known of scans shared by data sets of two manifests, or of one.

    Args:
        first: a manifest.
        second: another one; by default the sets of the first are compared with one another.
    """
    others = first if second is None else second
    found = set[KnownOverlap]()
    for one in _listed(first):
        for other in _listed(others):
            if one.id != other.id:
                found |= set(_between(one, other))
            elif second is not None:
                found.add(KnownOverlap(one.id, one.id, "scans of this data set are in both lists", "high"))
    if second is None:  # each pair of sets was met twice
        found = {pair for pair in found if pair.first < pair.second}
    return sorted(found)


def _listed(manifest: Manifest) -> list[DatasetCard]:
    """Return the sets that scans are listed of; all of them where none is."""
    listed = {entry.dataset for entry in manifest.entries}
    return [card for card in manifest.datasets.values() if not listed or card.id in listed]


def _between(one: DatasetCard, other: DatasetCard) -> Iterator[KnownOverlap]:
    for card, partner in ((one, other), (other, one)):
        for relation in (*card.contains, *card.overlaps):
            if relation.dataset in (partner.id, partner.title):
                yield KnownOverlap(one.id, other.id, relation.what, relation.severity)
