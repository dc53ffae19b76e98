"""Comparing candidates: each pair is laid on one another, turned as it fits best."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np

from monai_ext.curation.alignment import Prepared, likeness, prepare_thumbnail
from monai_ext.curation.candidates import LikelyPair, Space
from monai_ext.curation.fingerprints import fingerprint_path, load_fingerprint
from monai_ext.curation.signatures import signature, turned_signatures
from monai_ext.curation.turns import all_turns

BATCH = 64  # pairs of one job
TURNS = 3  # turns that are tried, at most
NEARLY = 2.0  # a turn whose distance is within this factor of the best one's is tried too


@dataclass(frozen=True)
class CompareJob:
    """Some pairs to compare.

    Attributes:
        space: where turns are ranked.
        folder: where fingerprints are kept.
        pairs: checksums of the two files.
        candidates: the same pairs by number.
    """

    space: Space
    folder: Path
    pairs: tuple[tuple[str, str], ...]
    candidates: tuple[LikelyPair, ...]


@dataclass(frozen=True)
class Match:
    """How alike a pair is.

    Attributes:
        first, second: numbers, as of the `LikelyPair`.
        score: see `monai_ext.curation.alignment.likeness`; not a number where it could not be compared.
    """

    first: int
    second: int
    score: float


@dataclass(frozen=True)
class Filtered:
    """A thumbnail made ready for all its comparisons, and its signature."""

    prepared: Prepared
    waves: np.ndarray


def compare_jobs(
    space: Space, folder: Path, candidates: Iterable[LikelyPair], files: tuple[list[str], list[str]]
) -> Iterator[CompareJob]:
    """Pack candidates into jobs.

    Args:
        space: see `CompareJob`.
        folder: likewise.
        candidates: pairs by number.
        files: checksums of the first and of the second scans, by number.
    """
    rest = iter(candidates)
    while batch := tuple(islice(rest, BATCH)):
        pairs = tuple((files[0][pair.first], files[1][pair.second]) for pair in batch)
        yield CompareJob(space, folder, pairs, batch)


def compare_pairs(job: CompareJob) -> list[Match]:
    """Compare the pairs of a job; one whose fingerprint is gone gets no number."""
    matches = []
    for pair, (first, second) in zip(job.candidates, job.pairs, strict=True):
        one, other = (
            _kept(fingerprint_path(job.folder, file, job.space.axes), job.space.axes) for file in (first, second)
        )
        score = float("nan") if one is None or other is None else best_likeness(job.space, one, other)
        matches.append(Match(pair.first, pair.second, score))
    return matches


def not_compared(job: CompareJob) -> list[Match]:
    """Return what stands for a job whose process died twice."""
    return [Match(pair.first, pair.second, float("nan")) for pair in job.candidates]


def best_likeness(space: Space, one: Filtered, other: Filtered) -> float:
    """Return the greatest likeness over the turns of the first that come near."""
    turned = space.place(turned_signatures(one.waves[None], space.axes)[:, 0])
    distances = np.square(turned - space.place(other.waves)).sum(axis=1)
    order = np.argsort(distances, kind="stable")[:TURNS]
    near = order[distances[order] <= NEARLY * distances[order[0]]]
    return max(likeness(one.prepared.turned(all_turns(space.axes)[turn]), other.prepared) for turn in near)


@lru_cache(maxsize=128)  # candidates of one scan come one after another
def _kept(path: Path, axes: int) -> Filtered | None:
    found = load_fingerprint(path, axes)
    if found is None:
        return None
    return Filtered(prepare_thumbnail(found.thumbnail), signature(found.thumbnail.cells))
