"""Descriptions of data sets, between the file's form and the program's."""

from collections.abc import Mapping, Sequence
from typing import Any

from monai_ext.manifests.manifest import DatasetCard, Fact, LayoutRule, Relation

_GROUPS = ("counts", "roles", "splits")
_LISTS = ("contains", "overlaps", "layout", "notes")


def read_card(dataset: str, content: Mapping[str, Any]) -> DatasetCard:
    """Read a description that the schema has found valid."""
    return DatasetCard(
        id=dataset,
        facts={
            key: _fact(value)
            for key, value in content.items()
            if key not in (*_GROUPS, *_LISTS) and isinstance(value, dict) and "confidence" in value
        },
        **{name: {key: _fact(fact) for key, fact in content.get(name, {}).items()} for name in _GROUPS},
        contains=tuple(_relation(item) for item in content.get("contains", ())),
        overlaps=tuple(_relation(item) for item in content.get("overlaps", ())),
        layout=tuple(_rule(item) for item in content.get("layout", ())),
        notes=tuple(content.get("notes", ())),
    )


def card_content(card: DatasetCard) -> dict[str, Any]:
    """Return a description as it stands in a file."""
    content: dict[str, Any] = {name: _fact_content(fact) for name, fact in card.facts.items()}
    for name in _GROUPS:
        facts: Mapping[str, Fact] = getattr(card, name)
        if facts:
            content[name] = {key: _fact_content(fact) for key, fact in facts.items()}
    for name, relations in (("contains", card.contains), ("overlaps", card.overlaps)):
        if relations:
            content[name] = [_relation_content(relation) for relation in relations]
    if card.layout:
        content["layout"] = [_rule_content(rule) for rule in card.layout]
    if card.notes:
        content["notes"] = list(card.notes)
    return content


def _fact(content: Mapping[str, Any]) -> Fact:
    return Fact(content["value"], content["confidence"], tuple(content["source"]), content.get("note"))


def _fact_content(fact: Fact) -> dict[str, Any]:
    content = {"value": fact.value, "confidence": fact.confidence, "source": list(fact.source)}
    return content if fact.note is None else {**content, "note": fact.note}


def _relation(content: Mapping[str, Any]) -> Relation:
    return Relation(
        dataset=content["with"],
        what=content["what"],
        severity=content.get("severity", "unknown"),
        confidence=content["confidence"],
        source=tuple(content["source"]),
        note=content.get("note"),
    )


def _relation_content(relation: Relation) -> dict[str, Any]:
    content = {
        "with": relation.dataset,
        "what": relation.what,
        "severity": relation.severity,
        "confidence": relation.confidence,
        "source": list(relation.source),
    }
    return content if relation.note is None else {**content, "note": relation.note}


def _rule(content: Mapping[str, Any]) -> LayoutRule:
    # Lists of the file are tuples here, so that a description can be compared and hashed.
    known: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in content.items()
        if key in LayoutRule.__dataclass_fields__
    }
    return LayoutRule(**known)


def _rule_content(rule: LayoutRule) -> dict[str, Any]:
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in vars(rule).items()
        if value != LayoutRule.__dataclass_fields__[key].default
    }


def sources_of(cards: Sequence[DatasetCard]) -> set[str]:
    """Return the keys of all sources that descriptions name."""
    found: set[str] = set()
    for card in cards:
        facts = [*card.facts.values(), *(fact for name in _GROUPS for fact in getattr(card, name).values())]
        for item in (*facts, *card.contains, *card.overlaps, *card.layout):
            found |= set(item.source)
    return found
