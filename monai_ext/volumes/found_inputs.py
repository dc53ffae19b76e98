"""What there is to localize in: pictures, scans and stored volumes, each under the name of its outputs."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from monai_ext.base import ManifestError, ScanError, inside
from monai_ext.volumes.dicom_places import picked
from monai_ext.volumes.earlier_results import results_in
from monai_ext.volumes.prepare_ids import assign_ids
from monai_ext.volumes.prepare_source import Source
from monai_ext.volumes.prepare_sources import (
    LABEL_FOLDERS,
    LABEL_NAME,
    SCAN_ENDINGS,
    find_sources,
    refuse_results_alone,
)
from monai_ext.volumes.refusals import refuse_missing
from monai_ext.volumes.store import VolumeStore

InputKind = Literal["picture", "scan", "stored"]

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
_MASK_FOLDERS = (*LABEL_FOLDERS, "mask", "label", "ground_truth")  # as public sets of anomalies name them
_STORED = ".b2nd"


@dataclass(frozen=True)
class FoundInput:
    """One picture or volume.

    Attributes:
        image: a file, a DICOM series folder or zip (with the mark of one series where that holds several), or the
            ``.b2nd`` file of a stored volume.
        case: its base name, with a few digits of its path where several inputs share that name.
        kind: how to read it.
        problem: why it must not be read, if that is known already.
    """

    image: Path
    case: str
    kind: InputKind
    problem: str | None = None


def find_inputs(source: str | os.PathLike[str], avoid: str | os.PathLike[str] | None = None) -> list[FoundInput]:
    """List one input, or those of a folder and all folders below it; a store's volumes, if it is a store.

    Pictures whose name or folder says mask or label are left out, like label volumes, and so are pictures beside
    the slices of a DICOM series, and results of earlier runs (see ``find_scans``).

    Args:
        source: a picture, a scan, a DICOM series folder or zip, a store or one of its ``.b2nd`` files, a datalist, or a
            folder of pictures and scans.
        avoid: a folder to pass over, such as that of the results.

    Raises:
        ScanError: nothing there, or nothing that can be read.
        StoreError: a store cannot be used.
        ManifestError: a datalist is malformed, or a path leaves its root.
    """
    path = Path(os.path.abspath(source))
    name = path.name.lower()
    if name.endswith(PICTURE_ENDINGS) and path.is_file():
        return [FoundInput(path, path.stem, "picture")]
    if name.endswith(_STORED):
        return [_stored(path)]
    if path.is_dir() and any(path.glob(f"*{_STORED}")):
        store = VolumeStore(path)
        return [FoundInput(path / f"{volume_id}{_STORED}", volume_id, "stored") for volume_id in store.ids]
    if name.endswith(PICTURE_ENDINGS):
        refuse_missing(path.name, path, "file")
    found = find_sources(path, store=Path(avoid) if avoid is not None else None)
    pictures = list(_pictures(path, found.sources, avoid)) if path.is_dir() else []
    if not pictures:
        refuse_results_alone(found, path.name)
    if not pictures and not found.sources:
        endings = ", ".join((*PICTURE_ENDINGS, *SCAN_ENDINGS, ".zip"))
        raise ScanError(
            f"{path.name}: the folder holds nothing to localize in; give {endings} files, folders of one DICOM "
            "series each, or a volume store",
            code="scan.none",
        )
    sources = sorted([*found.sources, *pictures], key=lambda item: item.relative)
    names = assign_ids(sources, found.root, {})
    drawn = {item.relative for item in pictures}
    return [
        FoundInput(item.image, case, "picture" if item.relative in drawn else "scan", item.problem)
        for item, (case, _) in zip(sources, names, strict=True)
    ]


def _stored(path: Path) -> FoundInput:
    volume_id = path.name[: -len(_STORED)]
    VolumeStore(path.parent).record(volume_id)
    return FoundInput(path, volume_id, "stored")


def _pictures(folder: Path, scans: list[Source], avoid: str | os.PathLike[str] | None) -> Iterator[Source]:
    series = {home for home, _ in (picked(scan.image) for scan in scans) if home.is_dir()}
    left_out = Path(avoid).resolve() if avoid is not None else None
    for name, folders, files in os.walk(folder, followlinks=False):
        here = Path(name)
        folders[:] = sorted(f for f in folders if not f.startswith(".") and (here / f).resolve() != left_out)
        if here in series or here.name.lower() in _MASK_FOLDERS:
            continue
        results = results_in(here) if here != folder else frozenset()
        for file in sorted(set(files) - results):
            path = here / file
            stem, ending = os.path.splitext(file)
            if ending.lower() in PICTURE_ENDINGS and not file.startswith(".") and not LABEL_NAME.search(stem):
                yield Source(path, path.relative_to(folder).as_posix(), stem, problem=_problem(path, folder))


def _problem(path: Path, root: Path) -> str | None:
    try:
        inside(root, path.relative_to(root))
    except ManifestError:
        return f"{path.stem}: a link leads out of the folder; put the picture itself into it"
    return None
