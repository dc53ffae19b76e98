"""The files of a bundle: which there are, links and archives among them, and code of the bundle's own."""

import os
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from monai_ext.audit.findings import Findings
from monai_ext.audit.name_lists import NAMES, ROOMS
from monai_ext.base import SettingError

MOST_FILES, MOST_UNPACKED, MOST_RATIO = 20_000, 4 * 2**30, 200
_CODE = (".py", ".pyc", ".pyo", ".pyd", ".so", ".dll", ".dylib", ".exe", ".sh", ".bat", ".ipynb", ".pyx", ".pyw")
_PACKED = (".tar", ".tgz", ".tbz2", ".txz", ".gz", ".bz2", ".xz", ".7z", ".rar", ".whl", ".egg")
_AT_START = ("sitecustomize", "usercustomize", "conftest")
_TAKEN = {name.partition(".")[0] for name in NAMES | ROOMS}


def files_in(root: Path, findings: Findings) -> list[str]:
    """Return the plain files below a folder by their paths in it; links that leave it and special files are refused.

    Raises:
        SettingError: more files than a bundle has.
    """
    found: list[str] = []
    for folder, inside, names in os.walk(root):
        for name in sorted([*names, *(one for one in inside if os.path.islink(os.path.join(folder, one)))]):
            path = Path(folder) / name
            file = path.relative_to(root).as_posix()
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
                findings.add(file, "", "link", file, "a link that leaves the bundle")
            elif path.is_file():
                found.append(file)
            elif not path.is_dir():
                findings.add(file, "", "link", file, "no plain file: a broken link, a pipe or a device")
        if len(found) > MOST_FILES:
            raise SettingError(
                f"{root.name}: more than {MOST_FILES} files; give the folder of one bundle", code="bundle.files"
            )
    return sorted(found)


def judge_code(file: str, findings: Findings) -> bool:
    """Refuse Python and other code of the bundle's own; return whether the file is some."""
    path = PurePosixPath(file)
    if path.suffix.lower() not in _CODE:
        if path.name.lower().endswith(_PACKED) and not path.name.lower().endswith(".nii.gz"):
            findings.add(file, "", "code", file, "an archive, whose content is not looked at")
        return False
    module = ".".join([*path.parts[:-1], path.name.partition(".")[0]]).removesuffix(".__init__")
    first = module.partition(".")[0]
    if first in _TAKEN or first in _AT_START:
        findings.add(file, "", "code", file, f"it takes the place of {first}, for MONAI looks in the bundle's folder")
    else:
        findings.add(file, "", "code", module, "code of the bundle's own, which this cannot judge; read it")
    return True


@contextmanager
def opened(source: Path, findings: Findings) -> Iterator[Path]:
    """Give the folder of a bundle: itself, or a temporary one with the safe members of a zip.

    Raises:
        SettingError: no such folder or zip.
    """
    if source.is_dir():
        yield source
        return
    if not source.is_file() or not zipfile.is_zipfile(source):
        raise SettingError(
            f"{source.name}: no folder and no zip of a bundle; give the folder that holds configs/",
            code="bundle.missing",
        )
    with TemporaryDirectory(prefix="monai_ext-bundle-") as folder, _reading(source) as archive:
        total, seen = 0, set[str]()
        for member in archive.infolist():
            why = _why_not_member(member, seen)
            seen.add(member.filename.casefold().rstrip("/"))
            total += member.file_size
            if total > MOST_UNPACKED or len(seen) > MOST_FILES:
                raise SettingError(
                    f"{source.name}: unpacks to more than a bundle holds; give the unpacked folder", code="bundle.size"
                )
            if why:
                findings.add(source.name, "", "link", member.filename, why)
            elif not member.is_dir():
                _unpack(archive, member, Path(folder), source.name, findings)
        yield _only_folder(Path(folder))


@contextmanager
def _reading(source: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(source)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise SettingError(f"{source.name}: a damaged zip; download it again", code="bundle.zip") from error
    with archive:
        yield archive


def _why_not_member(member: zipfile.ZipInfo, seen: set[str]) -> str:
    path = PurePosixPath(member.filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0] if path.parts else True:
        return "a member that would be unpacked outside the bundle"
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a member that is a link or device"
    if member.flag_bits & 1:
        return "an encrypted member"
    if member.filename.casefold().rstrip("/") in seen:
        return "a member that stands twice"
    if member.file_size > 2**20 and member.file_size > MOST_RATIO * max(member.compress_size, 1):
        return "a member that unpacks to far more than it is"
    return ""


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path, source: str, findings: Findings) -> None:
    target = folder / member.filename.replace("\\", "/")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(member) as packed, target.open("wb") as out:
            left = member.file_size
            while block := packed.read(min(2**20, left + 1)):
                left -= len(block)
                if left < 0:
                    raise zipfile.BadZipFile("longer than it says")
                out.write(block)
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError, ValueError):
        target.unlink(missing_ok=True)
        findings.add(source, "", "form", member.filename, "a damaged member")


def _only_folder(folder: Path) -> Path:
    inside = list(folder.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() and inside[0].name != "configs" else folder
