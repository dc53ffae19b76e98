"""Where a result came from: versions, checksums, settings and how the run went, free of patient data."""

import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from monai_ext._paths import bundle_path
from monai_ext._version import __version__
from monai_ext.base import replacing, sha256_of

FORMAT = "monai_ext.provenance.1"
STATES = ("running", "completed", "failed")
_PACKAGES = (
    *("torch", "monai", "pytorch-ignite", "numpy", "scipy", "nibabel", "SimpleITK", "pydicom", "blosc2"),
    *("open_clip_torch", "safetensors", "einops", "highdicom", "monailabel"),
)


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python, this package and the libraries that results depend on."""
    found = {"python": platform.python_version(), "monai-ext": __version__}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # an extra that is not installed
    return found


@cache
def git_commit() -> str | None:
    """Return the commit of the checkout that this package runs from, ``None`` for an installed one."""
    root, git = Path(__file__).resolve().parents[2], shutil.which("git")
    if git is None or not (root / ".git").exists():
        return None
    found = subprocess.run([git, "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


def settings_sha256(settings: Mapping[str, Any]) -> str:
    """Return a checksum of settings that does not depend on their order.

    >>> settings_sha256({"a": 1, "b": [2, 3]}) == settings_sha256({"b": (2, 3), "a": 1})
    True
    """
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def changed_settings(bundle: str, config: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that differ from those that a bundle ships, as far as these are plain values there.

    Args:
        bundle: name of a shipped bundle.
        config: name of its configuration; of several that are laid over one another ``"FIRST+SECOND"``.
        settings: the run's, by the names of the configuration.
    """
    shipped: dict[str, Any] = {}
    for name in config.split("+"):
        text = (Path(bundle_path(bundle)) / "configs" / f"{name}.json").read_text(encoding="utf-8")
        shipped |= json.loads(text)
    same = json.loads(json.dumps(settings, default=str))
    return {name: value for name, value in same.items() if name in shipped and shipped[name] != value}


def without_folders(value: Any) -> Any:
    """Return a setting, of a path to a file or folder only the base name; folders may be called after patients.

    >>> without_folders("/data/clip.pt"), without_folders("hf-hub:owner/clip"), without_folders(0.5)
    ('clip.pt', 'hf-hub:owner/clip', 0.5)
    """
    if not isinstance(value, str):
        return value
    kind, _, rest = value.rpartition(":")  # such as "local-dir:FOLDER"
    if rest and (os.path.isabs(rest) or (os.sep in rest and os.path.exists(rest))):
        return (kind and f"{kind}:") + os.path.basename(os.path.normpath(rest))
    return value


def input_sha256(path: str | os.PathLike[str]) -> str | None:
    """Return the checksum of an input: of a file its bytes, of a folder those of its files, in no order.

    One series of several in a folder (``FOLDER#3``) has none of its own; ``scan_sha256`` tells those apart.
    """
    path = Path(path)
    if path.is_file():
        return sha256_of(path)
    if not path.is_dir():
        return None
    each = sorted(sha256_of(file) for file in path.iterdir() if file.is_file())
    return hashlib.sha256("".join(each).encode()).hexdigest()


def data_sha256(path: str | os.PathLike[str]) -> str | None:
    """Return the checksum of a training's data: of a list its bytes, of a volume store its sidecars with their names.

    The sidecars hold the checksums of all chunks, so they stand for the voxels.
    """
    path = Path(path)
    if not path.is_dir():
        return sha256_of(path) if path.is_file() else None
    whole = hashlib.sha256()
    for file in sorted(path.glob("*.json")):
        whole.update(f"{file.name}\n{sha256_of(file)}\n".encode())
    return whole.hexdigest()


def weights_sha256(path: str | os.PathLike[str] | None) -> str | None:
    """Return the checksum of a file of weights, ``None`` where there is no such file, such as for a tag of a hub."""
    return sha256_of(path) if path is not None and Path(path).is_file() else None


def now() -> str:
    """Return the time, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def origin(
    bundle: str,
    config: str,
    settings: Mapping[str, Any],
    *,
    weights_sha256: Mapping[str, str | None],
    device: str,
    precision: str,
    ranks: int = 1,
    seed: int | None = None,
) -> dict[str, Any]:
    """Return the entries of ``monai_ext.provenance.1`` for what begins now; how it ends is still to come.

    Args:
        bundle: name of the shipped bundle.
        config: see `changed_settings`.
        settings: what shapes the result, see `without_folders`.
        weights_sha256: checksums of the weights by what they are.
        device: as it is told.
        precision: as the configuration has it.
        ranks: how many compute.
        seed: of a training.
    """
    return {
        "format": FORMAT,
        "state": "running",
        "started": now(),
        "seconds": None,
        "bundle": bundle,
        "config": config,
        "versions": versions(),
        "git_commit": git_commit(),
        "settings_sha256": settings_sha256(settings),
        "changed_settings": changed_settings(bundle, config, settings),
        "weights_sha256": dict(weights_sha256),
        "device": device,
        "ranks": ranks,
        "precision": precision,
        "seed": seed,
        "inputs": None,
        "cases_done": None,
        "cases_failed": None,
        "warnings": {},
        "error": None,
    }


def write_provenance(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write a provenance file whole or not at all.

    Raises:
        WriteError: it could not be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
