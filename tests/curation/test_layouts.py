"""Patterns are plain text with placeholders; the layout that explains most of a folder is that of its data set."""

from typing import Any

import pytest

from monai_ext.base import ManifestError
from monai_ext.curation.layout_patterns import PathPattern, filled
from monai_ext.curation.layouts import assign, recognise
from monai_ext.manifests import DatasetCard, Fact, LayoutRule


@pytest.mark.parametrize(
    ("pattern", "path", "values"),
    [
        ("imagesTr/w_{number}.nii", "imagesTr/w_007.nii", {"number": "007"}),
        ("imagesTr/w_{number}.nii", "deep/down/imagesTr/w_7.nii", {"number": "7"}),
        ("imagesTr/w_{number}.nii", "imagesTr/w_7a.nii", None),
        ("imagesTr/w_{number}.nii", "xmagesTr/imagesTr/w_7.nii.gz", None),
        ("imagesTr/w_{number}.nii", "myimagesTr/w_7.nii", None),
        ("{id}/{id}_ct.nii", "p1/p1_ct.nii", {"id": "p1"}),
        ("{id}/{id}_ct.nii", "p1/p2_ct.nii", None),
        ("{group}_{number}.png", "a_b_12.png", {"group": "a_b", "number": "12"}),
        ("LIDC/{group}/*/*/", "LIDC/p1/study/series/", {"group": "p1"}),
        ("LIDC/{group}/*/*/", "LIDC/p1/study/series/1.dcm", None),
        ("a.b(c)+/{id}.nii", "a.b(c)+/x.nii", {"id": "x"}),
        ("a.b(c)+/{id}.nii", "aXb(c)+/x.nii", None),
    ],
)
def test_a_pattern_fits_what_it_says(pattern: str, path: str, values: dict[str, str] | None) -> None:
    match = PathPattern(pattern).match(path)
    assert (match and dict(match.values)) == values


def test_classes_may_be_listed() -> None:
    pattern = PathPattern("{class}/good/{id}.png", ["nut", "metal_nut"])
    assert pattern.match("metal_nut/good/1.png").values == {"class": "metal_nut", "id": "1"}  # type: ignore[union-attr]
    assert pattern.match("pill/good/1.png") is None


@pytest.mark.parametrize("wrong", ["a{b", "{Id}.nii", "{0}.nii", "{id}" * 13])
def test_a_pattern_with_stray_braces_is_refused(wrong: str) -> None:
    with pytest.raises(ManifestError, match="braces hold a word of small letters"):
        PathPattern(wrong)


def test_a_template_needs_what_the_pattern_has() -> None:
    assert filled("p{number}", {"number": "3"}) == "p3"
    with pytest.raises(ManifestError, match=r"the pattern of the image has no \{group\}"):
        filled("{group}", {"number": "3"})


def card(name: str, *rules: LayoutRule, **facts: Any) -> DatasetCard:
    return DatasetCard(name, {key: Fact(value) for key, value in facts.items()}, layout=rules)


PAIRS = LayoutRule("imagesTr/a_{number}.nii", "training", "labelsTr/a_{number}.nii")


def test_labels_are_joined_to_the_image_of_the_same_folder() -> None:
    paths = ["one/imagesTr/a_1.nii", "one/labelsTr/a_1.nii", "two/imagesTr/a_1.nii", "two/labelsTr/a_2.nii"]
    found = assign(card("a", PAIRS), paths)
    assert [(image.path, image.label) for image in found.images] == [(paths[0], paths[1]), (paths[2], None)]
    assert found.lone_labels == [paths[3]]


def test_a_label_elsewhere_is_taken_if_it_is_the_only_one() -> None:
    rule = LayoutRule("P_{number}/{series}/", "test", "label{number}.nii")
    paths = ["ct/P_1/a/", "ct/P_2/b/", "labels/label1.nii", "one/label2.nii", "two/label2.nii"]
    found = assign(card("a", rule), paths)
    assert [image.label for image in found.images] == ["labels/label1.nii", None]
    assert found.lone_labels == ["one/label2.nii", "two/label2.nii"]


def test_what_is_left_out_takes_its_label_along() -> None:
    skip = LayoutRule(PAIRS.image, "training", PAIRS.label, numbers=(5, 6), leave_out="MR")
    paths = ["imagesTr/a_5.nii", "imagesTr/a_7.nii", "labelsTr/a_5.nii", "labelsTr/a_7.nii", "x.nii"]
    found = assign(card("a", skip, PAIRS), paths)
    assert [image.path for image in found.images] == ["imagesTr/a_7.nii"]
    assert found.left_out == {"MR": ["imagesTr/a_5.nii"]}
    assert found.explained == set(paths[:4])
    assert (found.lone_labels, found.unknown) == ([], ["x.nii"])


def test_the_layout_that_explains_most_is_taken() -> None:
    lits = card("lits", LayoutRule("volume-{number}.nii.gz", "training", "segmentation-{number}.nii.gz"))
    ct_org = card("ct_org", LayoutRule("volume-{number}.nii.gz", "test", "labels-{number}.nii.gz"))
    paths = [f"{word}-{n}.nii.gz" for word in ("labels", "volume") for n in range(9)]
    found = recognise([lits, ct_org], paths)
    assert found is not None
    assert found.card.id == "ct_org"
    assert recognise([lits], [*paths, *(f"other_{n}.nii" for n in range(20))]) is None


def test_equal_layouts_are_told_apart_by_the_folder_s_name_or_not_at_all() -> None:
    rule = LayoutRule("images/{id}.png", "test", "masks/{id}.png")
    cards = [card("clinic", rule, folder="CVC-ClinicDB"), card("colon", rule, folder="CVC-ColonDB")]
    paths = ["images/1.png", "masks/1.png"]
    with pytest.raises(ManifestError, match="any of 2 data sets: clinic, colon; name the one that it is"):
        recognise(cards, paths)
    for found in (
        recognise(cards, paths, "polyps/CVC-ColonDB/"),
        recognise(cards, [f"cvc-colondb/{path}" for path in paths]),
    ):
        assert found is not None
        assert found.card.id == "colon"


def test_a_folder_of_two_data_sets_is_refused() -> None:
    other = card("b", LayoutRule("imagesTr/b_{number}.nii", "training"))
    paths = [f"{name}/imagesTr/{name}_{n}.nii" for name, count in (("a", 9), ("b", 4)) for n in range(count)]
    with pytest.raises(ManifestError, match="several data sets, perhaps a, b; give the folder of each alone"):
        recognise([card("a", PAIRS), other], paths)


def test_a_pattern_may_start_with_the_folder_itself() -> None:
    rule = LayoutRule("ct_train/{id}_image.nii.gz", "training")
    found = recognise([card("mmwhs", rule)], ["x_image.nii.gz"], "data/ct_train/")
    assert found is not None
    assert found.images[0].values == {"id": "x"}
