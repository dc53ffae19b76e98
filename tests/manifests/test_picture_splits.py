"""Few-shot choices and held-out shares: balanced, repeatable, and groups stay together."""

from collections import Counter
from pathlib import Path

import pytest

from monai_ext.base import ManifestError, SettingError
from monai_ext.manifests import PictureEntry, few_shot, hold_out

ROOT = Path("/data/toy")


def entries(
    per_kind: int = 7, names: tuple[str, ...] = ("candle", "pcb3", "fryum"), folder: Path = ROOT
) -> list[PictureEntry]:
    return [
        PictureEntry(folder / name / str(label) / f"{n:03d}.png", None, label, name, "VisA", f"{name}/{n:03d}")
        for name in names
        for label in (0, 1)
        for n in range(per_kind)
    ]


@pytest.mark.parametrize("shots", [2, 6, 14])
def test_half_of_each_class_is_normal_and_half_abnormal(shots: int) -> None:
    counts = Counter((entry.class_name, entry.label) for entry in few_shot(entries(), shots))
    assert counts == {(name, label): shots // 2 for name in ("candle", "pcb3", "fryum") for label in (0, 1)}


def test_a_choice_repeats_and_smaller_lies_within_larger() -> None:
    everything = entries()
    assert few_shot(everything, 4, seed=3) == few_shot(everything, 4, seed=3)
    assert few_shot(everything, 4, seed=3) != few_shot(everything, 4, seed=4)
    assert set(few_shot(everything, 4)) < set(few_shot(everything, 8))


def test_a_choice_does_not_depend_on_order_or_place() -> None:
    here = few_shot(entries(), 4)
    assert set(few_shot(entries()[::-1], 4)) == set(here)
    moved = few_shot(entries(folder=Path("/other/disk/toy")), 4)
    assert [entry.image.name for entry in moved] == [entry.image.name for entry in here]


@pytest.mark.parametrize("shots", [0, 1, 5, -2])
def test_shots_must_halve(shots: int) -> None:
    with pytest.raises(SettingError, match=rf"shots: {shots} cannot be halved"):
        few_shot(entries(), shots)


def test_too_few_pictures_of_a_kind_are_named() -> None:
    normal_only = [entry for entry in entries() if not (entry.class_name == "pcb3" and entry.label)]
    with pytest.raises(ManifestError, match=r"class 'pcb3': 0 abnormal pictures are too few for 2 shots, which take 1"):
        few_shot(normal_only, 2)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_the_share_holds_for_normal_and_abnormal(share: float) -> None:
    everything = entries(per_kind=20)
    learn, choose = hold_out(everything, share, seed=1)
    assert sorted(map(str, (*learn, *choose))) == sorted(map(str, everything))
    for label in (0, 1):
        assert sum(entry.label == label for entry in choose) == round(60 * share)
    counts = Counter((entry.class_name, entry.label) for entry in choose)
    assert all(abs(count - 20 * share) <= 1 for count in counts.values())


def test_few_pictures_still_give_one_of_each_kind_and_keep_one() -> None:
    learn, choose = hold_out(entries(per_kind=2, names=("candle",)), 0.01)
    assert sorted(entry.label for entry in choose) == [0, 1]
    assert sorted(entry.label for entry in learn) == [0, 1]
    assert hold_out(entries(per_kind=1, names=("candle",)), 0.5)[1] == []


def test_nothing_is_held_out_of_nothing_and_shares_are_checked() -> None:
    assert hold_out(entries(), 0)[1] == []
    for wrong in (1, -0.1, 1.5, "0.1", float("nan")):
        with pytest.raises(SettingError, match="held_out"):
            hold_out(entries(), wrong)  # type: ignore[arg-type]


def test_pictures_of_a_patient_stay_together() -> None:
    grouped = [
        PictureEntry(entry.image, None, entry.label, entry.class_name, None, entry.case, group=f"p{n % 5}")
        for n, entry in enumerate(entries(per_kind=10, names=("Liver",)))
    ]
    learn, choose = hold_out(grouped, 0.2)
    assert choose
    assert not {entry.group for entry in learn} & {entry.group for entry in choose}
