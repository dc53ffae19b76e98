"""The folder of an app: two lines of Python for the server, what to serve, the weights, and all that it keeps."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_ext import bundle_path
from monai_ext.base import SettingError, WeightsError, WriteError, check_output, copy_weights, inside, replacing

MAIN = '''"""MONAI Label looks here for an app; what it serves stands in app.json."""

from monai_ext.label.app import CtLabelApp  # noqa: F401
'''
SEGMENT, LOCALIZE = "hi_end_mae_ct_segmentation", "aa_clip_lesion_localization"
_DESCRIPTION = "app.json"
_PLACES = {
    "weights": "model/segmentation.pt",
    "adapters": "model/adapters.safetensors",
    "calibration_file": "model/calibration.json",
}


@dataclass(frozen=True)
class AppSettings:
    """What an app serves.

    Attributes:
        segmentation: ``bundle``, ``configs``, ``train_configs``, ``settings`` and ``files`` (paths in the folder by
            the setting that they are), or ``None`` where there is no such model.
        localization: the same without ``train_configs`` and with ``classes``.
    """

    segmentation: dict[str, Any] | None
    localization: dict[str, Any] | None


def segmentation_part(
    weights: Path | None, tiny: bool = False, settings: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Describe the segmentation; without weights it can only be trained."""
    return {
        "bundle": SEGMENT,
        "configs": ["inference", "tiny"] if tiny else ["inference"],
        "train_configs": ["train", "tiny", "tiny_train"] if tiny else ["train"],
        "settings": dict(settings or {}),
        "files": {"weights": str(weights) if weights else None},
    }


def localization_part(
    adapters: Path,
    classes: Sequence[str],
    calibration: Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Describe the localization.

    Raises:
        SettingError: no class to look for.
    """
    if not classes:
        raise SettingError("class: name at least one to look for lesions in (--class liver)", code="setting.class")
    files = {"adapters": str(adapters)} | ({"calibration_file": str(calibration)} if calibration else {})
    return {
        "bundle": LOCALIZE,
        "configs": ["inference"],
        "settings": {"overlay": False, **(settings or {})},
        "files": files,
        "classes": list(classes),
    }


def write_app(folder: Path, segmentation: dict[str, Any] | None, localization: dict[str, Any] | None) -> Path:
    """Write an app's folder; weights are copied into it, for a training replaces them there.

    Args:
        folder: new, empty, or of an app whose models are replaced.
        segmentation: of `segmentation_part`, or ``None``.
        localization: of `localization_part`, or ``None``.

    Returns:
        The folder.

    Raises:
        SettingError: nothing to serve, or an entry that the bundle's configuration does not have.
        WriteError: the folder holds something else than an app, or an app with weights that would be left out.
        WeightsError: a file of weights is missing.
    """
    if segmentation is None and localization is None:
        raise SettingError("app: nothing to serve; give --weights, --adapters or --demo", code="label.nothing")
    check_output(folder)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _DESCRIPTION).is_file():
        raise WriteError(f"{folder.name}: the folder holds something else; choose a new one", code="label.folder")
    described = {"segmentation": segmentation, "localization": localization}
    for part in filter(None, described.values()):
        _check_settings(part)
        kept = [name for name, source in part["files"].items() if source is None and (folder / _PLACES[name]).exists()]
        if kept:
            raise WriteError(
                f"{folder.name}: the app there has weights already; choose a new folder to begin without",
                code="label.folder",
            )
    for part in filter(None, described.values()):
        for setting, source in part["files"].items():
            if source is not None:
                _copy(Path(source), folder / _PLACES[setting])
            part["files"][setting] = _PLACES[setting]
    with replacing(folder / _DESCRIPTION) as path:
        path.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    with replacing(folder / "main.py") as path:
        path.write_text(MAIN, encoding="utf-8")
    return folder


def read_app(folder: Path) -> AppSettings:
    """Read what an app serves.

    Raises:
        SettingError: no app lies there.
        ManifestError: its weights lie outside the folder.
    """
    try:
        (folder / "main.py").read_bytes()
        content = json.loads((folder / _DESCRIPTION).read_text(encoding="utf-8"))
        found = AppSettings(content["segmentation"], content["localization"])
        names = [name for part in (found.segmentation, found.localization) if part for name in part["files"].values()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingError(
            f"{folder.name}: no app ({_DESCRIPTION} or main.py is missing or damaged); write one with label-app",
            code="label.folder",
        ) from error
    for name in names:
        inside(folder, name)
    return found


def _check_settings(part: Mapping[str, Any]) -> None:
    folder = Path(bundle_path(part["bundle"])) / "configs"
    known = set(json.loads((folder / "inference.json").read_text(encoding="utf-8")))
    unknown = [name for name in part["settings"] if name.partition("#")[0] not in known]
    if unknown:
        raise SettingError(
            f"--set {unknown[0]}: no entry of {part['bundle']}/configs/inference.json; look there for its name",
            code="setting.set",
        )


def _copy(source: Path, target: Path) -> None:
    if not source.is_file():
        raise WeightsError(f"{source.name}: there is no such file of weights; check the path", code="weights.missing")
    copy_weights(source, target)
