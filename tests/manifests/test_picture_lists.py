"""Lists of pictures: the published JSON lines, MONAI datalists, and what is wrong with them, one sentence each."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from monai_ext.base import ManifestError
from monai_ext.manifests import read_picture_list, write_picture_list

NORMAL = {"image_path": "candle/good/000.JPG", "label": 0.0, "class_name": "candle"}
ABNORMAL = {"image_path": "pcb3/bad/7.JPG", "mask_path": "pcb3/mask/7.png", "label": 1, "class_name": "pcb3"}


def lines(folder: Path, rows: Sequence[Any], name: str = "full-shot.jsonl") -> Path:
    path = folder / name
    content = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)  # no final newline
    path.write_text(content, encoding="utf-8")
    return path


def test_the_published_form(tmp_path: Path) -> None:
    normal, abnormal = read_picture_list(lines(tmp_path, [NORMAL, "", ABNORMAL]), dataset="VisA")
    assert (normal.image, normal.mask) == (tmp_path / "candle/good/000.JPG", None)
    assert (normal.label, normal.class_name, normal.dataset, normal.case) == (0, "candle", "VisA", "candle/000")
    assert (abnormal.mask, abnormal.label, abnormal.group) == (tmp_path / "pcb3/mask/7.png", 1, None)


def test_a_root_of_its_own_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text(json.dumps(NORMAL), encoding="utf-8-sig")
    (entry,) = read_picture_list(path, tmp_path / "elsewhere")
    assert entry.image == tmp_path / "elsewhere" / "candle/good/000.JPG"


def test_monai_datalists(tmp_path: Path) -> None:
    items = [
        {"image": "a.png", "class_name": "Liver", "patient": 7},
        {"image": "b.png", "mask": "b_mask.png", "class_name": "Liver"},
        {"image": "c.png", "label": "c_mask.png", "class_name": "Liver"},
        {"image": "d.png", "mask": "d_mask.png", "label": 0, "class_name": "Liver"},
    ]
    path = lines(tmp_path, [json.dumps({"training": items, "test": items[:1]})], "dataset.json")
    entries = read_picture_list(path)
    assert [entry.label for entry in entries] == [0, 1, 1, 0]
    assert [entry.mask and entry.mask.name for entry in entries] == [None, "b_mask.png", "c_mask.png", "d_mask.png"]
    assert entries[0].group == "7"
    assert len(read_picture_list(path, section="test")) == 1
    with pytest.raises(ManifestError, match=r"no section 'validation'; it has 'training', 'test'"):
        read_picture_list(path, section="validation")


def test_pictures_of_one_name_are_told_apart_by_their_line(tmp_path: Path) -> None:
    """As published sets have them: the same number among the normal and the abnormal."""
    rows = [NORMAL, {**NORMAL, "image_path": "candle/bad/000.JPG", "label": 1}, ABNORMAL]
    cases = [entry.case for entry in read_picture_list(lines(tmp_path, rows))]
    assert cases == ["candle/000 (line 1)", "candle/000 (line 2)", "pcb3/7"]


def test_a_picture_listed_twice_would_count_twice(tmp_path: Path) -> None:
    rows = [NORMAL, ABNORMAL, {**NORMAL, "image_path": "./candle/good/000.JPG"}]
    with pytest.raises(ManifestError, match=r"^full-shot.jsonl, line 3: candle/000 is listed in line 1 already"):
        read_picture_list(lines(tmp_path, rows))
    rows[2] = {**NORMAL, "class_name": "wax"}  # as another class it is another question
    assert len(read_picture_list(lines(tmp_path, rows))) == 3


def test_letters_that_end_a_line_elsewhere_are_part_of_a_name(tmp_path: Path) -> None:
    row = {**NORMAL, "image_path": "a\u2028b\x85c.png"}
    (entry,) = read_picture_list(lines(tmp_path, [json.dumps(row, ensure_ascii=False)]))
    assert entry.image.name == "a\u2028b\x85c.png"


def test_names_that_no_table_could_hold_are_refused(tmp_path: Path) -> None:
    rows = [NORMAL, json.dumps(NORMAL).replace("000", "gr\\udcfcn")]
    with pytest.raises(ManifestError, match=r"^full-shot.jsonl, line 2: a path or class holds bytes that are no UTF-8"):
        read_picture_list(lines(tmp_path, rows))


def test_classes_are_chosen_by_name(tmp_path: Path) -> None:
    path = lines(tmp_path, [NORMAL, ABNORMAL])
    assert [entry.class_name for entry in read_picture_list(path, classes=["pcb3"])] == ["pcb3"]
    with pytest.raises(ManifestError, match=r"full-shot.jsonl: no picture of class 'pcb9'; it has candle, pcb3"):
        read_picture_list(path, classes=["pcb3", "pcb9"])


@pytest.mark.parametrize("key", ["image_path", "mask_path"])
@pytest.mark.parametrize("path", ["../outside.png", "/etc/passwd", "link/x.png"])
def test_paths_do_not_leave_the_root(tmp_path: Path, key: str, path: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(ManifestError, match="points outside its root folder"):
        read_picture_list(lines(tmp_path, [{**ABNORMAL, key: path}]), root)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("{", r"list.jsonl, line 2: not valid JSON"),
        ("[1]", r"list.jsonl, line 2: not an object in braces but list"),
        ({**NORMAL, "label": 2}, r"list.jsonl, line 2: label is 2; give 0 for a normal picture, 1"),
        ({**NORMAL, "label": True}, r"line 2: label is True"),
        ({**NORMAL, "label": None}, r"line 2: label is None"),
        ({**NORMAL, "image_path": ""}, r"line 2: image_path is ''; give it as text"),
        ({**NORMAL, "class_name": 3}, r"line 2: class_name is 3"),
        ({**NORMAL, "mask_path": ["a"]}, r"line 2: mask_path is \['a'\]"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, row: Any, sentence: str) -> None:
    with pytest.raises(ManifestError, match=sentence):
        read_picture_list(lines(tmp_path, [NORMAL, row], "list.jsonl"))


def test_missing_and_empty_lists(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"none.jsonl: no such list of pictures"):
        read_picture_list(tmp_path / "none.jsonl")
    with pytest.raises(ManifestError, match=r"empty.jsonl: lists no picture"):
        read_picture_list(lines(tmp_path, [""], "empty.jsonl"))


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    entries = read_picture_list(lines(tmp_path, [NORMAL, {**ABNORMAL, "group": "p1"}]), dataset="VisA")
    write_picture_list(tmp_path / "again.jsonl", entries, tmp_path)
    assert read_picture_list(tmp_path / "again.jsonl", dataset="VisA") == entries
    assert "mask_path" not in json.loads((tmp_path / "again.jsonl").read_text().splitlines()[0])
    with pytest.raises(ManifestError, match="candle/000: lies outside the root"):
        write_picture_list(tmp_path / "again.jsonl", entries, tmp_path / "other")
