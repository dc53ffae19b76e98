"""The scans that a MONAI datalist names, with their labels."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from monai_ext.manifests import DatalistEntry, load_datalist, read_datalist
from monai_ext.volumes.prepare_source import Found, Source


def from_datalist(path: Path, root: Path | None, sections: Sequence[str] | None) -> Found:
    """List the scans of a datalist, each once.

    Raises:
        ManifestError: it is malformed, or has no such section.
    """
    entries = read_datalist(path, root, sections)
    folder = (Path(root) if root is not None else path.parent).resolve()
    sources: dict[str, Source] = {}
    for entry in entries:
        new = _listed(entry, folder, f"{entry.section}: scan {len(sources)}")
        known = sources.setdefault(new.relative, new)
        if known.label_relative != new.label_relative:
            problem = (
                f"{entry.case}: it is listed twice with different labels; list each scan with one label, "
                "or prepare one section at a time"
            )
            sources[new.relative] = replace(known, problem=problem, problem_code="manifest.two_labels")
    return Found(folder, list(sources.values()), label_names=_label_names(path))


def _listed(entry: DatalistEntry, root: Path, place: str) -> Source:
    if entry.image is None:
        code = entry.problem.code if entry.problem else ""
        return Source(root / place, place, entry.case, problem=str(entry.problem), problem_code=code)
    label = None if entry.label is None else entry.label.relative_to(root).as_posix()
    return Source(entry.image, entry.image.relative_to(root).as_posix(), entry.case, entry.label, label)


def _label_names(path: Path) -> dict[int, str]:
    # {"1": "liver"} in the decathlon's files, {"liver": 1} in nnU-Net's.
    labels = load_datalist(path).get("labels")
    pairs = labels.items() if isinstance(labels, dict) else ()
    if all(isinstance(name, str) and key.isdigit() for key, name in pairs):
        return {int(key): name for key, name in pairs}
    if all(isinstance(number, int) for _, number in pairs):
        return {number: name for name, number in pairs}
    return {}
