"""The scans of a folder, each under the name that its outputs will carry."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from monai_ext.base import ScanError
from monai_ext.volumes.prepare_ids import assign_ids
from monai_ext.volumes.prepare_sources import but_labels, find_sources, listed, refuse_results_alone


@dataclass(frozen=True)
class FoundScan:
    """One scan to read.

    Attributes:
        image: a file or a DICOM series folder or zip, with the mark of one series where that holds several.
        case: its base name, with a few digits of its path where several scans share that name.
        problem: why it must not be read, if that is known already.
    """

    image: Path
    case: str
    problem: str | None = None


def find_scans(source: str | os.PathLike[str], avoid: str | os.PathLike[str] | None = None) -> list[FoundScan]:
    """List one scan, the scans of a folder and all folders below it, or those of a MONAI datalist.

    Files of a folder that are named like labels are left out, with a warning that names them; results of earlier
    runs, told by the JSON file beside them, with one that counts them.

    Args:
        source: a scan, a DICOM series folder or zip, a folder of these, or a datalist. Each of several series
            that share a folder or zip is a scan; ``folder#3`` is the one of that number alone.
        avoid: a folder to pass over, such as that of the results: a second run would take them for scans.

    Raises:
        ScanError: nothing there, or nothing that is a scan.
        ManifestError: a datalist is malformed.
    """
    found = find_sources(Path(source), store=None if avoid is None else Path(avoid))
    refuse_results_alone(found, Path(source).absolute().name)
    if not found.sources:
        raise ScanError(
            f"{Path(source).absolute().name}: the folder holds no scan{but_labels(found.left_out)}; give .nii, "
            ".nii.gz, .nrrd, .mha or .mhd files, or folders or zips of DICOM series",
            code="scan.none",
        )
    if found.left_out:
        logging.getLogger("monai_ext").warning(
            f"left out, for named like labels: {listed(found.left_out)}; give such a file by itself if it is a scan"
        )
    names = assign_ids(found.sources, found.root, {})
    return [FoundScan(item.image, name, item.problem) for item, (name, _) in zip(found.sources, names, strict=True)]
