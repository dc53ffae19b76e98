"""Label volumes as NIfTI on the scan's own grid, with the names of the labels in header and sidecar."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from monai_ext.base import GeometryError, LabelError, WriteError, case_id, replacing, sha256_of
from monai_ext.outputs.output_place import SCAN, scan_extension
from monai_ext.volumes import check_affine, check_read_back, nifti_image, spacing_of
from monai_ext.volumes.check_values import planes_of

_DTYPES = (np.uint8, np.uint16, np.int32)
_LABEL = 1002  # NIFTI_INTENT_LABEL


def write_labels(
    path: str | os.PathLike[str],
    labels: np.ndarray,
    affine: np.ndarray,
    names: Mapping[int, str],
    *,
    case: str | None = None,
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Write a label volume and, beside it, a JSON sidecar of the same name.

    The NIfTI is re-read with SimpleITK before it takes its place: shape, affine and every voxel must agree.
    Its type is the smallest of uint8, uint16 and int32 that holds every named id, the same for all outputs of
    a model. The names stand in a comment extension of the header, which readers pass over that do not know
    it, and in the sidecar with the file's SHA-256 and the count of voxels and the volume in ml of each label, absent
    ones too.

    Args:
        path: ends in ``.nii.gz`` or ``.nii``.
        labels: ``(x, y, z)`` ids, 0 for background, of an integer type or whole numbers.
        affine: ``(4, 4)``, voxel index to mm in RAS+.
        names: the name of every id but 0.
        case: the id for messages and the sidecar; the base name by default.
        about: more entries for the sidecar, which JSON can hold; ``scan_sha256`` stands in the header too.

    Returns:
        The path of the sidecar.

    Raises:
        LabelError: a value is no whole number, or an id has no name.
        GeometryError: not a volume, or an affine that NIfTI cannot hold.
        WriteError: the files could not be written whole; neither is left behind half-written.
    """
    path = Path(path)
    case = case or case_id(path)
    check_ending(path, case)
    if labels.ndim != 3:
        raise GeometryError(
            f"{case}: labels of shape {labels.shape} are no volume; give (x, y, z)",
            code="label.shape",
            case=case,
        )
    affine = np.asarray(affine, dtype=np.float64)
    check_affine(affine, case)
    ids = typed_labels(labels, names, case)
    image = _image(ids, affine, names, (about or {}).get(SCAN))
    sidecar = path.with_name(f"{case_id(path)}.json")
    # The volume takes its place first: a sidecar alone would promise what is not there. Its checksum in the sidecar
    # tells whether the two belong together.
    with (
        replacing(sidecar) as written,
        replacing(path, lambda temporary: check_read_back(temporary, ids, affine, case)) as temporary,
    ):
        nib.save(image, temporary)
        content = _sidecar(path, ids, affine, names, case) | {"sha256": sha256_of(temporary)} | dict(about or {})
        written.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return sidecar


def check_ending(path: Path, case: str) -> None:
    """Refuse a name that is no NIfTI's.

    Raises:
        WriteError: it ends in neither ``.nii.gz`` nor ``.nii``.
    """
    if not path.name.endswith((".nii.gz", ".nii")):
        raise WriteError(f"{path.name}: name the label volume .nii.gz or .nii", code="write.format", case=case)


def typed_labels(labels: np.ndarray, names: Mapping[int, str], case: str) -> np.ndarray:
    """Return ids in the smallest type that holds every named one.

    Raises:
        LabelError: a value has no name, or names have ids that no type holds.
    """
    found = np.unique(np.concatenate([np.unique(plane) for plane in planes_of(labels)]))
    nameless = [value for value in found.tolist() if value != 0 and value not in names]
    if nameless:
        listed = ", ".join(f"{value:g}" for value in nameless[:10]) + (" ..." if len(nameless) > 10 else "")
        raise LabelError(
            f"{case}: labels hold {listed}, which have no name; name every id that the model can give",
            code="label.names",
            case=case,
        )
    low, high = min((0, *names)), max((0, *names))
    for dtype in _DTYPES:
        if low >= 0 and high <= np.iinfo(dtype).max:
            return labels.astype(dtype, copy=False)
    raise LabelError(
        f"{case}: ids from {low} to {high} do not fit a NIfTI; number the labels from 1 on",
        code="label.names",
        case=case,
    )


def _image(ids: np.ndarray, affine: np.ndarray, names: Mapping[int, str], scan: str | None) -> nib.Nifti1Image:
    image = nifti_image(ids, affine)
    image.header.set_intent(_LABEL, name="labels", allow_unknown=True)
    table = {str(number): names[number] for number in sorted(names)}
    image.header.extensions.append(scan_extension(scan, labels=table))
    return image


def _sidecar(path: Path, ids: np.ndarray, affine: np.ndarray, names: Mapping[int, str], case: str) -> dict[str, Any]:
    counts = np.zeros(max((0, *names)) + 1, np.int64)
    for plane in planes_of(ids):
        counts += np.bincount(plane.reshape(-1), minlength=len(counts))
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    return {
        "case": case,
        "file": path.name,
        "shape": list(ids.shape),
        "spacing_mm": [round(edge, 6) for edge in spacing_of(affine)],
        "affine_ras": affine.tolist(),
        "labels": [
            {
                "id": int(number),
                "name": names[number],
                "voxels": int(counts[number]),
                "volume_ml": round(float(counts[number]) * voxel_ml, 3),
            }
            for number in sorted(names)
            if number != 0
        ],
    }
