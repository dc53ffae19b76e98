"""The scans of a folder, each under the name that its outputs will carry."""

import os
from dataclasses import dataclass
from pathlib import Path

from monai_ext.base import ScanError
from monai_ext.volumes.prepare_ids import assign_ids
from monai_ext.volumes.prepare_sources import find_sources


@dataclass(frozen=True)
class FoundScan:
    """One scan to read.

    Attributes:
        image: a file or a DICOM series folder.
        case: its base name, with a few digits of its path where several scans share that name.
        problem: why it must not be read, if that is known already.
    """

    image: Path
    case: str
    problem: str | None = None


def find_scans(source: str | os.PathLike[str]) -> list[FoundScan]:
    """List one scan, the scans of a folder and all folders below it, or those of a MONAI datalist.

    Raises:
        ScanError: nothing there, or nothing that is a scan.
        ManifestError: a datalist is malformed, or a path leaves its root.
    """
    found = find_sources(Path(source))
    if not found.sources:
        raise ScanError(
            f"{Path(source).name}: the folder holds no scan; give .nii, .nii.gz, .nrrd, .mha or .mhd files, "
            "or folders of one DICOM series each",
            code="scan.none",
        )
    names = assign_ids(found.sources, found.root, {})
    return [FoundScan(item.image, name, item.problem) for item, (name, _) in zip(found.sources, names, strict=True)]
