"""Every shipped layout recognises a folder that looks as it says, among all the others."""

import re

import pytest

from monai_ext.base import ManifestError
from monai_ext.curation.build_cards import shipped_descriptions
from monai_ext.curation.layout_patterns import PathPattern
from monai_ext.curation.layouts import assign, recognise
from monai_ext.manifests import DatasetCard, LayoutRule

CARDS = {key: card for key, (card, _) in shipped_descriptions().items()}
# Data sets whose files are called alike; the name of their folder, or --dataset, has to tell them apart.
ALIKE = (
    {"cvc_clinicdb", "cvc_colondb", "cvc_300", "kvasir_seg"},
    {"bmad_brain", "bmad_liver", "bmad_retina"},
    {"kits19", "kits23"},
)


def filled(pattern: str, rule: LayoutRule, turn: int) -> str:
    low, high = rule.numbers or (3, 10_000)
    classes = rule.classes or ("c",)
    values = {"number": f"{min(low + turn, high):04d}", "class": classes[turn % len(classes)]}

    def value(found: re.Match[str]) -> str:
        return values.get(found[1], f"{found[1]}x{turn}") if found[1] else f"any{turn}"

    return re.sub(r"\{([a-z]+)\}|\*", value, pattern)


def download(card: DatasetCard) -> list[str]:
    """Paths as the layout's plain rules describe them, without those that start with a folder of corpora."""
    rules = [rule for rule in card.layout if not rule.image.startswith("Dataset")]
    patterns = [(rule, text) for rule in rules for text in (rule.image, rule.label) if text]
    return sorted({filled(text, rule, turn) for rule, text in patterns for turn in range(5)})


def test_every_described_data_set_has_a_layout() -> None:
    assert len(CARDS) >= 44
    assert [key for key, card in CARDS.items() if not card.layout] == []


@pytest.mark.parametrize("key", sorted(CARDS))
def test_a_download_is_recognised(key: str) -> None:
    card = CARDS[key]
    paths = download(card)
    assert assign(card, paths).unknown == []
    folder = str(card.value("folder", key)).rpartition("/")[2]
    found = recognise(CARDS.values(), paths, f"downloads/{folder}/")
    assert found is not None
    assert found.card.id == key
    assert found.images
    try:
        alone = recognise(CARDS.values(), paths, "downloads/unpacked/")
    except ManifestError as error:
        named = set(re.findall(r"\w+", str(error))) & CARDS.keys()
        assert key in named
        assert any(named <= alike for alike in ALIKE)
    else:
        assert alone is not None
        assert alone.card.id == key


@pytest.mark.parametrize("key", sorted(CARDS))
def test_patterns_of_shipped_layouts_are_sound(key: str) -> None:
    for rule in CARDS[key].layout:
        image = PathPattern(rule.image, rule.classes)
        label = PathPattern(rule.label or "")
        templates = " ".join(filter(None, (rule.id, rule.group, rule.class_name)))
        assert set(re.findall(r"\{([a-z]+)\}", templates)) <= image.names
        assert not rule.numbers or "number" in image.names
        assert not rule.label or image.names & label.names
        assert rule.confidence != "unknown"


def test_mr_of_amos_is_left_out_with_its_labels() -> None:
    numbers = (4, 410, 507, 600)
    paths = [f"{folder}/amos_{number:04d}.nii.gz" for folder in ("imagesTr", "labelsTr") for number in numbers]
    found = assign(CARDS["amos22"], paths)
    assert [image.path for image in found.images] == paths[:2]
    assert found.left_out == {"MR, not CT": paths[2:4]}
    assert found.lone_labels == []
