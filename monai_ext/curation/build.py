"""A manifest of a downloaded folder: which scans lie in it, of which data set, patient and split, with checksums."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from monai_ext.base import ManifestError
from monai_ext.curation.build_cards import Chosen, choose_card, generic_images, shipped_descriptions
from monai_ext.curation.build_labels import add_label_names, is_nnunet
from monai_ext.curation.checksum_notes import ChecksumNotes, state_of
from monai_ext.curation.dataset_files import list_files
from monai_ext.curation.drafts import base_name, by_patient, drafts_of, entries_of
from monai_ext.curation.layouts import FoundImage
from monai_ext.curation.problems import Problem
from monai_ext.curation.progress import processes, shown
from monai_ext.curation.scan_files import FileJob, SeriesFound, checksum_of, died, folder_died, series_of
from monai_ext.curation.targets import check_manifest_target
from monai_ext.manifests import Manifest, ManifestEntry, write_manifest
from monai_ext.volumes.checksums import source_files
from monai_ext.volumes.prepare_pool import run_jobs


@dataclass
class BuildSummary:
    """What became of a folder.

    Attributes:
        path: the manifest written.
        manifest: its content.
        told: how the data set was recognised, in a sentence.
        left_out: base names by the reason why they were left out.
        without_label: ids of entries without a label although others of their rule have one.
        other: how many other files there are, by their ending.
        junk: how many hidden files and leftovers of systems were passed over.
        reused: how many checksums were taken over from an earlier run.
        problems: what is wrong; such files are not in the manifest.
    """

    path: Path
    manifest: Manifest
    told: str
    left_out: dict[str, list[str]] = field(default_factory=dict)
    without_label: list[str] = field(default_factory=list)
    other: Mapping[str, int] = field(default_factory=dict)
    junk: int = 0
    reused: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """1 if there is a problem, else 0."""
        return 1 if self.problems else 0


def build_manifest(
    root: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    dataset: str | None = None,
    split: str = "unassigned",
    jobs: int | None = None,
    checksums: bool = True,
    progress: bool = False,
) -> BuildSummary:
    """Scan a folder into a manifest.

    The layouts of the data sets that are shipped are known; a folder of none of them becomes a list of what it
    holds, of unknown licence. Killed and started again, it goes on: checksums of files that did not change since are
    not taken again. A file that cannot be used is a problem, and the rest goes on.

    Args:
        root: the folder that a download was unpacked into; links are not followed out of it.
        out: the file to write, ``manifest.json`` in the root by default. Its paths start from the root.
        dataset: the data set that it is, an id or a file that describes one; recognised by the layout by default.
        split: the list for scans that the layout puts into none.
        jobs: processes; as many as cores by default, 0 to work in this process.
        checksums: take the SHA-256 of every image and label.
        progress: show a progress bar on stderr.

    Raises:
        ManifestError: no such folder or data set, nothing in it, several data sets, or an ambiguous layout.
        SettingError: an impossible number of jobs, or a file to write that is no ``.json`` or is read from.
        WriteError: the manifest could not be written.
    """
    top, count = Path(root).absolute(), processes(jobs)
    target = Path(out).absolute() if out is not None else top / "manifest.json"
    if top.is_dir():  # else `list_files` says what is wrong with it
        check_manifest_target(target, *([] if dataset is None else [dataset]))
    files = list_files(top, avoid=target)
    _refuse_empty(top, len(files.paths), files.problems)
    chosen = choose_card(files.paths, top, dataset, shipped_descriptions())
    images = chosen.images if chosen.known else generic_images(chosen, files.paths)
    problems = [*files.problems, *chosen.problems]
    add_label_names(chosen, top)
    if is_nnunet(top):
        chosen.told += "; the folder has the form of nnU-Net, which 'manifest import-nnunet' reads"
    folders = [FileJob(top, image.path) for image in images if image.path.endswith("/")]
    series = _find_series(folders, count, progress, chosen, problems)
    drafts = drafts_of([image for image in images if series.get(image.path, True)], series)
    if not chosen.known:
        drafts = by_patient(drafts, series)
    drafts = [replace(draft, split=split) if draft.split == "unassigned" else draft for draft in drafts]
    entries, shared = entries_of(drafts, chosen.card.id)
    problems += shared
    reused = 0
    if checksums:
        entries, reused = _with_checksums(entries, top, target, count, progress, problems)
    _refuse_empty(top, len(entries), problems)
    manifest = chosen.manifest(entries)
    write_manifest(target, manifest)
    return BuildSummary(
        target,
        manifest,
        chosen.told,
        {reason: [base_name(path) for path in paths] for reason, paths in sorted(chosen.left_out.items())},
        _without_label(images, entries),
        files.other,
        files.junk,
        reused,
        sorted(problems),
    )


def _refuse_empty(top: Path, count: int, problems: Sequence[Problem]) -> None:
    if not count:
        why = f" that can be used ({problems[0].sentence.partition('; ')[0]})" if problems else ""
        raise ManifestError(
            f"{top.name}: the folder holds no scan or picture{why}; give the folder of an unpacked download",
            code="build.empty",
        )


def _find_series(
    folders: Sequence[FileJob], count: int, progress: bool, chosen: Chosen, problems: list[Problem]
) -> dict[str, list[SeriesFound]]:
    """Return the usable series of each folder; the others go to what is left out or to the problems."""
    found: dict[str, list[SeriesFound]] = {}
    results = run_jobs(series_of, folders, min(count, len(folders)), folder_died)
    for result in shown(results, len(folders), "sorting DICOM folders", progress):
        if result.problem:
            problems.append(result.problem)
        # X-rays and localizers of the same study are no scans of a set of CT.
        wanted = [one for one in result.series if one.modality in ("", "CT") or not chosen.is_ct]
        for one in set(result.series) - set(wanted):
            chosen.left_out.setdefault(f"series of modality {one.modality[:8]}, not CT", []).append(one.path)
        found[result.path] = wanted
    return found


def _with_checksums(
    entries: Sequence[ManifestEntry], top: Path, target: Path, count: int, progress: bool, problems: list[Problem]
) -> tuple[list[ManifestEntry], int]:
    """Return the entries with checksums, without those that cannot be read."""
    notes, sums = ChecksumNotes(target), dict[str, str]()
    paths = dict.fromkeys(path for entry in entries for path in (entry.image, entry.label) if path)
    waiting = []
    for path in paths:
        known = notes.get(_state(top, path))
        if known:
            sums[path] = known
        else:
            waiting.append(FileJob(top, path))
    reused = len(sums)
    results = run_jobs(checksum_of, waiting, min(count, len(waiting)), died)
    try:
        for result in shown(results, len(waiting), "taking checksums", progress):
            if result.checksum:
                sums[result.path] = result.checksum
                notes.add(result.state, result.checksum)
            elif result.problem:
                problems.append(result.problem)
    except BaseException:
        notes.keep()
        raise
    notes.write()
    kept = [entry for entry in entries if entry.image in sums]
    return [
        replace(
            entry,
            sha256=sums[entry.image],
            # A label that cannot be read is told as a problem; its image is sound.
            label=entry.label if entry.label in sums else None,
            label_sha256=sums.get(entry.label or ""),
        )
        for entry in kept
    ], reused


def _state(top: Path, path: str) -> str | None:
    try:
        return None if "#" in path else state_of(path, source_files(top / path, base_name(path)))
    except (OSError, ValueError):
        return None  # taking its checksum will say why


def _without_label(images: Sequence[FoundImage], entries: Sequence[ManifestEntry]) -> list[str]:
    labelled = {image.path.rstrip("/") for image in images if image.rule.label}
    return [entry.id for entry in entries if entry.label is None and entry.image.partition("#")[0] in labelled]
