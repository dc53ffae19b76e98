"""Descriptions of data sets and their sources, from several manifests into one."""

from collections.abc import Mapping
from dataclasses import replace

from monai_ext.base import ManifestError
from monai_ext.manifests import DatasetCard, Fact, Relation
from monai_ext.manifests.cards import sources_of


class JoinedCards:
    """Descriptions gathered from manifest after manifest; the first of a data set is kept.

    Attributes:
        cards: by id.
        sources: by key; where two manifests mean different sources by one key, the later is renamed.
    """

    def __init__(self) -> None:
        self.cards: dict[str, DatasetCard] = {}
        self.sources: dict[str, Mapping[str, str]] = {}
        self._first: dict[str, str] = {}

    def add(self, card: DatasetCard, sources: Mapping[str, Mapping[str, str]], name: str) -> None:
        """Take over a description.

        Args:
            card: the description.
            sources: those of its manifest.
            name: of the manifest, for messages.

        Raises:
            ManifestError: another manifest gives the same data set another licence.
        """
        known = self.cards.get(card.id)
        if known is None:
            self._first[card.id] = name
            self.cards[card.id] = _renamed(card, self._keys(card, sources))
        elif (known.licence, known.commercial_use) != (card.licence, card.commercial_use):
            raise ManifestError(
                f"{name}: {card.id} is {card.licence} (commercial use: {card.commercial_use}) here, but "
                f"{known.licence} ({known.commercial_use}) in {self._first[card.id]}; correct one of them",
                code="manifest.licences_differ",
            )

    def _keys(self, card: DatasetCard, sources: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
        keys = {}
        for key in sorted(sources_of([card])):
            new, number = key, 1
            while self.sources.setdefault(new, sources[key]) != sources[key]:
                number += 1
                new = f"{key}-{number}"
            keys[key] = new
        return keys


def _renamed(card: DatasetCard, keys: Mapping[str, str]) -> DatasetCard:
    def facts(group: Mapping[str, Fact]) -> dict[str, Fact]:
        return {name: replace(fact, source=tuple(keys[key] for key in fact.source)) for name, fact in group.items()}

    def relations(group: tuple[Relation, ...]) -> tuple[Relation, ...]:
        return tuple(replace(item, source=tuple(keys[key] for key in item.source)) for item in group)

    return replace(
        card,
        facts=facts(card.facts),
        counts=facts(card.counts),
        roles=facts(card.roles),
        splits=facts(card.splits),
        contains=relations(card.contains),
        overlaps=relations(card.overlaps),
    )
