"""What a volume must be before it is used: its place in the patient, HU, or label ids."""

from collections.abc import Collection, Sequence
from itertools import product
from typing import NoReturn

import numpy as np

from monai_ext.base import GeometryError, LabelError, ScanError

MAX_VOXELS = 2**31  # 8 GiB as float32; a whole body at 1024 x 1024 x 2048
SPACING_MM = (0.01, 100.0)  # finer or coarser than this no CT is; a damaged header often says so
SHEAR = 1e-3  # cosine between axes: over a 500 mm field of view such a shear moves voxels by 0.5 mm

AIR_HU = (-1100, -700)
SOFT_TISSUE_HU = (-200, 200)
BEYOND_CT_HU = (-1100, 4000)


def check_shape(shape: Sequence[int], case: str) -> tuple[int, int, int]:
    """Return the shape as three sizes; trailing axes of length 1 are dropped.

    Raises:
        GeometryError: 2D, 4D, an empty axis, a single slice, or too large to hold.
    """
    sizes = tuple(int(size) for size in shape)
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes = sizes[:-1]
    text = "x".join(map(str, sizes)) or "no"
    if any(size < 1 for size in sizes):
        _refuse(case, f"the shape {text} has an empty axis", "export the scan again", "scan.shape")
    if len(sizes) != 3 or min(sizes) == 1:
        dimensions = len(sizes) if len(sizes) != 3 else 2
        _refuse(case, f"{text} voxels are a {dimensions}D image", "give one 3D volume", "scan.dimensions")
    if np.prod(sizes, dtype=object) > MAX_VOXELS:
        _refuse(
            case,
            f"{text} voxels are more than the {MAX_VOXELS} read here",
            "crop or resample it",
            "scan.size",
        )
    return sizes[0], sizes[1], sizes[2]


def check_spacing(spacing_mm: Sequence[float], case: str) -> None:
    """Refuse a voxel edge that is zero, negative, not a number, or out of all proportion.

    Raises:
        GeometryError: naming the axis and the value.
    """
    for axis, spacing in zip("xyz", spacing_mm, strict=True):
        if not SPACING_MM[0] <= spacing <= SPACING_MM[1]:  # false for NaN too
            _refuse(
                case,
                f"spacing along {axis} is {spacing:g} mm",
                f"correct the header to a value from {SPACING_MM[0]:g} to {SPACING_MM[1]:g} mm",
                "scan.spacing",
            )


def check_affine(affine: np.ndarray, case: str) -> None:
    """Refuse an affine that is not finite, singular, sheared, or has an unusable spacing.

    Raises:
        GeometryError: naming what is wrong with it.
    """
    if not np.isfinite(affine).all():
        _refuse(case, "the affine holds values that are not finite", "export the scan again", "scan.affine")
    columns = affine[:3, :3]
    spacing_mm = np.linalg.norm(columns, axis=0)
    check_spacing(spacing_mm, case)
    cosines = (columns / spacing_mm).T @ (columns / spacing_mm)
    worst = float(np.abs(cosines - np.eye(3)).max())
    if worst > SHEAR:
        degrees = float(np.degrees(np.arcsin(min(worst, 1.0))))
        _refuse(
            case,
            f"the axes are {degrees:.1f} degrees away from right angles",
            "resample it to a grid with right angles (gantry tilt is the usual cause)",
            "scan.sheared",
        )


def spacing_of(affine: np.ndarray) -> tuple[float, float, float]:
    """Return the voxel edges in mm, from the columns of a ``(4, 4)`` affine."""
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0)
    return float(x), float(y), float(z)


def largest_shift_mm(shape: Sequence[int], one: np.ndarray, other: np.ndarray) -> float:
    """Return how far the two affines place a corner voxel apart; no voxel inside is further apart."""
    corners = np.array([(*corner, 1) for corner in product(*((0, size - 1) for size in shape))], dtype=float)
    return float(np.linalg.norm((corners @ (one - other).T)[:, :3], axis=1).max())


def check_same_grid(
    shape: Sequence[int],
    affine: np.ndarray,
    image_shape: Sequence[int],
    image_affine: np.ndarray,
    case: str,
    image_case: str,
) -> None:
    """Refuse labels whose voxels are not those of the image.

    Raises:
        GeometryError: another shape, or a corner that lies elsewhere.
    """
    if tuple(shape) != tuple(image_shape):
        ours, theirs = ("x".join(map(str, sizes)) for sizes in (shape, image_shape))
        _refuse(
            case,
            f"{ours} label voxels do not fit {theirs} image voxels of {image_case}",
            "give the labels of this image, on its own grid",
            "label.shape",
        )
    shift = largest_shift_mm(shape, affine, image_affine)
    # float32 affines and DICOM's decimal strings round by less than 0.01 mm over a body, while a tenth of a
    # voxel cannot carry a label to the next voxel.
    tolerance = max(0.01, 0.1 * min(spacing_of(image_affine)))
    if shift > tolerance:
        _refuse(
            case,
            f"the labels lie {shift:.2f} mm away from the image {image_case} (at most {tolerance:.2f} mm is rounding)",
            "give the labels of this image, on its own grid",
            "label.affine",
        )


