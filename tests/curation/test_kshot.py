"""A choice is balanced, repeatable and nested, and keeps patients whole."""

from collections import Counter
from dataclasses import replace

import pytest

from monai_ext.base import ManifestError, SettingError
from monai_ext.curation import kshot
from monai_ext.manifests import DatasetCard, Manifest, ManifestEntry


def volumes(patients: int = 11, dataset: str = "spleens", scans: int = 2) -> list[ManifestEntry]:
    return [
        ManifestEntry(f"{dataset}-{p}-{n}", dataset, f"{p}/{n}.nii", f"{p}/{n}_seg.nii", f"p{p}", "training")
        for p in range(patients)
        for n in range(scans)
    ]


def pictures(
    per_kind: int = 12, patients: int = 4, classes: tuple[str, ...] = ("Liver", "Brain")
) -> list[ManifestEntry]:
    return [
        ManifestEntry(
            f"{name}-{label}-{n}",
            "bmad",
            f"{name}/{label}/{n}.png",
            group=f"{name}{n % patients}",
            split="training",
            class_name=name,
            abnormal=label,
        )
        for name in classes
        for label in (0, 1)
        for n in range(per_kind)
    ]


def whole(*entries: ManifestEntry) -> Manifest:
    datasets = {entry.dataset: DatasetCard(entry.dataset) for entry in entries}
    return Manifest("whole", datasets, entries=entries, status="All of it.")


def ids(manifest: Manifest, split: str = "training") -> set[str]:
    return {entry.id for entry in manifest.entries if entry.split == split}


def test_a_shot_is_a_patient_of_each_data_set_with_all_scans() -> None:
    chosen = kshot(whole(*volumes(), *volumes(5, "livers", 3)), shots=3)
    patients = Counter(entry.patient for entry in chosen.entries)
    assert Counter(dataset for dataset, _ in patients) == {"spleens": 3, "livers": 3}
    assert {count for (dataset, _), count in patients.items() if dataset == "livers"} == {3}
    assert chosen.name == "whole_3shot"
    assert chosen.status == "All of it. Reduced to a 3-shot choice of its training list, seed 0."


@pytest.mark.parametrize("sizes", [{"shots": (2, 4, 6)}, {"percent": (10, 30.5, 100)}])
@pytest.mark.parametrize("entries", [volumes(), pictures(), [*volumes(), *pictures()]])
def test_the_fewer_lie_within_the_more(sizes: dict[str, tuple[float, ...]], entries: list[ManifestEntry]) -> None:
    ((key, values),) = sizes.items()
    few, some, many = (ids(kshot(whole(*entries), **{key: value}, seed=3)) for value in values)  # type: ignore[arg-type]
    assert few < some < many
    assert few == ids(kshot(whole(*entries[::-1]), **{key: values[0]}, seed=3))  # type: ignore[arg-type]
    assert any(few != ids(kshot(whole(*entries), **{key: values[0]}, seed=seed)) for seed in (4, 5, 6))  # type: ignore[arg-type]


def test_a_share_is_of_patients_and_never_nothing() -> None:
    entries = whole(*volumes(30))
    assert [len({e.patient for e in kshot(entries, percent=p).entries}) for p in (0.1, 10, 50, 100)] == [1, 3, 15, 30]


def test_pictures_are_halved_and_spread_over_patients() -> None:
    chosen = kshot(whole(*pictures()), shots=8).entries
    counts = Counter((entry.class_name, entry.abnormal) for entry in chosen)
    assert counts == {(name, label): 4 for name in ("Liver", "Brain") for label in (0, 1)}
    assert len({(entry.abnormal, entry.patient) for entry in chosen}) == 16  # four pictures of each kind, four patients
    share = Counter((entry.class_name, entry.abnormal) for entry in kshot(whole(*pictures()), percent=25).entries)
    assert set(share.values()) == {3}


def test_other_lists_stay_and_unlabelled_scans_are_passed_over() -> None:
    test = [replace(entry, id=f"t{entry.id}", split="test", group=f"t{entry.group}") for entry in volumes(3)]
    bare = [replace(entry, id=f"u{entry.id}", label=None, group=f"u{entry.group}") for entry in volumes(40)]
    chosen = kshot(whole(*bare, *volumes(4), *test), shots=4)
    assert ids(chosen) == {entry.id for entry in volumes(4)}
    assert ids(chosen, "test") == {entry.id for entry in test}
    assert len({entry.patient for entry in kshot(whole(*bare), shots=4).entries}) == 4
    assert ids(kshot(whole(*volumes(4), *test), shots=2, split="test")) == ids(whole(*volumes(4)))


def test_entries_of_no_weight_are_not_chosen_and_data_sets_without_entries_go() -> None:
    off = [replace(entry, weight=0) for entry in volumes(9)]
    chosen = kshot(whole(*off, *volumes(2, "livers")), shots=2)
    assert set(chosen.datasets) == {"livers"}


@pytest.mark.parametrize(
    ("entries", "settings", "sentence"),
    [
        (volumes(3), {"shots": 4}, r"data set 'spleens': 3 patients are too few for 4 shots"),
        (pictures(3), {"shots": 8}, r"class 'Liver': 3 normal pictures are too few for 8 shots, which take 4"),
        (pictures(3)[3:6], {"shots": 2}, r"class 'Liver': 0 normal pictures are too few for 2 shots"),
        (volumes(3), {"shots": 1, "split": "test"}, r"whole: its test list is empty"),
    ],
)
def test_too_few_are_told_with_their_number(
    entries: list[ManifestEntry], settings: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ManifestError, match=sentence):
        kshot(whole(*entries), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "shots, percent: give one of the two"),
        ({"shots": 1, "percent": 5}, "shots, percent: give one of the two"),
        ({"shots": 0}, "shots: 0 is none"),
        ({"shots": 3}, "shots: 3 cannot be halved into normal and abnormal"),
        ({"percent": 0}, "percent: 0 is no share"),
        ({"percent": 101}, "percent: 101 is no share"),
        ({"percent": float("nan")}, "percent: nan is no share"),
        ({"shots": 2, "split": "train"}, "split: 'train' is none; give one of training"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        kshot(whole(*pictures()), **settings)  # type: ignore[arg-type]
