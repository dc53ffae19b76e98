"""What counts as a scan, what is left out, and what is refused."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from monai_ext.base import ManifestError, ScanError
from monai_ext.volumes.prepare_sources import find_sources

SLICE = b"\x00" * 128 + b"DICM" + b"\x00" * 20


def touch(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def found(source: Path, **options: object) -> list[str]:
    return [item.relative for item in find_sources(source, **options).sources]


def test_folder_is_searched_with_all_folders_below(tmp_path):
    for name in ("b.nii.gz", "a.NII", "x/c.nrrd", "x/y/d.mha", "x/y/e.mhd", "x/y/e.raw", "readme.txt", "t.json"):
        touch(tmp_path / name)
    for name in (".hidden.nii", ".hidden/f.nii", "._b.nii.gz"):
        touch(tmp_path / name)
    touch(tmp_path / "series" / "IM0001", SLICE)  # no ending: told by its content
    touch(tmp_path / "series2" / "1.dcm", b"")  # told by its name: reading will say what is wrong with it
    touch(tmp_path / "notes" / "plain")
    touch(tmp_path / "DICOMDIR", SLICE)
    expected = ["a.NII", "b.nii.gz", "series", "series2", "x/c.nrrd", "x/y/d.mha", "x/y/e.mhd"]
    assert found(tmp_path) == expected


def test_case_is_the_base_name(tmp_path):
    touch(tmp_path / "Doe^Jane" / "ct.1.nii.gz")
    touch(tmp_path / "series.7" / "IM1", SLICE)
    assert {item.case for item in find_sources(tmp_path).sources} == {"ct.1", "series.7"}


def test_one_scan(tmp_path):
    assert found(touch(tmp_path / "a.nii")) == ["a.nii"]
    touch(tmp_path / "series" / "IM1", SLICE)
    assert found(tmp_path / "series") == ["series"]  # called as it is when the folder above is prepared
    assert found(tmp_path / "series", root=tmp_path.parent) == [f"{tmp_path.name}/series"]


def test_store_inside_the_source_is_passed_over(tmp_path):
    touch(tmp_path / "a.nii")
    touch(tmp_path / "store" / "b.nii")
    assert found(tmp_path, store=tmp_path / "store") == ["a.nii"]


@pytest.mark.parametrize(
    "name", ["a_seg.nii.gz", "a-label.nrrd", "a_mask.mha", "label.nii", "labelsTr/a.nii.gz", "a segmentation.nii"]
)
def test_labels_of_a_plain_folder_are_left_out(tmp_path, name):
    touch(tmp_path / name)
    touch(tmp_path / "unlabelled_a.nii")
    result = find_sources(tmp_path)
    assert result.left_out == [name]
    assert [item.relative for item in result.sources] == ["unlabelled_a.nii"]


def test_links_out_of_the_root_are_refused_and_others_go_on(tmp_path):
    root = tmp_path / "root"
    touch(tmp_path / "out" / "secret.nii")
    touch(tmp_path / "out" / "IM1", SLICE)
    touch(root / "a.nii")
    touch(root / "series" / "IM1", SLICE)
    os.symlink(tmp_path / "out" / "secret.nii", root / "b.nii")
    os.symlink(tmp_path / "out" / "IM1", root / "series" / "IM2")
    os.symlink(tmp_path / "out", root / "folder")
    os.symlink("a.nii", root / "c.nii")
    items = {item.relative: item.problem for item in find_sources(root).sources}
    assert set(items) == {"a.nii", "b.nii", "c.nii", "series", "folder"}
    assert items["a.nii"] is None
    assert items["c.nii"] is None  # a link that stays inside is a file like any other
    for name in ("b", "series", "folder"):
        problem = items["b.nii" if name == "b" else name]
        assert str(problem).startswith(f"{name}: a link leads out of the root folder; put the scan itself")
        assert str(tmp_path) not in str(problem)
    wider = find_sources(root, root=tmp_path).sources  # holds the targets; linked folders are not followed
    assert [item.relative for item in wider] == ["root/a.nii", "root/b.nii", "root/c.nii", "root/series"]
    assert not any(item.problem for item in wider)


def test_folder_that_cannot_be_listed_is_said(tmp_path, monkeypatch):
    touch(tmp_path / "a.nii")
    touch(tmp_path / "closed" / "b.nii")

    def refusing(list_folder: Callable[[str], object]) -> Callable[[str], object]:
        def refuse(path: str) -> object:  # root, as which tests may run, is let in everywhere
            if str(path).endswith("closed"):
                raise PermissionError(13, "Permission denied", str(path))
            return list_folder(path)

        return refuse

    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))
    items = {item.relative: str(item.problem) for item in find_sources(tmp_path).sources}
    assert items["a.nii"] == "None"
    assert items["closed"].startswith("closed: the folder cannot be listed (Permission denied); make it readable")
    with pytest.raises(
        ScanError, match=r"^closed: the folder cannot be listed \(Permission denied\); make it readable"
    ):
        find_sources(tmp_path / "closed")


def test_datalist(tmp_path):
    touch(tmp_path / "ct" / "a.nii")
    content = {
        "labels": {"0": "background", "1": "liver"},
        "training": [{"image": "ct/a.nii", "label": "seg/a.nii", "id": "case 1"}, {"image": "ct/b.nii"}],
        "test": ["ct/c.nii", {"image": "ct/b.nii"}],
    }
    path = touch(tmp_path / "list.json", json.dumps(content).encode())
    result = find_sources(path)
    assert [item.relative for item in result.sources] == ["ct/a.nii", "ct/b.nii", "ct/c.nii"]  # b once
    first = result.sources[0]
    assert (first.case, first.label, first.label_relative) == ("case 1", tmp_path / "seg/a.nii", "seg/a.nii")
    assert result.label_names == {0: "background", 1: "liver"}
    assert found(path, sections=["test"]) == ["ct/c.nii", "ct/b.nii"]


def test_nnunet_label_names(tmp_path):
    path = touch(
        tmp_path / "dataset.json", b'{"labels": {"background": 0, "liver": 1}, "training": [{"image": "a.nii"}]}'
    )
    assert find_sources(path).label_names == {0: "background", 1: "liver"}


def test_two_labels_for_one_scan_are_refused_and_others_go_on(tmp_path):
    content = {"training": [{"image": "a.nii", "label": label} for label in ("x.nii", "y.nii")] + ["b.nii"]}
    path = touch(tmp_path / "list.json", json.dumps(content).encode())
    first, second = find_sources(path).sources
    assert str(first.problem).startswith("a: it is listed twice with different labels; list each scan with one")
    assert (second.case, second.problem) == ("b", None)


def test_entries_that_must_not_be_read_name_no_file(tmp_path):
    content = {"training": [{"image": "../secret.nii"}, {"image": "a.nii"}, {"image": "/etc/b.nii"}, {"img": "c.nii"}]}
    path = touch(tmp_path / "list.json", json.dumps(content).encode())
    sources = find_sources(path).sources
    assert [item.case for item in sources] == ["secret", "a", "b", "training[3]"]
    assert [item.problem is None for item in sources] == [False, True, False, False]
    outside = "manifest.outside_root"
    assert [item.problem_code for item in sources] == [outside, "", outside, "manifest.path"]
    for item in sources:
        assert item.image.is_relative_to(tmp_path)  # not the path that was listed
        assert not item.image.exists()


def test_links_in_a_circle_and_pipes_are_no_trouble(tmp_path):
    os.symlink("b.nii", tmp_path / "a.nii")
    os.symlink("a.nii", tmp_path / "b.nii")
    os.mkfifo(tmp_path / "IM1")  # to look into it for a DICOM mark would wait for ever
    touch(tmp_path / "c.nii")
    assert found(tmp_path) == ["a.nii", "b.nii", "c.nii"]


def test_source_that_is_none(tmp_path):
    with pytest.raises(ScanError, match=r"^none: there is no such file or folder"):
        find_sources(tmp_path / "none")
    with pytest.raises(ScanError, match=r"^a\.txt: not a scan or datalist; give a folder"):
        find_sources(touch(tmp_path / "a.txt"))
    with pytest.raises(ManifestError, match=r"^a\.nii: it lies outside the root folder root"):
        find_sources(touch(tmp_path / "a.nii"), root=tmp_path / "root")
    with pytest.raises(ManifestError, match=r"sections are parts of a datalist"):
        find_sources(tmp_path, sections=["training"])
