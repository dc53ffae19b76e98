"""Parts of a store: whole patients on one side, test scans on none, weights by data set."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from monai_ext.base import SettingError, StoreError
from monai_ext.engines import store_items, store_weights
from monai_ext.volumes import Origin


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, add_volume: Callable[..., None]) -> str:
    """Two data sets that number their patients alike, and scans that were prepared without a manifest."""
    folder: Path = tmp_path_factory.mktemp("parts") / "store"
    for number in range(24):
        origin = Origin("big", "CC0-1.0", f"p{number // 2}", "test" if number == 0 else "training", 1 + number % 2)
        add_volume(folder, f"big_{number:02}", number, origin=origin)
    for number in range(6):
        origin = Origin("small", "CC-BY-4.0", f"p{number}", "validation" if number == 5 else "unassigned")
        add_volume(folder, f"small_{number}", number, origin=origin)
    for number in range(4):
        add_volume(folder, f"own_{number}", number)
    return str(folder)


def names(store: str, part: str, held_out: float, seed: int = 0) -> set[str]:
    return {item["image"] for item in store_items(store, part, held_out, seed)}


@pytest.mark.parametrize("held_out", [0, 0.2, 0.7])
@pytest.mark.parametrize("seed", range(5))
def test_a_patient_stands_on_one_side(store: str, held_out: float, seed: int) -> None:
    train, validation = (names(store, part, held_out, seed) for part in ("train", "validation"))
    assert not train & validation
    # The second scan of a patient who has one in the test list is in no part either.
    assert len(train | validation) == 34 - 2
    assert not {"big_00", "big_01"} & (train | validation)
    assert "small_5" in validation
    assert "small_0" in train | validation  # another data set's p0
    for number in range(1, 12):
        pair = {f"big_{2 * number:02}", f"big_{2 * number + 1:02}"}
        assert pair <= train or pair <= validation
    assert held_out or validation == {"small_5"}


def test_parts_depend_on_the_seed_and_not_on_what_else_there_is(store, tmp_path):
    assert names(store, "validation", 0.5, 0) != names(store, "validation", 0.5, 1)
    fewer = tmp_path / "fewer"
    shutil.copytree(store, fewer, ignore=shutil.ignore_patterns("big*"))
    for seed in range(9):
        held_out = {name for name in names(store, "validation", 0.5, seed) if not name.startswith("big")}
        assert held_out == names(str(fewer), "validation", 0.5, seed)


def test_one_patient_cannot_be_on_both_sides(tmp_path, add_volume):
    for number in range(3):
        add_volume(tmp_path / "one", f"s{number}", number, origin=Origin("big", "CC0-1.0", "p", "training"))
    with pytest.raises(StoreError, match=r"holds 3 scan\(s\), too few to train on some patients"):
        store_items(str(tmp_path / "one"), "train", 0.1)
    assert len(store_items(str(tmp_path / "one"), "train", 0)) == 3


def test_weights_come_from_the_manifest_or_by_data_set(store: str) -> None:
    items = store_items(store, "train", 0)
    weights = dict(zip([item["image"] for item in items], store_weights(store, items), strict=True))
    assert (weights["big_02"], weights["big_03"], weights["small_0"], weights["own_3"]) == (1, 2, 1, 1)
    weighted = store_weights(store, items, {"big": 3, "small": 1, "": 0})
    shares = dict(zip([item["image"] for item in items], weighted, strict=True))
    assert sum(weight for name, weight in shares.items() if name.startswith("big")) == pytest.approx(3)
    assert sum(weight for name, weight in shares.items() if name.startswith("small")) == pytest.approx(1)
    assert shares["own_0"] == 0
    assert shares["big_03"] == pytest.approx(2 * shares["big_02"])  # within a data set, as in the manifest


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ({"big": 1, "": 1}, "no share for 'small'"),
        ({"big": 1, "small": 1, "": 1, "msd": 1}, "an unknown share for 'msd'"),
        ({"big": -1, "small": 1, "": 1}, "a wrong share for 'big'"),
        ({"big": 1, "small": "2", "": 1}, "a wrong share for 'small'"),
        ({"big": 1, "small": 1, "": 1, "msd": 1, 3: 1}, "an unknown share for 'msd', 3"),
        ("big", "'big' gives no data set a share"),
        ([1, 2], r"\[1, 2\] gives no data set a share"),
    ],
)
def test_shares_that_do_not_fit_the_store_are_said(store: str, shares: dict[str, float], words: str) -> None:
    with pytest.raises(SettingError, match=rf"^dataset_weights: {words}; give .* each of '', 'big', 'small' "):
        store_weights(store, store_items(store, "train"), shares)


def test_share_of_a_data_set_without_training_scans_is_said(tmp_path: Path, add_volume: Callable[..., None]) -> None:
    for number in range(4):
        add_volume(tmp_path / "s", f"a{number}", number, origin=Origin("a", "CC0-1.0", f"p{number}", "training"))
        add_volume(tmp_path / "s", f"b{number}", number, origin=Origin("b", "CC0-1.0", f"p{number}", "test"))
        add_volume(tmp_path / "s", f"c{number}", number, origin=Origin("c", "CC0-1.0", f"p{number}", "training", 0))
    items = store_items(str(tmp_path / "s"), "train", 0)
    for name in ("b", "c"):
        with pytest.raises(SettingError, match=rf"^dataset_weights: '{name}' has a share of 2 and no scan to train on"):
            store_weights(str(tmp_path / "s"), items, {"a": 1, "b": 0, "c": 0, name: 2})
    assert store_weights(str(tmp_path / "s"), items, {"a": 1, "b": 0, "c": 0}).sum() == pytest.approx(1)
