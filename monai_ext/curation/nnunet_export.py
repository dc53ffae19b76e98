"""A folder in the form of nnU-Net v2 (``DatasetNNN_NAME``; Isensee et al. 2021) of the scans of a manifest."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from monai_ext.base import ManifestError, WriteError, check_output, inside, replacing
from monai_ext.curation.nnunet_json import FOLDER_NAME, dataset_json, labels_without_gaps
from monai_ext.curation.progress import shown
from monai_ext.manifests import Manifest, ManifestEntry, read_manifest

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")  # one file each, and read by nnU-Net


@dataclass
class NnunetExport:
    """What a folder holds.

    Attributes:
        folder: the folder.
        training, validation, test: how many cases each; training and validation both lie in ``imagesTr``.
        left_out: why entries were left out, with their ids.
    """

    folder: Path
    training: int = 0
    validation: int = 0
    test: int = 0
    left_out: dict[str, list[str]] = field(default_factory=dict)


def export_nnunet(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    copy: bool = False,
    progress: bool = False,
) -> NnunetExport:
    """Make a folder that nnU-Net trains on; it appears only when it is whole.

    Scans of training and validation go to ``imagesTr``, and ``splits_final.json`` tells them apart; those of test to
    ``imagesTs``. An entry of these without a label, or of no split, is left out.

    Args:
        path: the manifest.
        folder: the folder to make, such as ``nnUNet_raw/Dataset123_SPLEEN``.
        root: the folder that paths of the manifest start from; its own by default.
        copy: copy the files; links to them by default.
        progress: show a progress bar on stderr.

    Raises:
        ManifestError: the manifest is wrong, its labels have no names or skip a number, its scans are not all of one
            file ending, or a file is missing.
        WriteError: the folder is there already, or could not be written.
    """
    path, target = Path(path), Path(folder).absolute()
    if not FOLDER_NAME.fullmatch(target.name):
        raise ManifestError(
            f"{target.name}: nnU-Net's folders are called like Dataset123_NAME; give such a name, with a number that "
            "is still free",
            code="nnunet.folder_name",
        )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ManifestError(
            f"{target.name}: it is there already; give another name, or take it away", code="nnunet.folder_taken"
        )
    manifest = read_manifest(path)
    result = NnunetExport(target)
    entries = _chosen(manifest, result)
    if not entries:
        raise ManifestError(
            f"{path.name}: no labelled scan in training; nnU-Net trains on labels (unassigned scans are left out)",
            code="nnunet.empty",
        )
    labels = labels_without_gaps(manifest, entries, path.name)
    base = Path(root) if root is not None else path.parent
    ending = _ending(entries)
    files = list(_files(entries, base, ending))
    check_output(target.parent)
    with _whole(target) as temporary:
        for source, relative in shown(files, len(files), "copying" if copy else "linking", progress):
            _place(source, temporary / relative, target / relative, copy)
        count = result.training + result.validation
        _write_json(temporary / "dataset.json", dataset_json(manifest, entries, labels, ending, count))
        if result.validation:
            names = {s: [e.id for e in entries if e.split == s] for s in ("training", "validation")}
            _write_json(temporary / "splits_final.json", [{"train": names["training"], "val": names["validation"]}])
    return result


def _chosen(manifest: Manifest, result: NnunetExport) -> list[ManifestEntry]:
    chosen = []
    for entry in manifest.entries:
        if entry.split == "unassigned":
            result.left_out.setdefault("it is in no split", []).append(entry.id)
        elif entry.label is None and entry.split != "test":
            result.left_out.setdefault("it has no label", []).append(entry.id)
        else:
            chosen.append(entry)
            setattr(result, entry.split, getattr(result, entry.split) + 1)
    return chosen if result.training else []


def _ending(entries: Sequence[ManifestEntry]) -> str:
    first: tuple[str, str] | None = None
    for entry in entries:
        for path in (entry.image, entry.label):
            if path is None:
                continue
            ending = next((one for one in ENDINGS if path.lower().endswith(one)), "a folder or another kind of file")
            first = first or (ending, entry.id)
            if ending != first[0] or not ending.startswith("."):
                raise ManifestError(
                    f"{entry.id}: nnU-Net takes files of one ending out of {', '.join(ENDINGS)}, but this is {ending} "
                    f"and {first[1]} is {first[0]}; convert them first",
                    code="nnunet.endings",
                    case=entry.id,
                )
    return first[0] if first else ENDINGS[0]


def _files(entries: Sequence[ManifestEntry], base: Path, ending: str) -> Iterator[tuple[Path, str]]:
    for entry in entries:
        images, labels = ("imagesTs", "labelsTs") if entry.split == "test" else ("imagesTr", "labelsTr")
        for relative, new in ((entry.image, f"{images}/{entry.id}_0000"), (entry.label, f"{labels}/{entry.id}")):
            if relative is not None:
                source = inside(base, relative)
                if not source.is_file():
                    raise ManifestError(
                        f"{entry.id}: a file of it is not there; check the list with 'manifest verify', or give the "
                        "folder that its paths start from with --root",
                        code="nnunet.missing",
                        case=entry.id,
                    )
                yield source, new + ending


def _place(source: Path, written: Path, final: Path, copy: bool) -> None:
    written.parent.mkdir(exist_ok=True)
    if copy:
        with replacing(written) as temporary:
            shutil.copyfile(source, temporary)
    else:
        # Relative, so that both can be moved together; reckoned from where the folder will be.
        written.symlink_to(os.path.relpath(source, Path(os.path.realpath(final.parents[1])) / final.parent.name))


def _write_json(path: Path, content: object) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """Make a folder beside the target and rename it when everything went well."""
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=".writing-"))
        yield temporary
        temporary.chmod(0o755)
        os.replace(temporary, target)  # an empty folder of that name may be there
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise WriteError(
            f"{target.name}: could not be written ({reason}); free space or choose a writable folder, then run again",
            code="write.failed",
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
