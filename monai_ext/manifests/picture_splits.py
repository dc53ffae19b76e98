"""Choosing pictures at random, yet the same ones each time: a few of each class, or a share held out."""

from collections.abc import Callable, Hashable, Sequence

from monai_ext.base import ManifestError, SettingError, derive_seed, is_number
from monai_ext.manifests.picture_lists import PictureEntry


def few_shot(entries: Sequence[PictureEntry], shots: int, seed: int = 0) -> list[PictureEntry]:
    """Choose half as many normal and half as many abnormal pictures of each class.

    Whether a picture is chosen depends on its path below the folder that all share and on the seed; of two
    choices with one seed, the smaller lies within the larger.

    Args:
        entries: of one list.
        shots: pictures of each class; an even number.
        seed: another seed chooses others.

    Returns:
        The chosen ones, in the order of ``entries``.

    Raises:
        SettingError: an odd number, or none.
        ManifestError: a class has too few pictures of a kind.
    """
    kinds = [(entry.dataset, entry.class_name, entry.label) for entry in entries]
    return [entries[place] for place in choose_balanced(kinds, shots, _ranking(entries, seed, "few shot"))]


def choose_balanced(
    kinds: Sequence[tuple[Hashable, str, int]], shots: int, rank: Callable[[int], tuple[int, str]]
) -> list[int]:
    """Choose the first half of the shots among the normal, and the other half among the abnormal of each class.

    Args:
        kinds: of each picture its data set, its class, and 0 or 1.
        shots: pictures of each class; an even number.
        rank: the order in which the pictures are taken, by their place in ``kinds``.

    Returns:
        The places of those chosen, ascending.

    Raises:
        SettingError: an odd number, or none.
        ManifestError: a class has too few pictures of a kind.
    """
    if shots < 2 or shots % 2:
        raise SettingError(
            f"shots: {shots} cannot be halved into normal and abnormal pictures; give an even number from 2 on",
            code="setting.shots",
        )
    places: dict[tuple[Hashable, str, int], list[int]] = {}
    for place, kind in enumerate(kinds):
        places.setdefault(kind, []).append(place)
    chosen: set[int] = set()
    for dataset, name in dict.fromkeys((dataset, name) for dataset, name, _ in kinds):
        for label, word in enumerate(("normal", "abnormal")):
            some = places.get((dataset, name, label), [])
            if len(some) < shots // 2:
                raise ManifestError(
                    f"class {name!r}: {len(some)} {word} pictures are too few for {shots} shots, which take "
                    f"{shots // 2}; ask for fewer, or leave the class out",
                    code="manifest.too_few",
                )
            chosen |= set(sorted(some, key=rank)[: shots // 2])
    return sorted(chosen)


def hold_out(
    entries: Sequence[PictureEntry], share: float, seed: int = 0
) -> tuple[list[PictureEntry], list[PictureEntry]]:
    """Split pictures into those to learn from and those that choose the epoch.

    The share holds for normal and abnormal pictures each, and as nearly as can be for each class; what is of one
    ``group`` stays together. One picture of a kind is held out at least where there are two.

    Args:
        entries: of all source sets.
        share: of the pictures to hold out, from 0 to below 1.
        seed: another seed holds out others.

    Returns:
        The pictures to learn from and those held out, each in the order of ``entries``.

    Raises:
        SettingError: an impossible share.
    """
    if not is_number(share, 0, 1) or share == 1:
        raise SettingError(f"held_out: {share!r} is no share; give 0 to below 1, such as 0.1", code="setting.held_out")
    held: set[int] = set()
    if share:
        together = _sorted_into(entries, lambda entry: entry.group or str(entry.image))
        # A group counts as abnormal if one of its pictures is.
        kinds: dict[tuple[int, str | None, str], list[list[int]]] = {}
        for places in together.values():
            first = entries[places[0]]
            label = max(entries[place].label for place in places)
            kinds.setdefault((label, first.dataset, first.class_name), []).append(places)
        for label in (0, 1):
            held |= _share_of([units for kind, units in kinds.items() if kind[0] == label], entries, share, seed)
    learn, choose = ([entry for place, entry in enumerate(entries) if (place in held) == out] for out in (False, True))
    return learn, choose


def _share_of(classes: Sequence[list[list[int]]], entries: Sequence[PictureEntry], share: float, seed: int) -> set[int]:
    """Hold units out class by class; what a class is short of a whole unit passes on to the next."""
    total = sum(len(units) for units in classes)
    if total < 2:
        return set()
    ranking = _ranking(entries, seed, "held out")
    held: set[int] = set()
    seen = count = 0
    wanted = max(round(share * total), 1)
    for units in classes:
        seen += len(units)
        # At the end just `wanted` units are out, for the last fraction is 1.
        due = min(round(wanted * seen / total) - count, len(units))
        chosen = sorted(units, key=lambda unit: ranking(unit[0]))[:due]
        held |= {place for unit in chosen for place in unit}
        count += due
    return held


def _sorted_into(
    entries: Sequence[PictureEntry], kind: Callable[[PictureEntry], Hashable]
) -> dict[Hashable, list[int]]:
    found: dict[Hashable, list[int]] = {}
    for place, entry in enumerate(entries):
        found.setdefault(kind(entry), []).append(place)
    return found


def _ranking(entries: Sequence[PictureEntry], seed: int, purpose: str) -> Callable[[int], tuple[int, str]]:
    """Return an order by chance that does not change when the whole folder moves or the list grows."""

    def rank(place: int) -> tuple[int, str]:
        entry = entries[place]
        name = "/".join(entry.image.parts[-4:])
        return derive_seed(seed, purpose, entry.dataset or "", entry.class_name, name), str(entry.image)

    return rank
