"""Whether a manifest and the files that it lists can be trusted."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from monai_ext.base import ManifestError
from monai_ext.curation.problems import Problem
from monai_ext.curation.progress import processes, shown
from monai_ext.curation.verify_entry import EntryJob, died, verify_entry
from monai_ext.manifests import Manifest, ManifestEntry, sift_manifest
from monai_ext.volumes.prepare_pool import run_jobs


@dataclass
class ManifestVerification:
    """What was found.

    Attributes:
        manifest: with the entries that could be looked at.
        problems: everything that is wrong, sorted.
        notes: what could not be checked, or should be known, without being wrong.
    """

    manifest: Manifest
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """1 if there is a problem, else 0."""
        return 1 if self.problems else 0


def verify_manifest(
    path: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    *,
    jobs: int | None = None,
    checksums: bool = True,
    deep: bool = False,
    assume_hu: bool = False,
    progress: bool = False,
) -> ManifestVerification:
    """Check a manifest and every file that it lists; nothing that is wrong with one keeps the others from it.

    The form of the manifest and of each entry; patients and images in one split only; files present, unchanged and
    readable; labels on the grid of their image and with known ids (label volumes are always read whole); the same
    image listed twice under other names.

    Args:
        path: the manifest.
        root: the folder that its paths start from; its own by default.
        jobs: processes; as many as cores by default, 0 to work in this process.
        checksums: read every file and compare its SHA-256; also finds images listed twice.
        deep: read the voxels of images too, rather than their headers.
        assume_hu: accept other modalities than CT, and with ``deep`` values that do not look like HU.
        progress: show a progress bar on stderr.

    Raises:
        ManifestError: the manifest cannot be read, is of another version, describes its data sets wrongly, lists
            nothing, or the root is no folder.
        SettingError: an impossible number of jobs.
    """
    count = processes(jobs)
    path = Path(path)
    manifest, faults = sift_manifest(path)
    folder = Path(root) if root is not None else path.parent
    if not folder.is_dir():
        raise ManifestError(
            f"{folder.name}: no such folder; give the one that the paths start from", code="manifest.root"
        )
    if not manifest.entries and not faults:
        raise ManifestError(
            f"{path.name}: describes data sets but lists no scan; 'manifest build' lists those of a folder",
            code="manifest.empty",
        )
    ids = _label_ids(manifest)
    work = [EntryJob(entry, folder, ids[entry.dataset], checksums, deep, assume_hu) for entry in manifest.entries]
    problems = [Problem(fault.code, fault.case or path.name, str(fault)) for fault in faults]
    sums: dict[str, str] = {}
    for result in shown(run_jobs(verify_entry, work, min(count, len(work)), died), len(work), "verifying", progress):
        problems += result.problems
        if result.sha256:
            sums[result.id] = result.sha256
    problems += _twice(manifest.entries, sums)
    return ManifestVerification(manifest, sorted(problems), _notes(manifest, ids, checksums, deep))


def _label_ids(manifest: Manifest) -> dict[str, tuple[int, ...] | None]:
    """Return the ids that labels of each data set may hold, ``None`` where nothing says so."""
    ids = {key: tuple(sorted(card.label_names)) or None for key, card in manifest.datasets.items()}
    if manifest.labels is None:
        return ids
    shared = tuple(sorted(manifest.labels))
    return dict.fromkeys(ids, shared)


def _twice(entries: Sequence[ManifestEntry], sums: Mapping[str, str]) -> list[Problem]:
    """Find images that are the same file, and tell whether they lie in different splits."""
    same = defaultdict(list)
    for entry in entries:
        if entry.id in sums:
            same[sums[entry.id]].append(entry)
    problems = []
    for first, *others in same.values():
        for other in others:
            apart = other.split != first.split
            where = f"in {other.split}, and {first.id} in {first.split}" if apart else f"twice in {first.split}"
            sentence = f"{other.id}: its image is the same file as that of {first.id}, {where}; leave one out"
            kind = "image.in_two_splits" if apart else "image.twice"
            problems.append(Problem(kind, other.id, sentence))
    return problems


def _notes(manifest: Manifest, ids: Mapping[str, tuple[int, ...] | None], checksums: bool, deep: bool) -> list[str]:
    notes = []
    unknown = [key for key, card in manifest.datasets.items() if card.licence == "unknown"]
    if unknown:
        notes.append(f"licence unknown: {', '.join(unknown)}; find it out before you use or share these scans")
    bare = sum(entry.sha256 is None for entry in manifest.entries)
    if not checksums:
        notes.append("checksums were not compared, and images listed twice not looked for")
    elif bare:
        notes.append(f"{bare} entries have no checksum to compare; 'manifest build' notes them")
    nameless = sorted({entry.dataset for entry in manifest.entries if entry.label and ids[entry.dataset] is None})
    volumes = [key for key in nameless if not _is_pictures(manifest, key)]
    if volumes:
        notes.append(f"label ids were not checked, for nothing names those of {', '.join(volumes)}")
    if not deep:
        notes.append("voxels of images were not read; --deep reads them")
    return notes


def _is_pictures(manifest: Manifest, dataset: str) -> bool:
    return all(entry.abnormal is not None for entry in manifest.entries if entry.dataset == dataset)
