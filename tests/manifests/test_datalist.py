"""What a datalist lists, what is wrong with one of its entries, and what is wrong with all of it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from monai_ext.base import ManifestError
from monai_ext.manifests import read_datalist


def datalist(folder: Path, content: Any) -> Path:
    path = folder / "list.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


GOOD = {"image": "ct/a.nii", "label": "seg/a.nii"}
BAD = {
    "outside": ({"image": "../x.nii"}, "x: its image lies outside the root folder; list it relative"),
    "absolute": ({"image": "/data/Doe/x.nii"}, "x: its image lies outside the root folder"),
    "label outside": ({"image": "x.nii", "label": "/etc/passwd"}, "x: its label lies outside the root folder"),
    "by a link": ({"image": "out/x.nii"}, "x: its image lies outside the root folder"),
    "misspelt": ({"img": "x.nii"}, "training[1]: the datalist gives no image (its keys: 'img')"),
    "misspelt, with an id": ({"img": "x.nii", "id": 7}, "7: the datalist gives no image"),
    "nothing": ({"image": None}, "training[1]: the datalist gives no image"),
    "several": ({"image": ["/data/Doe/x.nii"]}, "training[1]: the datalist gives its image as list; give the path"),
    "a number": (3, "training[1]: the datalist gives its image as int"),
    "no path": ({"image": "a\0b"}, "ab: the datalist gives its image with a zero byte; give the path"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("sections", [None, ["training"]])
def test_one_bad_entry_is_told_and_the_others_go_on(tmp_path, name, sections):
    (tmp_path / "root").mkdir()
    os.symlink(tmp_path, tmp_path / "root" / "out")
    entry, sentence = BAD[name]
    path = datalist(tmp_path / "root", {"training": [GOOD, entry, {"image": "b.nii"}]})
    first, bad, last = read_datalist(path, sections=sections)
    assert [first.case, last.case] == ["a", "b"]
    assert (first.image, first.problem) == (tmp_path / "root" / "ct" / "a.nii", None)
    assert (bad.image, bad.label) == (None, None)
    assert sentence in str(bad.problem)
    assert str(bad.problem).startswith(f"{bad.case}: ")
    assert "Doe" not in str(bad.problem)


def test_images_of_one_name_are_told_apart_whichever_sections_are_read(tmp_path):
    content = {"training": [{"image": "x/a.nii"}, {"image": "b.nii"}], "test": [{"image": "./y/A.nii"}, "x/a.nii"]}
    path = datalist(tmp_path, content)
    first, plain, second, again = [entry.case for entry in read_datalist(path)]
    assert plain == "b"
    assert first == again  # one scan, listed twice
    assert first != second
    assert (first[:2], second[:2]) == ("a-", "A-")
    assert [entry.case for entry in read_datalist(path, sections=["test"])] == [second, first]
    (tmp_path / "moved").mkdir()
    moved = datalist(tmp_path / "moved", content)
    assert [entry.case for entry in read_datalist(moved)] == [first, plain, second, again]


def test_lists_that_are_no_scans_are_passed_over(tmp_path):
    content = {"labels": {"0": "background"}, "authors": [{"name": "N."}], "numTest": 3, "test": ["a.nii"]}
    assert [entry.section for entry in read_datalist(datalist(tmp_path, content))] == ["test"]


def test_a_section_asked_for_is_taken_at_its_word(tmp_path):
    path = datalist(tmp_path, {"test": [{"img": "a.nii"}], "training": []})
    (entry,) = read_datalist(path, sections=["test"])
    assert "no image (its keys: 'img')" in str(entry.problem)
    assert read_datalist(path, sections=["training"]) == []


def test_byte_order_mark_of_an_editor_is_read(tmp_path):
    path = tmp_path / "list.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"training": [GOOD]}).encode())
    assert [entry.case for entry in read_datalist(path)] == ["a"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", r"not valid JSON \(.*\); repair it"),
        ('{"training": ["a.nii"], "training": ["b.nii"]}', r"'training' stands twice in one object, .*; join them"),
        ('{"training": ["a.nii"], "x": ' + "9" * 5000 + "}", "a number in it has too many digits to be read; correct"),
        ("[" * 100_000, r"its JSON is nested too deeply; export it again$"),
        ([GOOD], "a datalist is an object .* not a list"),
        ({"labels": {"background": 0}, "numTraining": 3}, "lists no scans; give it lists such as"),
    ],
)
def test_a_file_that_is_no_datalist_is_one_sentence(tmp_path, content, sentence):
    with pytest.raises(ManifestError, match=rf"^list\.json: {sentence}"):
        read_datalist(datalist(tmp_path, content))


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path):
    with pytest.raises(ManifestError, match=r"^none\.json: no such datalist; check the path"):
        read_datalist(tmp_path / "none.json")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(ManifestError, match=r"^folder\.json: the datalist cannot be read \(Is a directory\)"):
        read_datalist(tmp_path / "folder.json")
    with pytest.raises(ManifestError, match=r"^list\.json: no section 'test'; it has 'training'"):
        read_datalist(datalist(tmp_path, {"training": [GOOD], "about": {}}), sections=["test"])
