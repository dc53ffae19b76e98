"""Reading manifests: everything that is wrong with one is found, and told at once."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_ext.base import ManifestError
from monai_ext.manifests.cards import read_card, sources_of
from monai_ext.manifests.datalist import load_datalist
from monai_ext.manifests.entries import read_entries
from monai_ext.manifests.manifest import SPLITS, Manifest
from monai_ext.manifests.schema import VERSION, head_problems

_SHOWN = 3


def is_manifest(content: Mapping[str, Any]) -> bool:
    """Say whether a JSON object is a manifest, rather than a plain MONAI datalist: it tells its version."""
    return "schema_version" in content


def read_manifest(path: str | Path) -> Manifest:
    """Read a manifest and refuse it if anything is wrong.

    Args:
        path: a JSON file; its form is ``data_manifests/manifest.schema.json``.

    Raises:
        ManifestError: it cannot be read, or does not have the form; the first problems are told and all counted.
    """
    manifest, problems = sift_manifest(path)
    refuse(problems, Path(path).name)
    return manifest


def sift_manifest(path: str | Path, name: str | None = None) -> tuple[Manifest, list[ManifestError]]:
    """Read a manifest and set aside the entries that cannot be used.

    Args:
        path: a JSON file.
        name: what sentences call it; its base name by default.

    Returns:
        The manifest with its good entries, and one problem for each thing that is wrong between entries or with
        one: an entry without its own fault, whose patient is in two splits, is kept.

    Raises:
        ManifestError: it cannot be read, is of another version, or the descriptions of data sets are wrong.
    """
    path = Path(path)
    name = name or path.name
    content = load_datalist(path)
    version = _version(content, name)
    newer = version != VERSION
    head = {key: [] if key in SPLITS and isinstance(value, list) else value for key, value in content.items()}
    problems = [
        ManifestError(f"{name}, {place}: {what}; correct it", code="manifest.schema")
        for place, what in head_problems(head, newer)
    ]
    refuse(problems, name)
    datasets = {key: read_card(key, value) for key, value in content["datasets"].items()}
    sources = content.get("sources", {})
    problems = list(_unknown_sources(sources_of(list(datasets.values())), sources, name))
    refuse(problems, name)
    entries, problems = read_entries(content, datasets.keys(), newer)
    labels = content.get("labels")
    manifest = Manifest(
        name=content["name"],
        datasets=datasets,
        title=content.get("title", ""),
        status=content.get("status", ""),
        sources=sources,
        labels=None if labels is None else {int(key): name for key, name in labels.items()},
        entries=tuple(entries),
    )
    return manifest, problems


def refuse(problems: Sequence[ManifestError], name: str) -> None:
    """Raise one error that tells the first problems and counts them all, if there are any."""
    if len(problems) == 1:
        told = str(problems[0])
        told = told if told.startswith(name) else f"{name}, {told}"
        raise ManifestError(told, code=problems[0].code, case=problems[0].case)
    if problems:
        shown = " | ".join(str(problem).removeprefix(f"{name}, ") for problem in problems[:_SHOWN])
        rest = f" | and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise ManifestError(f"{name}: {len(problems)} problems: {shown}{rest}", code=problems[0].code)


def _version(content: Mapping[str, Any], name: str) -> str:
    if not is_manifest(content):
        raise ManifestError(
            f"{name}: no schema_version, so it is no manifest; 'python -m monai_ext manifest build' makes one of a "
            "folder of scans",
            code="manifest.no_version",
        )
    version = content["schema_version"]
    if not isinstance(version, str) or not re.fullmatch(r"1\.[0-9]{1,4}", version):
        raise ManifestError(
            f"{name}: schema_version is {str(version)[:20]!r}, but this package reads 1.x (it writes {VERSION}); "
            "install the monai-ext that made it, or convert the file",
            code="manifest.version",
        )
    return version


def _unknown_sources(named: set[str], sources: Mapping[str, Any], name: str) -> Iterator[ManifestError]:
    for key in sorted(named - sources.keys()):
        yield ManifestError(
            f"{name}: source {key!r} is named by a fact but missing from sources; add it with kind and locator",
            code="manifest.source",
        )