def check_hu(voxels: np.ndarray, case: str, *, assume_hu: bool) -> np.ndarray:
    """Return the voxels as float32, if they can be the HU of a CT scan.

    A CT scan has air near -1000 HU and soft tissue near 0, and hardly anything beyond those and metal.
    MR, 8-bit, normalised and un-rescaled images lack the air; values below air are let through only where
    they are one constant, the padding outside a round field of view.

    Raises:
        ScanError: NaN or infinite values, one value throughout, beyond int16, or no HU.
    """
    bad = int(voxels.size - np.count_nonzero(np.isfinite(voxels)))
    if bad:
        raise ScanError(
            f"{case}: {bad} of {voxels.size} voxels are NaN or infinite; export the scan again without them",
            code="scan.not_finite",
            case=case,
        )
    low, high = float(voxels.min()), float(voxels.max())
    if low == high:
        raise ScanError(
            f"{case}: every voxel is {low:g}; the scan is empty, export it again",
            code="scan.constant",
            case=case,
        )
    limits = np.iinfo(np.int16)
    if low < limits.min or high > limits.max:
        raise ScanError(
            f"{case}: values from {low:g} to {high:g} are beyond any HU ({limits.min} to {limits.max}); "
            "export the scan again in HU",
            code="scan.range",
            case=case,
        )
    if not assume_hu and not _looks_like_hu(voxels, low):
        raise ScanError(
            f"{case}: values from {low:g} to {high:g} do not look like the HU of a CT scan (air near -1000, soft tissue "
            "near 0); convert it to HU, or pass --assume-hu (assume_hu=True) if it is in HU",
            code="scan.not_hu",
            case=case,
        )
    return np.asarray(voxels, dtype=np.float32)


def _looks_like_hu(voxels: np.ndarray, low: float) -> bool:
    air = _share(voxels, *AIR_HU)
    tissue = _share(voxels, *SOFT_TISSUE_HU)
    inside = _share(voxels, *BEYOND_CT_HU)
    padding = float(np.mean(voxels == low)) if low < BEYOND_CT_HU[0] else 0.0
    # Small shares, for a crop inside the body holds little air and a lung little tissue; other kinds of image
    # hold none. One voxel in a hundred may be noise below air or metal above 4000 HU.
    return air >= 1e-4 and tissue >= 0.01 and inside + padding >= 0.99


def _share(voxels: np.ndarray, low: float, high: float) -> float:
    return float(np.mean((voxels >= low) & (voxels <= high)))


def label_ids(voxels: np.ndarray, case: str, classes: Collection[int] | None) -> np.ndarray:
    """Return the voxels as int32 ids, if they are ids of the classes (0 always may occur).

    Raises:
        LabelError: naming the values that are not whole, negative, too large or not among the classes.
    """
    if voxels.dtype.kind == "f":
        broken = voxels[~np.isfinite(voxels) | (voxels != np.rint(voxels))]
        if broken.size:
            raise LabelError(
                f"{case}: {broken.size} label voxels are not whole numbers, {broken[0]:g} for one; "
                "resample labels with nearest neighbour, or export them again",
                code="label.fraction",
                case=case,
            )
    found = np.unique(voxels)
    limit = np.iinfo(np.int32).max
    wrong = [int(value) for value in found if not 0 <= value <= limit]
    allowed = "whole numbers from 0 on"
    if classes is not None and not wrong:
        known = {0, *map(int, classes)}
        wrong = [int(value) for value in found if int(value) not in known]
        allowed = f"the classes {_listed(sorted(known))}"
    if wrong:
        raise LabelError(
            f"{case}: label ids {_listed(wrong)} are not among {allowed}; "
            "correct the labels or the list of classes",
            code="label.classes",
            case=case,
        )
    return voxels.astype(np.int32)


def _listed(numbers: Sequence[int]) -> str:
    text = ", ".join(map(str, numbers[:10]))
    return f"{text} and {len(numbers) - 10} more" if len(numbers) > 10 else text


def _refuse(case: str, what: str, way_out: str, code: str) -> NoReturn:
    raise GeometryError(f"{case}: {what}; {way_out}", code=code, case=case)
