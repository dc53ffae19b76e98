"""Label sets as configurations give them."""

import pytest

from monai_ext.base import SettingError
from monai_ext.engines import class_names, ids_by_class

NAMES = {0: "background", 1: "liver", 2: "kidneys", 3: "aorta"}


def test_ids_in_the_files_by_class() -> None:
    given = {"aorta": 52, "liver": 5, "kidneys": [3, 2]}
    assert ids_by_class(NAMES, given) == {1: [5], 2: [3, 2], 3: [52]}
    assert ids_by_class(NAMES, None) is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"liver": 5, "kidneys": [2, 3]}, "given for liver, kidneys, but the labels are liver, kidneys, aorta"),
        ({"liver": 5, "kidneys": [2, 3], "aorta": 52, "spleen": 1}, "given for liver, kidneys, aorta, spleen, but"),
        ({"liver": 5, "kidneys": [2, 3], "aorta": 52, "background": 0}, "background, but the labels are"),
        ({}, "given for nothing, but"),
        ([5, 2, 52], r"given for \[5, 2, 52\], but"),
        ({"liver": 5, "kidneys": [], "aorta": 52}, r"kidneys is \[\]; give one id of the label files or a list"),
        ({"liver": 5, "kidneys": [2, 5], "aorta": 52}, "liver is 5; .* each for one class"),
        ({"liver": 5, "kidneys": [2, 2], "aorta": 52}, r"kidneys is \[2, 2\]"),
        ({"liver": 0, "kidneys": 2, "aorta": 52}, "liver is 0; .* whole numbers from 1 on"),
        ({"liver": 5.5, "kidneys": 2, "aorta": 52}, "liver is 5.5"),
        ({"liver": True, "kidneys": 2, "aorta": 52}, "liver is True"),
        ({"liver": "5", "kidneys": 2, "aorta": 52}, "liver is '5'"),
        ({"liver": 2**24, "kidneys": 2, "aorta": 52}, "liver is 16777216"),
    ],
)
def test_impossible_ids_are_named(given: object, words: str) -> None:
    with pytest.raises(SettingError, match=f"^label_ids: .*{words}"):
        ids_by_class(NAMES, given)


def test_classes_of_one_name_cannot_be_told_apart() -> None:
    with pytest.raises(SettingError, match="but the labels are vessel, vessel"):
        ids_by_class({0: "background", 1: "vessel", 2: "vessel"}, {"vessel": 52})


def test_labels_with_gaps_lead_to_label_ids() -> None:
    with pytest.raises(SettingError, match=r"without a gap; if the label files use others, say so in label_ids"):
        class_names({"0": "background", "5": "liver"})
