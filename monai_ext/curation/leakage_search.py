"""The pairs among fingerprints: by checksums first, then by the likeness of one scan of each checksum."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from monai_ext.base import derive_seed
from monai_ext.curation.candidates import SAMPLE, Space, learn_space, nearest
from monai_ext.curation.comparing import Match, compare_jobs, compare_pairs, not_compared
from monai_ext.curation.fingerprints import FingerprintResult, fingerprint_path, load_fingerprint
from monai_ext.curation.progress import shown
from monai_ext.volumes.prepare_pool import run_jobs

KINDS = ("same file", "same voxels", "near-duplicate")
_FEW = 4  # jobs that are done sooner than processes start


@dataclass
class LeakageSearch:
    """A search among the fingerprints of one list or two.

    Attributes:
        taken: fingerprints by the number of their scan.
        border: number of the second list's first scan; ``None`` where there is one list.
        folder: where thumbnails are kept.
        threshold: score from which a pair is a near-duplicate.
        jobs: processes.
        progress: show a bar.
        lost: pairs that could not be compared.
    """

    taken: Mapping[int, FingerprintResult]
    border: int | None
    folder: Path
    threshold: float
    jobs: int
    progress: bool = False
    lost: list[tuple[int, int]] = field(default_factory=list)

    def run(self) -> list[tuple[Match, str]]:
        """Return pairs of scans, the lower number first, with their kind; exact ones first, then by score."""
        found: dict[tuple[int, int], tuple[Match, str]] = {}
        for kind, key in zip(KINDS, ("file", "voxels"), strict=False):
            for members in self._groups(key).values():
                for pair in self._pairs(members, members):
                    found.setdefault(pair, (Match(*pair, 1.0), kind))
        for axes in (3, 2):
            for match in self._near(axes):
                found.setdefault((match.first, match.second), (match, KINDS[2]))
        return sorted(
            found.values(), key=lambda item: (KINDS.index(item[1]), -item[0].score, item[0].first, item[0].second)
        )

    def thumbnail(self, number: int) -> np.ndarray | None:
        """Return the cells of a scan's thumbnail, if it is still there."""
        result = self.taken[number]
        found = load_fingerprint(fingerprint_path(self.folder, result.file, result.axes), result.axes)
        return None if found is None else found.thumbnail.cells

    def _groups(self, key: str, axes: int | None = None) -> dict[tuple[int, str], list[int]]:
        groups = defaultdict(list)
        for number, result in sorted(self.taken.items()):
            if axes in (None, result.axes):
                groups[result.axes, getattr(result, key)].append(number)
        return groups

    def _pairs(self, one: Sequence[int], other: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Yield pairs that name every member of two groups, without pairing each with each."""
        left, right = (one, other) if self.border is None else (self._split(one)[0], self._split(other)[1])
        if left and right:
            chained = [(left[0], number) for number in right] + [(number, right[0]) for number in left[1:]]
            yield from ((min(pair), max(pair)) for pair in chained if pair[0] != pair[1])

    def _split(self, numbers: Sequence[int]) -> tuple[list[int], list[int]]:
        border = self.border or 0
        return [number for number in numbers if number < border], [number for number in numbers if number >= border]

    def _near(self, axes: int) -> Iterator[Match]:
        groups = list(self._groups("voxels", axes).values())
        left, right = self._representatives(groups)
        if not left or not right or len({*left, *right}) < 2:
            return
        members = {number: group for group in groups for number in group}
        space = self._space(sorted({*left, *right}))
        for match in self._compared(space, left, right):
            one, other = left[match.first], right[match.second]
            if np.isnan(match.score):
                self.lost.append((one, other))
            elif match.score >= self.threshold:
                for pair in self._pairs(members[one], members[other]):
                    yield Match(*pair, match.score)

    def _representatives(self, groups: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
        if self.border is None:
            first = [group[0] for group in groups]
            return first, first
        sides = [self._split(group) for group in groups]
        return [left[0] for left, _ in sides if left], [right[0] for _, right in sides if right]

    def _space(self, numbers: Sequence[int]) -> Space:
        rng = np.random.default_rng(derive_seed("leakage sample", len(numbers)))
        chosen = [self.thumbnail(int(number)) for number in rng.permutation(numbers)[:SAMPLE]]
        return learn_space([cells for cells in chosen if cells is not None], self._signatures(numbers))

    def _compared(self, space: Space, left: Sequence[int], right: Sequence[int]) -> Iterator[Match]:
        found = nearest(space, self._signatures(left), None if self.border is None else self._signatures(right))
        candidates = [pair for pair in found if not self._same(left[pair.first], right[pair.second])]
        files = [self.taken[number].file for number in left], [self.taken[number].file for number in right]
        work = list(compare_jobs(space, self.folder, candidates, files))
        jobs = min(self.jobs, len(work)) if len(work) > _FEW else 0
        batches = run_jobs(compare_pairs, work, jobs, not_compared)
        for batch in shown(batches, len(work), "comparing", self.progress):
            yield from batch

    def _same(self, one: int, other: int) -> bool:
        return self.taken[one].voxels == self.taken[other].voxels

    def _signatures(self, numbers: Sequence[int]) -> np.ndarray:
        return np.stack([self.taken[number].signature for number in numbers])  # type: ignore[misc]
