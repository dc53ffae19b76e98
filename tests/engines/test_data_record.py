"""Data are known by what they hold, whatever their folders, times and sizes."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monai_ext.base import StoreError
from monai_ext.engines import filed_data, stored_data


@pytest.fixture
def items() -> list[dict[str, str]]:
    return [{"image": "a"}, {"image": "b"}]


@pytest.fixture
def store(tmp_path: Path, add_volume: Callable[..., None]) -> Path:
    for number, name in enumerate("ab"):
        add_volume(tmp_path / "store", name, seed=number)
    return tmp_path / "store"


def test_a_volume_prepared_anew_is_another_and_a_copy_is_the_same(
    store: Path, items: list[dict[str, str]], add_volume: Callable[..., None]
) -> None:
    before = stored_data(str(store), items)
    assert [name for name, _ in before] == ["a", "b"]
    assert before[0][1] != before[1][1]
    shutil.copytree(store, store.parent / "copy", copy_function=shutil.copyfile)  # with times of its own
    assert stored_data(str(store.parent / "copy"), items) == before
    for path in store.glob("b*"):
        path.unlink()
    add_volume(store, "b", seed=7)
    after = stored_data(str(store), items)
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_a_volume_that_is_gone_is_named(store: Path, items: list[dict[str, str]]) -> None:
    with pytest.raises(StoreError, match=r"^c: "):
        stored_data(str(store), [*items, {"image": "c"}])


def written(folder: Path) -> list[dict[str, Any]]:
    (folder / "series").mkdir(parents=True)
    for number in (1, 2, 3):
        (folder / "series" / f"slice_{number}.dcm").write_bytes(bytes([number]))
    (folder / "ct.nii").write_bytes(b"image")
    (folder / "label.nii").write_bytes(b"label")
    return [
        {"case": "series", "image": str(folder / "series"), "label": ""},
        {"case": "ct", "image": str(folder / "ct.nii"), "label": str(folder / "label.nii")},
    ]


def test_files_and_folders_of_slices_are_known_by_their_bytes(tmp_path: Path) -> None:
    keys = ["image", "label"]
    items = written(tmp_path / "one")
    before = filed_data(items, keys)
    assert filed_data(written(tmp_path / "two"), keys) == before
    (tmp_path / "one" / "series" / "slice_2.dcm").write_bytes(b"\7")
    (tmp_path / "one" / "label.nii").write_bytes(b"lobel")
    after = filed_data(items, keys)
    assert [one != other for one, other in zip(before, after, strict=True)] == [True, True]
    assert filed_data(items, ["image"])[1] == filed_data(written(tmp_path / "three"), ["image"])[1]


def test_an_image_and_a_label_that_changed_places_are_told(tmp_path: Path) -> None:
    (item,) = written(tmp_path)[1:]
    swapped = {**item, "image": item["label"], "label": item["image"]}
    assert filed_data([item], ["image", "label"]) != filed_data([swapped], ["image", "label"])


def test_sizes_alone_are_read_where_files_must_not_be(tmp_path: Path) -> None:
    items = written(tmp_path)
    before = filed_data(items, ["image"], read=False)
    (tmp_path / "ct.nii").write_bytes(b"imago")
    assert filed_data(items, ["image"], read=False) == before
    (tmp_path / "ct.nii").write_bytes(b"larger")
    assert filed_data(items, ["image"], read=False) != before
