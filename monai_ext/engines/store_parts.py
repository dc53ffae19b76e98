"""What of a store a run trains on, what it holds out, and how often each volume is drawn."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from monai_ext.base import SettingError, StoreError, derive_seed, is_number
from monai_ext.volumes import StoreIndex, VolumeStore


def store_items(store: str, part: str, held_out: float = 0.1, seed: int = 0) -> list[dict[str, str]]:
    """List the scans of a store for one part of the run, as ``[{"image": id}, ...]``.

    A patient stands in one part with all scans. Those of whom the manifest lists a scan under ``test`` are in no
    part, those under ``validation`` are held out. Whether another patient is held out depends on the name and the seed
    alone, so that adding scans moves no other one between the parts; somebody is held out when ``held_out`` is not 0.

    Args:
        store: folder of a `VolumeStore`.
        part: ``"train"`` or ``"validation"``.
        held_out: share of the patients in validation, from 0 to below 1.
        seed: another seed holds out other patients.

    Raises:
        StoreError: the store holds too few scans for both parts.
        SettingError: an unknown part or an impossible share.
    """
    if part not in ("train", "validation") or not is_number(held_out, 0) or held_out >= 1:
        raise SettingError(
            f"part is {part!r} and held_out is {held_out}; use 'train' or 'validation', and a share from 0 to below 1",
            code="setting.held_out",
        )
    index = VolumeStore(store).index
    return [{"image": name} for name in index.ids[_parts(index, held_out, seed) == part].tolist()]


def _parts(index: StoreIndex, held_out: float, seed: int) -> np.ndarray:
    """Return ``"train"``, ``"validation"`` or ``"test"`` for each row."""
    # Data sets may number their patients alike.
    names = [
        f"{dataset}/{group}" if dataset else group
        for dataset, group in zip(index.datasets.tolist(), index.groups.tolist(), strict=True)
    ]
    part_of: dict[str, str] = {}
    for split in ("validation", "test"):  # the latter prevails
        part_of.update((name, split) for name, said in zip(names, index.splits.tolist(), strict=True) if said == split)
    free = sorted(set(names) - set(part_of), key=lambda name: (derive_seed(seed, "held out", name), name))
    count = sum(derive_seed(seed, "held out", name) < held_out * 2**32 for name in free)
    if held_out and "validation" not in part_of.values():
        count = max(count, 1)
    if count >= len(free):
        scans = sum(name not in part_of for name in names)
        raise StoreError(
            f"the store holds {scans} scan(s), too few to train on some patients and hold out others; "
            "prepare more scans, or set held_out to 0 and train without validation",
            code="store.too_few",
        )
    part_of.update((name, "validation" if place < count else "train") for place, name in enumerate(free))
    return np.array([part_of[name] for name in names])


def store_weights(
    store: str, items: Sequence[Mapping[str, str]], dataset_weights: Mapping[str, float] | None = None
) -> np.ndarray:
    """Return how often each scan is drawn beside the others, for a `VisitPlan`.

    Args:
        store: folder of a `VolumeStore`.
        items: scans of it, as :func:`store_items` lists them.
        dataset_weights: each data set's share of the draws, in any unit; 0 leaves one out. Within a data set the
            weights of the manifest count. Without it they alone do, so that large data sets are drawn more often.

    Returns:
        ``(items,)``; the weights of the manifest, 1 for scans that were prepared without one.

    Raises:
        SettingError: a data set of the store has no share, or a share has no data set, or no scan to be drawn.
    """
    index = VolumeStore(store).index
    rows = np.array([index.rows[item["image"]] for item in items], np.int64)
    weights = index.weights[rows].copy()
    if dataset_weights is None:
        return weights
    _check_names(index, dataset_weights)
    for name, share in dataset_weights.items():
        its = index.datasets[rows] == name
        total = weights[its].sum()
        if share and not total:  # the others would be drawn in its place, and nobody told
            raise SettingError(
                f"dataset_weights: {name!r} has a share of {share:g} and no scan to train on, as its scans are held "
                "out or in the test list, or have weight 0 in their manifest; give it 0, or prepare more of its scans",
                code="setting.dataset_weights",
            )
        weights[its] *= share / (total or 1)
    return weights


def _check_names(index: StoreIndex, shares: Mapping[str, float]) -> None:
    known = set(index.datasets.tolist())
    if not isinstance(shares, Mapping):
        raise SettingError(
            f"dataset_weights: {shares!r} gives no data set a share; give a number of 0 or more for each of "
            f"{', '.join(map(repr, sorted(known)))} as in {dict.fromkeys(sorted(known), 1)}",
            code="setting.dataset_weights",
        )
    problems: list[tuple[Literal["no", "an unknown", "a wrong"], set[str]]] = [
        ("no", known - set(shares)),
        ("an unknown", set(shares) - known),
        ("a wrong", {name for name, share in shares.items() if not is_number(share, 0)}),
    ]
    for what, names in problems:
        if names:
            raise SettingError(
                f"dataset_weights: {what} share for {', '.join(sorted(map(repr, names)))}; give a number of 0 or more "
                f"for each of {', '.join(map(repr, sorted(known)))} ('' is what was prepared without a manifest)",
                code="setting.dataset_weights",
            )
