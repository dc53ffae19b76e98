"""Candidates: connected places of a map above a threshold, with where they are, how large, how abnormal."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from monai_ext.base import SettingError

_GROWTH = 8  # from one guess of how many voxels matter to the next


@dataclass(frozen=True)
class Candidate:
    """One connected place above the threshold; voxels that touch at a corner are connected.

    Attributes:
        number: 1 for the most abnormal.
        voxels: how many voxels or pixels it has.
        peak: largest log-odds in it.
        peak_index: where that is, array indices from 0.
        center: its centre of gravity, in array indices.
        low: first index of each axis.
        high: last index of each axis.
    """

    number: int
    voxels: int
    peak: float
    peak_index: tuple[int, ...]
    center: tuple[float, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]


def find_candidates(odds: np.ndarray, threshold: float, min_voxels: int = 1) -> tuple[np.ndarray, list[Candidate]]:
    """Find the connected places above a threshold.

    Args:
        odds: the map, ``(h, w)`` or ``(x, y, z)``.
        threshold: values must be larger.
        min_voxels: smaller places are dropped.

    Returns:
        A boolean mask of the places kept, and the places by falling peak.
    """
    mask = odds > threshold
    box = _box(mask)
    if box is None:
        return mask, []
    labels, count = ndimage.label(mask[box], np.ones((3,) * odds.ndim))
    inside = odds[box]
    numbers, sizes, sums = _measure(labels, count)
    keep = np.flatnonzero(sizes >= max(1, min_voxels))
    found = []
    objects = ndimage.find_objects(labels)
    start = np.array([part.start for part in box])
    for index in keep:
        place = objects[index]
        own = np.where(labels[place] == numbers[index], inside[place], -np.inf)
        peak = np.unravel_index(int(own.argmax()), own.shape)
        offset = start + [part.start for part in place]
        last = start + [part.stop - 1 for part in place]
        found.append(
            Candidate(
                0,
                int(sizes[index]),
                float(own[peak]),
                _ints(offset + peak),
                tuple(float(value) for value in start + sums[index] / sizes[index]),
                _ints(offset),
                _ints(last),
            )
        )
    kept = np.zeros(count + 1, bool)
    kept[1 + keep] = True
    mask[box] = kept[labels]
    # By place where peaks tie, so that the order does not depend on the labelling.
    found.sort(key=lambda one: (-one.peak, -one.voxels, one.peak_index))
    return mask, [Candidate(number, *_rest(one)) for number, one in enumerate(found, 1)]


def candidate_level(odds: np.ndarray, min_voxels: int = 1) -> float:
    """Return the value that a threshold must stay below for a map to have a candidate.

    Exactly, for every threshold: ``find_candidates(odds, threshold, min_voxels)`` finds something if and only if
    ``threshold < candidate_level(odds, min_voxels)``.

    Raises:
        SettingError: the whole map is smaller than a candidate.
    """
    if min_voxels <= 1:
        return float(odds.max())
    if odds.size < min_voxels:
        raise SettingError(
            f"a candidate of {min_voxels} voxels is larger than the map of {odds.size}; lower the smallest size",
            code="setting.min_size",
        )
    flat, count = odds.reshape(-1), min_voxels
    while count < flat.size and not _has_candidate(odds, np.partition(flat, flat.size - count)[-count], min_voxels):
        count = min(count * _GROWTH, flat.size)
    # Falling distinct values; the first that leaves a large enough place is the level.
    values = np.unique(np.partition(flat, flat.size - count)[-count:])[::-1]
    low, high = 0, len(values) - 1
    while low < high:
        middle = (low + high) // 2
        if _has_candidate(odds, values[middle], min_voxels):
            high = middle
        else:
            low = middle + 1
    return float(values[low])


def candidate_rows(
    candidates: Sequence[Candidate], affine: np.ndarray | None, rates: Sequence[float | None]
) -> list[dict[str, Any]]:
    """Describe candidates for tables: places in mm and slices for a volume, in pixels for a picture.

    Args:
        candidates: of one case.
        affine: ``(4, 4)`` of a volume, voxel index to mm in RAS+; ``None`` for a picture.
        rates: for each candidate the share of normal cases that reach its peak, ``None`` where uncalibrated.
    """
    return [_row(one, affine, rate) for one, rate in zip(candidates, rates, strict=True)]


def slice_axis(affine: np.ndarray) -> int:
    """Return the axis of the array that runs along the patient, feet to head or back."""
    return int(np.abs(np.asarray(affine)[2, :3] / np.linalg.norm(np.asarray(affine)[:3, :3], axis=0)).argmax())


def table_text(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
    """Return rows as CSV text; lists are spread over columns that end in their axis."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    for row in rows:
        flat: dict[str, Any] = {}
        for key, value in row.items():
            if isinstance(value, list | tuple):
                axes = "xyz" if key != "slices" else ("first", "last")
                flat |= {f"{key}_{axis}": part for axis, part in zip(axes, value, strict=False)}
            else:
                flat[key] = value
        table.writerow(["" if flat.get(name) is None else flat[name] for name in columns])
    return text.getvalue()


