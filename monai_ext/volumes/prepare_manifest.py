"""The scans of a manifest, with their labels, checksums and origins."""

import re
from collections.abc import Sequence
from pathlib import Path

from monai_ext.base import ManifestError, inside
from monai_ext.manifests import SPLITS, Manifest, ManifestEntry, sift_manifest
from monai_ext.volumes.prepare_source import Found, Source
from monai_ext.volumes.store_record import Origin

# Problems of an entry beside another one; the entry itself is then among the good ones.
_BETWEEN = ("manifest.patient_in_two_splits", "manifest.image_in_two_splits")


def from_manifest(path: Path, root: Path | None, splits: Sequence[str] | None) -> Found:
    """List the scans of a manifest; what is wrong with an entry is told in its place, and the others go on.

    Raises:
        ManifestError: the manifest is of another version, what it says of its data sets is malformed, or it has no
            such split.
    """
    manifest, problems = sift_manifest(path)
    lone = [problem for problem in problems if problem.code not in _BETWEEN]
    there = [split for split in SPLITS if split in {*map(_split_of, lone), *(item.split for item in manifest.entries)}]
    for split in splits or ():
        if split not in there:
            raise ManifestError(
                f"{path.name}: no scans in {split!r}; it has {', '.join(map(repr, there)) or 'none at all'}",
                code="manifest.section",
            )
    chosen = splits or there
    folder = (Path(root) if root is not None else path.parent).resolve()
    beside = {problem.case: problem for problem in reversed(problems) if problem.code in _BETWEEN}
    sources: dict[str, Source] = {}
    for entry in manifest.entries:
        if entry.split in chosen:
            problem = beside.get(entry.id) or _problem(entry, folder, sources)
            source = _source(entry, manifest, folder) if problem is None else _refused(entry.id, folder, problem)
            sources[source.relative] = source
    # Called by their places, for an id that is given twice is the name of a good entry.
    refused = [
        _refused(str(problem).partition(":")[0], folder, problem) for problem in lone if _split_of(problem) in chosen
    ]
    return Found(folder, [*sources.values(), *refused])


def _split_of(problem: ManifestError) -> str:
    # Sentences about an entry begin with its place, such as "training[3] (liver_7): ".
    return re.split(r"\W", str(problem), maxsplit=1)[0]


def _problem(entry: ManifestEntry, root: Path, sources: dict[str, Source]) -> ManifestError | None:
    if entry.image in sources:
        return ManifestError(
            f"{entry.id}: {sources[entry.image].case} has the same image; list each scan once",
            code="manifest.image_twice",
        )
    for what, relative in (("image", entry.image), ("label", entry.label)):
        try:
            if relative is not None:
                inside(root, relative)
        except ManifestError as error:
            return ManifestError(
                f"{entry.id}: a link leads its {what} out of the root folder; put the file itself there, or prepare "
                "from a root folder that holds both (--root)",
                code=error.code,
            )
    return None


def _source(entry: ManifestEntry, manifest: Manifest, root: Path) -> Source:
    card = manifest.datasets[entry.dataset]
    return Source(
        root / entry.image,
        entry.image,
        entry.id,
        None if entry.label is None else root / entry.label,
        entry.label,
        sha256=entry.sha256,
        label_sha256=entry.label_sha256,
        label_names=card.label_names or manifest.labels or {},
        origin=Origin(entry.dataset, card.licence, entry.group, entry.split, entry.weight),
    )


def _refused(case: str, root: Path, problem: ManifestError) -> Source:
    sentence = f"{case}: {str(problem).removeprefix(f'{case}: ')}"
    return Source(root / case, case, case, problem=sentence, problem_code=problem.code)
