"""A few scans of a manifest, or a share of them: the same ones each time, and the fewer within the more."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from monai_ext.base import ManifestError, SettingError, derive_seed, is_number
from monai_ext.manifests import SPLITS, Manifest, ManifestEntry
from monai_ext.manifests.picture_splits import choose_balanced

ItemT = TypeVar("ItemT")
KindT = TypeVar("KindT", bound=Hashable)


def kshot(
    manifest: Manifest,
    *,
    shots: int | None = None,
    percent: float | None = None,
    seed: int = 0,
    split: str = "training",
) -> Manifest:
    """Choose a few entries of one list by chance; the other lists stay as they are.

    A shot of volumes is a patient: ``shots`` patients of each data set come with all their scans. Where some of a
    data set's scans in the list have labels, only those are chosen from. Pictures that are marked normal or abnormal
    are shots themselves: half of them normal and half abnormal of each class, spread over the patients.

    With one seed, a smaller choice lies within a larger one. It depends on ids, patients and the seed alone, not on
    the order of the list or on where it lies. Which classes occur in a label volume is not looked at: that would
    need the files, and the published protocols choose patients by chance.

    Args:
        manifest: the whole.
        shots: how many of each data set (volumes) or class (pictures).
        percent: instead, the share of patients, or of the pictures of each class and kind; one at least.
        seed: another seed chooses others.
        split: the list to choose from.

    Returns:
        The manifest with fewer entries, its name and status telling how they were chosen.

    Raises:
        SettingError: not just one of shots and percent, out of range, odd for pictures, or no such list.
        ManifestError: the list is empty, or there are too few; the sentence says how many.
    """
    _check(shots, percent, split)
    place = [n for n, entry in enumerate(manifest.entries) if entry.split == split and entry.weight > 0]
    if not place:
        raise ManifestError(f"{manifest.name}: its {split} list is empty; choose another list", code="kshot.empty")
    entries = [manifest.entries[n] for n in place]
    volumes = _labelled([entry for entry in entries if entry.abnormal is None])
    pictures = [entry for entry in entries if entry.abnormal is not None]
    chosen = {entry.id for entry in _volumes(volumes, shots, percent, seed)}
    chosen |= {entry.id for entry in _pictures(pictures, shots, percent, seed)}
    kept = tuple(entry for entry in manifest.entries if entry.split != split or entry.id in chosen)
    what = f"{shots}-shot" if shots is not None else f"{percent:g} %"
    suffix = f"_{shots}shot" if shots is not None else f"_{percent:g}percent"
    used = {entry.dataset for entry in kept}
    return replace(
        manifest,
        name=f"{manifest.name[: 80 - len(suffix)]}{suffix}",
        status=" ".join(
            filter(None, (manifest.status, f"Reduced to a {what} choice of its {split} list, seed {seed}."))
        ),
        datasets={key: card for key, card in manifest.datasets.items() if key in used},
        entries=kept,
    )


def _check(shots: int | None, percent: float | None, split: str) -> None:
    if (shots is None) == (percent is None):
        raise SettingError("shots, percent: give one of the two", code="setting.shots")
    if shots is not None and shots < 1:
        raise SettingError(f"shots: {shots} is none; give a number from 1 on", code="setting.shots")
    if percent is not None and not (is_number(percent, 0, 100) and percent > 0):
        raise SettingError(f"percent: {percent!r} is no share; give above 0 to 100", code="setting.percent")
    if split not in SPLITS:
        raise SettingError(f"split: {split!r} is none; give one of {', '.join(SPLITS)}", code="setting.split")


def _labelled(entries: Sequence[ManifestEntry]) -> list[ManifestEntry]:
    with_labels = {entry.dataset for entry in entries if entry.label is not None}
    return [entry for entry in entries if entry.label is not None or entry.dataset not in with_labels]


def _volumes(
    entries: Sequence[ManifestEntry], shots: int | None, percent: float | None, seed: int
) -> list[ManifestEntry]:
    patients = _sorted_into(entries, lambda entry: entry.dataset)
    chosen: set[tuple[str, str]] = set()
    for dataset, some in patients.items():
        order = sorted({entry.patient for entry in some}, key=lambda one: (derive_seed(seed, "k shot", *one), one))
        count = _share(len(order), percent) if shots is None else shots
        if count > len(order):
            raise ManifestError(
                f"data set {dataset!r}: {len(order)} patients are too few for {count} shots; ask for fewer, or take "
                "another list",
                code="manifest.too_few",
            )
        chosen |= set(order[:count])
    return [entry for entry in entries if entry.patient in chosen]


def _pictures(
    entries: Sequence[ManifestEntry], shots: int | None, percent: float | None, seed: int
) -> list[ManifestEntry]:
    kinds = [(entry.dataset, entry.class_name or "", int(entry.abnormal or 0)) for entry in entries]
    ranks = _spread(entries, kinds, seed)
    if shots is not None:
        return [entries[place] for place in (choose_balanced(kinds, shots, ranks.__getitem__) if entries else ())]
    places = _sorted_into(range(len(entries)), kinds.__getitem__)
    return [
        entries[place]
        for some in places.values()
        for place in sorted(some, key=ranks.__getitem__)[: _share(len(some), percent)]
    ]


def _spread(entries: Sequence[ManifestEntry], kinds: Sequence[Hashable], seed: int) -> dict[int, tuple[int, str]]:
    """Return an order by chance in which each patient's first picture of a kind comes before any second one."""
    by_chance = sorted(
        range(len(entries)),
        key=lambda place: (derive_seed(seed, "k shot", entries[place].dataset, entries[place].id), entries[place].id),
    )
    turns: dict[Hashable, int] = defaultdict(int)
    ranks = {}
    for number, place in enumerate(by_chance):
        patient = (kinds[place], entries[place].patient)
        ranks[place] = (turns[patient], f"{number:012}")
        turns[patient] += 1
    return ranks


def _share(count: int, percent: float | None) -> int:
    return max(1, round(count * (percent or 0) / 100))


def _sorted_into(items: Iterable[ItemT], kind: Callable[[ItemT], KindT]) -> dict[KindT, list[ItemT]]:
    found: dict[KindT, list[ItemT]] = {}
    for item in items:
        found.setdefault(kind(item), []).append(item)
    return found