def odds_score(peak: float) -> float:
    """Turn log-odds into 0 to 1: the probability that the two texts, alone, would give."""
    return float(1 / (1 + np.exp(-np.float64(peak)))) if peak > -700 else 0.0


def _row(one: Candidate, affine: np.ndarray | None, rate: float | None) -> dict[str, Any]:
    scores = {
        "peak_log_odds": round(one.peak, 6),
        "score": odds_score(one.peak),
        "false_positive_rate": rate,
    }
    if affine is None:
        # Pictures are counted across, then down, by everybody but arrays.
        return {
            "number": one.number,
            **scores,
            "center_px": [round(value, 2) for value in one.center[::-1]],
            "peak_px": list(one.peak_index[::-1]),
            "area_px": one.voxels,
        }
    voxel_mm3 = abs(float(np.linalg.det(affine[:3, :3])))
    center, peak = (affine[:3, :3] @ np.array(place) + affine[:3, 3] for place in (one.center, one.peak_index))
    axis = slice_axis(affine)
    return {
        "number": one.number,
        **scores,
        "center_mm": [round(float(value), 2) for value in center],
        "center_voxel": [round(value, 2) for value in one.center],
        "peak_mm": [round(float(value), 2) for value in peak],
        "peak_voxel": list(one.peak_index),
        "volume_mm3": round(one.voxels * voxel_mm3, 2),
        "voxels": one.voxels,
        "slices": [one.low[axis], one.high[axis]],
    }


def _measure(labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count voxels and add up their indices, plane by plane: lists of all voxels would outgrow the volume."""
    sizes, sums = np.zeros(count), np.zeros((count, labels.ndim))
    for index, plane in enumerate(labels):
        where = np.nonzero(plane)
        ids = plane[where] - 1
        here = np.bincount(ids, minlength=count)
        sizes += here
        sums[:, 0] += index * here
        for axis, places in enumerate(where, 1):
            sums[:, axis] += np.bincount(ids, places, count)
    return np.arange(1, count + 1), sizes, sums


def _has_candidate(odds: np.ndarray, level: float, min_voxels: int) -> bool:
    mask = odds >= level
    box = _box(mask)
    if box is None:
        return False
    labels, _ = ndimage.label(mask[box], np.ones((3,) * odds.ndim))
    return bool(np.bincount(labels.reshape(-1))[1:].max() >= min_voxels)


def _box(mask: np.ndarray) -> tuple[slice, ...] | None:
    parts = []
    for axis in range(mask.ndim):
        hit = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        if not len(hit):
            return None
        parts.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return tuple(parts)


def _ints(values: np.ndarray) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def _rest(one: Candidate) -> tuple[int, float, tuple[int, ...], tuple[float, ...], tuple[int, ...], tuple[int, ...]]:
    return one.voxels, one.peak, one.peak_index, one.center, one.low, one.high
