"""What the voxels of a volume say: HU of a CT scan, or ids of classes."""

from collections.abc import Collection, Sequence

import numpy as np

from monai_ext.base import LabelError
from monai_ext.volumes.refusals import refuse

AIR_HU = (-1300, -700)  # noise lies on both sides of -1000
SOFT_TISSUE_HU = (-200, 200)
CT_HU = (-1300, 4000)


def check_hu(voxels: np.ndarray, case: str, *, assume_hu: bool, convert: bool = True) -> np.ndarray:
    """Return the voxels as float32, or as they are without ``convert``, if they can be the HU of a CT scan.

    A CT scan has air near -1000 HU and soft tissue near 0, and hardly anything beyond those and metal. MR,
    8-bit, normalised and un-rescaled images lack the air. Values below air are let through only where they
    are one constant, the padding outside a round field of view.

    Raises:
        ScanError: NaN or infinite values, one value throughout, beyond int16, or no HU.
    """
    bad = 0 if voxels.dtype.kind in "iu" else int(voxels.size - np.count_nonzero(np.isfinite(voxels)))
    if bad:
        what = f"{bad} of {voxels.size} voxels are NaN or infinite"
        refuse(case, what, "export the scan again without them", "scan.not_finite")
    low, high = float(voxels.min()), float(voxels.max())
    if low == high:
        refuse(case, f"every voxel is {low:g}", "the scan is empty, export it again", "scan.constant")
    limits = np.iinfo(np.int16)
    if low < limits.min or high > limits.max:
        what = f"values from {low:g} to {high:g} are beyond any HU ({limits.min} to {limits.max})"
        refuse(case, what, "export the scan again in HU", "scan.range")
    if not assume_hu and not _looks_like_hu(voxels, low):
        refuse(
            case,
            f"values from {low:g} to {high:g} do not look like CT (air near -1000 HU, soft tissue near 0)",
            "convert it to HU, or pass --assume-hu (assume_hu=True) if it is in HU",
            "scan.not_hu",
        )
    return np.asarray(voxels, dtype=np.float32) if convert else voxels


def planes_of(volume: np.ndarray) -> np.ndarray:
    """Return a volume as a row of planes, each in one piece of memory: what is done to all at once takes it anew."""
    return np.moveaxis(volume, int(np.argmax(np.abs(volume.strides))), 0)


def is_whole(voxels: np.ndarray) -> bool:
    """Return whether every value is a whole number, so that int16 holds the HU of a scan."""
    return voxels.dtype.kind in "iu" or all(np.array_equal(plane, np.rint(plane)) for plane in planes_of(voxels))


def _looks_like_hu(voxels: np.ndarray, low: float) -> bool:
    air, tissue, inside = (_share(voxels, *limits) for limits in (AIR_HU, SOFT_TISSUE_HU, CT_HU))
    padding = np.count_nonzero(voxels == low) / voxels.size if low < CT_HU[0] else 0.0
    # Small shares, for a crop inside the body holds little air and one of lung little tissue; other kinds of
    # image hold none. One voxel in a hundred may be noise below air or metal above 4000 HU.
    return air >= 1e-4 and tissue >= 0.01 and inside + padding >= 0.99


def _share(voxels: np.ndarray, low: float, high: float) -> float:
    return np.count_nonzero((voxels >= low) & (voxels <= high)) / voxels.size


def label_ids(voxels: np.ndarray, case: str, classes: Collection[int] | None) -> np.ndarray:
    """Return the voxels as int32 ids, if they are ids of the classes (0 always may occur).

    Raises:
        LabelError: naming the values that are not whole, negative, too large or not among the classes.
    """
    planes = planes_of(voxels)
    if voxels.dtype.kind == "f":
        broken = np.concatenate([plane[~(np.isfinite(plane) & (plane == np.rint(plane)))] for plane in planes])
        if broken.size:
            raise LabelError(
                f"{case}: {broken.size} label voxels are not whole numbers, {broken[0]:g} for one; "
                "resample labels with nearest neighbour, or export them again",
                code="label.fraction",
                case=case,
            )
    found = sorted({int(value) for plane in planes for value in np.unique(plane)})
    wrong = [value for value in found if not 0 <= value <= np.iinfo(np.int32).max]
    allowed = "whole numbers from 0 on"
    if classes is not None and not wrong:
        known = {0, *map(int, classes)}
        wrong = [value for value in found if value not in known]
        allowed = f"the classes {_listed(sorted(known))}"
    if wrong:
        raise LabelError(
            f"{case}: label ids {_listed(wrong)} are not among {allowed}; correct the labels or the list of classes",
            code="label.classes",
            case=case,
        )
    return voxels.astype(np.int32)


def _listed(numbers: Sequence[int]) -> str:
    text = ", ".join(map(str, numbers[:10]))
    return f"{text} and {len(numbers) - 10} more" if len(numbers) > 10 else text
