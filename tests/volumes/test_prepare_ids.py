"""Ids are file names, differ where scans differ, and stay from run to run."""

import re
from pathlib import Path
from typing import Any

import pytest

from monai_ext.volumes.prepare_ids import assign_ids, root_mark
from monai_ext.volumes.prepare_source import Source
from monai_ext.volumes.source_places import is_place, told_place

ROOT = Path("/data/ct")


def source(relative: str, case: str | None = None) -> Source:
    return Source(ROOT / relative, relative, case or Path(relative).name.split(".nii")[0])


def ids(sources: list[Source], known: Any = None, root: Path = ROOT) -> list[str]:
    return [volume_id for volume_id, _ in assign_ids(sources, root, known or {})]


def test_id_is_the_base_name():
    assert ids([source("x/a.nii.gz"), source("x/b.nii")]) == ["a", "b"]


def test_shared_names_are_told_apart_by_their_paths():
    first, second, third = ids([source("x/a.nii"), source("y/a.nii"), source("y/A.nii")])
    assert len({first, second, third}) == 3
    assert [name[:2] for name in (first, second, third)] == ["a-", "a-", "A-"]  # some file systems equate a and A
    assert len(first) == len("a-") + 8
    assert ids([source("y/A.nii"), source("y/a.nii"), source("x/a.nii")]) == [third, second, first]


def test_known_scans_keep_their_ids():
    known = dict(a=(root_mark(ROOT), "x/a.nii"), **{"old-name": (root_mark(ROOT), "z/b.nii")})
    first, second, third = ids([source("x/a.nii"), source("y/a.nii"), source("z/b.nii")], known)
    assert (first, third) == ("a", "old-name")
    assert second.startswith("a-")


def test_folders_of_patients_become_digits_and_scans_keep_their_ids():
    told = told_place("Doe^Jane/2024/a.nii")
    assert re.fullmatch(r"[0-9a-f]{8}/a\.nii", told)
    assert told_place("a.nii") == "a.nii"
    for stored in (told, "Doe^Jane/2024/a.nii"):  # as versions before had it
        assert is_place(stored, "Doe^Jane/2024/a.nii")
        assert not is_place(stored, "Doe^John/2024/a.nii")
        assert ids([source("Doe^Jane/2024/a.nii")], {"old": (root_mark(ROOT), stored)}) == ["old"]
        ((_, moved),) = assign_ids([source("Doe^Jane/2024/a.nii")], ROOT, {"old": ("01234567", stored)})
        assert moved == ("old",)


def test_ids_do_not_depend_on_where_the_folder_lies():
    shared = [source("x/a.nii"), source("y/a.nii")]
    assert ids(shared, root=Path("/moved/here")) == ids(shared)
    # but a scan of another root in the same store never shares an id with one of this root
    known = dict(**{name: (root_mark(ROOT), item.relative) for name, item in zip(ids(shared), shared, strict=True)})
    assert not set(ids(shared, known, root=Path("/other"))) & set(ids(shared))


def test_scan_of_another_root_never_takes_an_id():
    known = {"a": (root_mark(Path("/other")), "x/a.nii")}
    ((volume_id, moved),) = assign_ids([source("x/a.nii")], ROOT, known)
    assert volume_id.startswith("a-")
    assert moved == ("a",)  # the same scan if its checksum is the same


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("../up", "_up"),
        ("a/b c", "a_b_c"),
        (".hidden", "hidden"),
        ("-rf", "rf"),
        ("x.label", "x_label"),
        ("x.JSON", "x_JSON"),
        ("größe", "größe"),
        ("..", "scan"),
        ("n" * 300, "n" * 120),
    ],
)
def test_any_case_becomes_a_file_name(case, name):
    assert ids([source("a.nii", case)]) == [name]


def test_root_mark_does_not_show_the_path():
    mark = root_mark(Path("/data/Doe^Jane"))
    assert len(mark) == 8
    assert int(mark, 16) != int(root_mark(Path("/data/Roe^Richard")), 16)
