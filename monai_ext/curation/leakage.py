"""Leakage: scans that stand in two lists, or twice in one, under whatever name and in whatever shape."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from monai_ext.base import ManifestError, SettingError, check_output
from monai_ext.curation.comparing import Match
from monai_ext.curation.fingerprints import FingerprintJob, died, take_fingerprint
from monai_ext.curation.known_overlaps import KnownOverlap, known_overlaps
from monai_ext.curation.leakage_search import KINDS, LeakageSearch
from monai_ext.curation.problems import Problem
from monai_ext.curation.progress import processes, shown
from monai_ext.curation.signatures import signature, turned_signatures
from monai_ext.curation.turns import all_turns
from monai_ext.manifests import Manifest, ManifestEntry
from monai_ext.volumes.prepare_pool import run_jobs

THRESHOLD = 0.92  # chosen in docs/explanation/leakage.md, on other scans than those reported there
PICTURED = 200  # pairs; a page of more would not be looked at


@dataclass(frozen=True)
class LeakPair:
    """Two entries that show the same.

    Attributes:
        first, second: the entries.
        kind: ``"same file"``, ``"same voxels"`` (under another name, format or affine) or ``"near-duplicate"``.
        score: 1 where they are the same; else the correlation of what both show.
        looks: thumbnails of both, the second one turned as the first one lies; where asked for.
    """

    first: ManifestEntry
    second: ManifestEntry
    kind: str
    score: float
    looks: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True)
class LeakageSummary:
    """What two lists share.

    Attributes:
        first, second: the manifests; one alone is compared with itself.
        pairs: what was found, exact ones first, then by score.
        overlaps: what the data sets' descriptions say.
        problems: scans that could not be compared.
        compared: how many scans and pictures could.
        notes: what else there is to know.
    """

    first: Manifest
    second: Manifest | None
    pairs: list[LeakPair] = field(default_factory=list)
    overlaps: list[KnownOverlap] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    compared: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """1 if a pair was found or a scan could not be compared, or if nothing but known overlaps can be told."""
        return 1 if self.pairs or self.problems or (self.overlaps and not self.compared) else 0


def find_leakage(
    first: Manifest,
    second: Manifest | None = None,
    *,
    first_root: str | os.PathLike[str],
    second_root: str | os.PathLike[str] | None = None,
    jobs: int | None = None,
    threshold: float = THRESHOLD,
    cache: str | os.PathLike[str] | None = None,
    looks: bool = False,
    progress: bool = False,
) -> LeakageSummary:
    """Find scans and pictures that stand in both manifests, or more than once in one.

    Args:
        first: a manifest.
        second: another one; by default the first one is compared with itself. Near-duplicates of one patient
            within one split are then expected, and only counted.
        first_root: the folder that the first one's paths start from.
        second_root: the same of the second one; the first one's by default.
        jobs: processes; as many as cores by default, 0 to work in this process.
        threshold: score from which a pair is a near-duplicate.
        cache: folder where fingerprints are kept for the next run, by the checksum of their file.
        looks: add thumbnails to the pairs.
        progress: show progress bars on stderr.

    Raises:
        ManifestError: a root is no folder.
        SettingError: an impossible threshold or number of jobs.
        WriteError: the cache cannot be written.
    """
    if not 0 < threshold <= 1:
        raise SettingError(
            f"threshold: {threshold:g} is no correlation; give a number above 0 and up to 1, such as {THRESHOLD:g}",
            code="setting.threshold",
        )
    count = processes(jobs)
    roots = [Path(first_root), Path(first_root if second_root is None else second_root)]
    lists = [first.entries, () if second is None else second.entries]
    for root, entries in zip(roots, lists, strict=True):
        if entries and not root.is_dir():
            raise ManifestError(
                f"{root.name}: no such folder; give the one that the paths start from", code="manifest.root"
            )
    with _folder(cache) as folder:
        work = [
            FingerprintJob(number, entry.id, root, entry.image, folder)
            for number, (entry, root) in enumerate(
                (entry, root) for entries, root in zip(lists, roots, strict=True) for entry in entries
            )
        ]
        results = run_jobs(take_fingerprint, work, min(count, len(work)), died)
        taken = list(shown(results, len(work), "fingerprints", progress))
        good = {result.number: result for result in taken if result.problem is None}
        border = None if second is None else len(first.entries)
        search = LeakageSearch(good, border, folder, threshold, count, progress)
        return _summary(first, second, search, [result.problem for result in taken if result.problem], looks)


def _summary(
    first: Manifest, second: Manifest | None, search: LeakageSearch, problems: list[Problem], looks: bool
) -> LeakageSummary:
    found, notes = search.run(), []
    entries = [*first.entries, *(second.entries if second else ())]
    if second is None:
        kept = [(match, kind) for match, kind in found if not _expected(first, match, kind)]
        if len(kept) < len(found):
            left_out = len(found) - len(kept)
            notes.append(f"{left_out} near-duplicates of one patient within one split are expected, and left out")
        found = kept
    for one, other in search.lost:
        sentence = f"{entries[one].id}: not compared with {entries[other].id}, whose fingerprint is gone; run again"
        problems.append(Problem("leakage.not_compared", entries[one].id, sentence))
    pairs = []
    for place, (match, kind) in enumerate(found):
        pictures = _looks(search, match) if looks and place < PICTURED else None
        pairs.append(LeakPair(entries[match.first], entries[match.second], kind, round(match.score, 4), pictures))
    return LeakageSummary(
        first, second, pairs, known_overlaps(first, second), sorted(problems), len(search.taken), notes
    )


@contextmanager
def _folder(cache: str | os.PathLike[str] | None) -> Iterator[Path]:
    if cache is not None:
        check_output(cache)  # before hours of reading
        yield Path(cache)
        return
    with tempfile.TemporaryDirectory(prefix="fingerprints-") as folder:
        yield Path(folder)


def _expected(manifest: Manifest, match: Match, kind: str) -> bool:
    one, other = manifest.entries[match.first], manifest.entries[match.second]
    return kind == KINDS[2] and one.patient == other.patient and one.split == other.split


def _looks(search: LeakageSearch, match: Match) -> tuple[np.ndarray, np.ndarray] | None:
    one, other = search.thumbnail(match.first), search.thumbnail(match.second)
    if one is None or other is None:
        return None
    turned = turned_signatures(signature(other)[None], other.ndim)[:, 0]
    nearest = int(np.square(turned - signature(one)).sum(axis=1).argmin())
    return one, all_turns(other.ndim)[nearest].apply(other)
