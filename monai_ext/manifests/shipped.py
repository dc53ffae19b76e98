"""The manifests that come with the package."""

from pathlib import Path

from monai_ext._paths import manifest_path
from monai_ext.base import ManifestError
from monai_ext.manifests.manifest import DatasetCard, Manifest
from monai_ext.manifests.reading import read_manifest


def shipped_manifests() -> dict[str, Path]:
    """Return the files of the shipped manifests by name, such as ``"msd_spleen"`` or ``"lists/voco_10k"``."""
    folder = Path(manifest_path("manifest.schema.json")).parent
    files = sorted(path for path in folder.rglob("*.json") if path.name != "manifest.schema.json")
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}


def read_shipped(name: str) -> Manifest:
    """Read a shipped manifest.

    Raises:
        ManifestError: none of that name is shipped.
    """
    known = shipped_manifests()
    if name not in known:
        raise ManifestError(
            f"{name}: no manifest of that name is shipped; choose one of {', '.join(known) or 'none'}",
            code="manifest.unknown",
        )
    return read_manifest(known[name])


def shipped_cards() -> dict[str, DatasetCard]:
    """Return the shipped description of each data set by its id."""
    return {name: read_shipped(name).datasets[name] for name in shipped_manifests() if "/" not in name}
