"""Files to write: refused before the work begins where they would replace what cannot be made again."""

import os
from pathlib import Path

from monai_ext.base import ManifestError, SettingError, check_output
from monai_ext.manifests import is_manifest, load_datalist


def check_manifest_target(target: str | os.PathLike[str], *inputs: str | os.PathLike[str]) -> None:
    """Refuse to write a manifest over a file that it is made from, or over one that is no manifest.

    Args:
        target: the manifest to write; one that was written earlier may be there, and is replaced.
        inputs: the files that it is made from.

    Raises:
        SettingError: the target is no ``.json`` file, or an input.
        ManifestError: something else than a manifest is there, such as the ``dataset.json`` of a download.
        WriteError: its folder cannot be written.
    """
    path = Path(target)
    if path.suffix.lower() != ".json":
        # Scans have other endings, so that none is ever replaced.
        raise SettingError(f"{path.name}: a manifest is a .json file; name it so", code="setting.target")
    _check_inputs(path, inputs)
    if path.is_file():
        try:
            found = is_manifest(load_datalist(path))
        except ManifestError:
            found = False
        if not found:
            raise ManifestError(
                f"{path.name}: a file that is no manifest is there already; give another name, or take it away",
                code="manifest.target",
            )
    check_output(path.absolute().parent)


def check_report_target(target: str | os.PathLike[str], *inputs: str | os.PathLike[str]) -> None:
    """Refuse to write a report over a file that it tells of, or into a folder that cannot be written.

    Raises:
        SettingError: the target is an input.
        WriteError: its folder cannot be written.
    """
    _check_inputs(Path(target), inputs)
    check_output(Path(target).absolute().parent)


def _check_inputs(path: Path, inputs: tuple[str | os.PathLike[str], ...]) -> None:
    for one in inputs:
        # By what the system says, for a link or another way of writing leads to the same file.
        if path.exists() and os.path.exists(one) and os.path.samefile(path, one):
            raise SettingError(
                f"{path.name}: it is read from, and would be replaced; give another name to write",
                code="setting.target",
            )
