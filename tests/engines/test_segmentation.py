"""Label sets as configurations give them, and lists of scans with what is wrong with some of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from monai_ext.base import ManifestError, SettingError
from monai_ext.engines import class_names, ids_by_class, labelled_items, scan_items

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


@pytest.mark.parametrize("given", [["background", "liver"], "liver", {"0": "background", "one": "liver"}, None])
def test_labels_that_are_no_numbered_names_are_refused(given: Any) -> None:
    with pytest.raises(SettingError, match=r"^labels: the ids .* must be 0 \(background\), 1, 2"):
        class_names(given)


def datalist(folder: Path, **sections: list[Any]) -> str:
    path = folder / "dataset.json"
    path.write_text(json.dumps({"labels": {"0": "background"}, **sections}))
    return str(path)


GOOD = {"image": "a.nii", "label": "a_seg.nii"}


def test_entries_that_cannot_be_used_stand_beside_the_others(tmp_path: Path) -> None:
    bad = [{"image": "../b.nii", "label": "a_seg.nii"}, {"image": "c.nii"}, {"imag": "d.nii"}]
    items = labelled_items(datalist(tmp_path, test=[GOOD, *bad]), None, "test")
    assert items[0] == {"case": "a", "image": str(tmp_path / "a.nii"), "label": str(tmp_path / "a_seg.nii")}
    assert [set(item) for item in items[1:]] == [{"case", "problem"}] * 3
    assert items[1]["problem"].startswith("b: its image lies outside the root folder")
    assert items[2]["problem"] == "c: section 'test' lists it without a label; add one, or leave the scan out"
    assert items[3]["problem"].startswith("test[3]: the datalist gives no image")


def test_cases_of_one_name_keep_apart(tmp_path: Path) -> None:
    entries = [{"image": f"{folder}/a.nii", "label": f"{folder}/seg.nii"} for folder in "xy"]
    one, two = (item["case"] for item in labelled_items(datalist(tmp_path, test=entries), None, "test"))
    assert one != two


def test_the_first_section_that_is_there_is_taken(tmp_path: Path) -> None:
    path = datalist(tmp_path, validation=[GOOD], training=[GOOD, {**GOOD, "image": "b.nii"}])
    assert len(labelled_items(path, None, ["test", "validation"])) == 1
    with pytest.raises(ManifestError, match=r"no section 'test'; it has 'validation', 'training'"):
        labelled_items(path, None, "test")
    # A test section whose entries are all misspelt is no reason to score another one.
    path = datalist(tmp_path, test=[{"imag": "a.nii"}], validation=[GOOD])
    (item,) = labelled_items(path, None, ["test", "validation"])
    assert "gives no image" in item["problem"]
    with pytest.raises(SettingError, match="section 'test' is empty"):
        labelled_items(datalist(tmp_path, test=[]), None, ["test"])


def test_scans_of_a_datalist_with_a_bad_entry(tmp_path: Path) -> None:
    items = scan_items(datalist(tmp_path, test=["a.nii", "/etc/passwd"]))
    assert items[0] == {"case": "a", "image": str(tmp_path / "a.nii")}
    assert set(items[1]) == {"case", "problem"}
