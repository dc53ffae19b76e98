"""A scan and its labels as they are stored: read, brought to RAS and the store's spacing, with the body found."""

from dataclasses import replace

import numpy as np

from monai_ext.base import LabelError, ScanError
from monai_ext.volumes.body import find_body
from monai_ext.volumes.prepare_grid import to_ras, to_spacing
from monai_ext.volumes.prepare_job import Job
from monai_ext.volumes.read_scan import read_labels, read_scan
from monai_ext.volumes.scan import Scan
from monai_ext.volumes.source_places import told_place
from monai_ext.volumes.store_record import LabelSource
from monai_ext.volumes.store_write import NewVolume


def read_volume(job: Job, image_sha256: str, label_sha256: str | None) -> NewVolume:
    """Read a scan and its labels onto the store's grid.

    The scan's own voxels are let go before its labels are read, so that the two are never held at once.

    Raises:
        ScanError: the scan or its labels cannot be read, or hold no body, or nothing is left of it.
        LabelError: the labels hold other ids than they should.
    """
    case = job.source.case
    scan = read_scan(job.source.image, assume_hu=job.assume_hu, case=case, relax=job.relax, narrow=True)
    # Reading refused what int16 cannot hold, and interpolation stays between its neighbours.
    hu, affine = to_spacing(*to_ras(scan.voxels, scan.affine), job.spacing_mm, dtype=np.int16)
    scan = replace(scan, voxels=np.broadcast_to(np.float32(0), scan.voxels.shape))  # its grid, without its memory
    if min(hu.shape) < 2:
        raise ScanError(
            f"{case}: only {'x'.join(map(str, hu.shape))} voxels are left at the spacing of the store; "
            "leave it out, or choose a finer spacing",
            code="scan.too_small",
            case=case,
        )
    label, label_source, relaxed = _label(job, scan, label_sha256)
    x, y, z = scan.voxels.shape
    return NewVolume(
        id=job.id,
        hu=hu,
        affine=affine,
        spacing_mm=job.spacing_mm,
        source=told_place(job.source.relative),
        source_root=job.root_mark,
        source_sha256=image_sha256,
        source_shape=(x, y, z),
        source_affine=scan.affine,
        settings=job.settings,
        body=find_body(hu, job.spacing_mm, case),
        label=label,
        label_source=label_source,
        origin=job.source.origin,
        relaxed=tuple(dict.fromkeys((*scan.relaxed, *relaxed))),
    )


def _label(job: Job, scan: Scan, sha256: str | None) -> tuple[np.ndarray | None, LabelSource | None, tuple[str, ...]]:
    if job.source.label is None or job.source.label_relative is None or sha256 is None:
        return None, None, ()
    case = job.source.case
    names = job.label_names or None
    labels = read_labels(job.source.label, like=scan, classes=names, case=case, relax=job.relax)
    # The type follows the label set where it is known, so that all volumes of a data set have the same.
    highest = max(int(labels.voxels.max()), *job.label_names, 0)
    if highest > np.iinfo(np.uint16).max:
        raise LabelError(
            f"{case}: label id {highest} is above {np.iinfo(np.uint16).max}; renumber the labels",
            code="label.range",
            case=case,
        )
    dtype = np.uint8 if highest <= np.iinfo(np.uint8).max else np.uint16
    # On the image's affine, which the labels' own may differ from by rounding.
    voxels, _ = to_spacing(*to_ras(labels.voxels, scan.affine), job.spacing_mm, nearest=True, dtype=dtype)
    ids = sorted({int(label_id) for plane in voxels for label_id in np.unique(plane)})
    told = LabelSource(told_place(job.source.label_relative), sha256, tuple(ids), dict(job.label_names))
    return voxels, told, labels.relaxed
