"""Checking a whole bundle: each file by what it is."""

import os
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from monai_ext.audit.config_files import ConfigJudge, aliases_of, entries_of, load
from monai_ext.audit.files import files_in, judge_code, opened
from monai_ext.audit.findings import BundleFinding, Findings
from monai_ext.audit.large_files import judge_beside, judge_large_files
from monai_ext.audit.log_files import judge_logging
from monai_ext.audit.pickles import judge_data
from monai_ext.audit.references import Entries
from monai_ext.base import SettingError

_CONFIGS = (".json", ".yaml", ".yml")


@dataclass(frozen=True)
class BundleReport:
    """What a bundle would use.

    Attributes:
        name: of the bundle's folder or zip.
        files: how many there are.
        findings: in the order of the files.
    """

    name: str
    files: int
    findings: tuple[BundleFinding, ...]

    @property
    def refused(self) -> list[BundleFinding]:
        """What is outside the list."""
        return [one for one in self.findings if one.refused]

    def counts(self) -> dict[str, tuple[int, int]]:
        """Return how many things of each kind there are, and how many of them are refused."""
        every, bad = Counter(one.kind for one in self.findings), Counter(one.kind for one in self.refused)
        return {kind: (every[kind], bad[kind]) for kind in sorted(every)}

    def content(self) -> dict[str, Any]:
        """Return the report as plain data."""
        found = [asdict(one) | {"refused": one.refused} for one in self.findings]
        return {"bundle": self.name, "files": self.files, "refused": len(self.refused), "findings": found}


def check_bundle(source: str | Path, allow: Iterable[str] = ()) -> BundleReport:
    """List what a bundle would use and judge it, without importing, evaluating or loading anything of it.

    Args:
        source: the bundle's folder, or a zip of it.
        allow: names (with all below them), paths or checksums that are allowed beyond the list.

    Raises:
        SettingError: no bundle, or one that cannot be looked through safely.
    """
    source, findings = Path(source), Findings(allow)
    with opened(source, findings) as root:
        _keep_out(root)
        files = files_in(root, findings)
        contents = _read_configs(root, files, findings)
        if not any(PurePosixPath(file).parts[0] == "configs" for file in contents):
            raise SettingError(
                f"{source.name}: no readable configuration in configs/; give the folder of a bundle"
                + "".join(f" ({one.file}: {one.why})" for one in findings.list if one.kind == "form")[:300],
                code="bundle.configs",
            )
        aliases = _aliases(contents, findings)
        judge = ConfigJudge(root, findings, aliases, _entries(contents, findings))
        for file in files:
            _judge(root, file, contents, judge, findings)
    return BundleReport(source.name, len(files), tuple(findings.list))


def _read_configs(root: Path, files: Iterable[str], findings: Findings) -> dict[str, Any]:
    contents = {}
    for file in files:
        if PurePosixPath(file).suffix.lower() in _CONFIGS:
            try:
                contents[file] = load(root / file)
            except ValueError as error:
                findings.add(file, "", "form", file, str(error))
    return contents


def _aliases(contents: dict[str, Any], findings: Findings) -> dict[str, set[str]]:
    for file in list(contents):
        try:
            aliases_of({file: contents[file]})
        except ValueError as error:
            findings.add(file, "", "form", file, str(error))
            del contents[file]
    return aliases_of(contents)


def _entries(contents: dict[str, Any], findings: Findings) -> Entries:
    try:
        return entries_of(contents)
    except ValueError as error:
        findings.add("configs", "", "form", "references", str(error))
        return Entries(())  # every reference is then one that cannot be told


def _judge(root: Path, file: str, contents: dict[str, Any], configs: ConfigJudge, findings: Findings) -> None:
    name = PurePosixPath(file).name
    if file in contents:
        configs.judge(file, contents[file])
        if name.startswith("large_files"):
            judge_large_files(root, file, contents[file], findings)
    elif name.endswith(".sha256"):
        judge_beside(root, file, findings)
    elif name.lower().endswith((".conf", ".ini", ".cfg")):
        judge_logging(root / file, file, findings)
    elif not judge_code(file, findings) and not name.lower().endswith(_CONFIGS):
        judge_data(root / file, file, findings)


def _keep_out(root: Path) -> None:
    """Make sure that nothing is imported from the bundle, as Python does where it was started inside it.

    Raises:
        SettingError: a module of the bundle is loaded already.
    """
    inside = os.path.realpath(root)
    for place in [one for one in sys.path if _below(os.path.realpath(one or "."), inside)]:
        sys.path.remove(place)
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    # A bundle that ships with the package lies beside it, and holds no module.
    if any(_below(os.path.realpath(folder), inside) for folder in {os.path.dirname(file) for file in files if file}):
        raise SettingError(
            f"{root.name}: Python was started inside the bundle and has loaded code of it; start it elsewhere",
            code="bundle.inside",
        )


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + os.sep)
