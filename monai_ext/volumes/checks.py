"""Where a volume lies in the patient: shape, spacing, affine, and whether two volumes share one grid."""

from collections.abc import Sequence
from itertools import product

import numpy as np

from monai_ext.volumes.refusals import refuse_geometry

MAX_VOXELS = 2**31  # 8 GiB as float32; a whole body at 1024 x 1024 x 2048
SPACING_MM = (0.01, 100.0)  # no CT is finer or coarser; a damaged header often says so
PLACE_MM = 1e5  # from the scanner's centre; 100 m is beyond any table, and float32 keeps hundredths up to there
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
SHEAR = 1e-3  # cosine between axes: over a 500 mm field of view such a shear moves voxels by 0.5 mm


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
        refuse_geometry(case, f"the shape {text} has an empty axis", "export the scan again", "scan.shape")
    if len(sizes) != 3 or min(sizes) == 1:
        count = len(sizes) if len(sizes) != 3 else 2
        refuse_geometry(case, f"{text} voxels are a {count}D image", "give one 3D volume", "scan.dimensions")
    # As objects, for the product of sizes in a damaged header overflows 64 bits.
    if np.prod(np.array(sizes, dtype=object)) > MAX_VOXELS:
        refuse_geometry(
            case,
            f"{text} voxels are more than the {MAX_VOXELS} read here",
            "crop or resample it",
            "scan.size",
        )
    return sizes[0], sizes[1], sizes[2]


def check_spacing(spacing_mm: Sequence[float] | np.ndarray, case: str) -> None:
    """Refuse a voxel edge that is zero, negative, not a number, or out of all proportion.

    Raises:
        GeometryError: naming the axis and the value.
    """
    for axis, spacing in zip("xyz", spacing_mm, strict=True):
        if not SPACING_MM[0] <= spacing <= SPACING_MM[1]:  # false for NaN too
            refuse_geometry(
                case,
                f"spacing along {axis} is {spacing:g} mm",
                f"correct the header to a value from {SPACING_MM[0]:g} to {SPACING_MM[1]:g} mm",
                "scan.spacing",
            )


def check_affine(affine: np.ndarray, case: str) -> None:
    """Refuse an affine that is not finite, singular, sheared, far away, or has an unusable spacing.

    Raises:
        GeometryError: naming what is wrong with it.
    """
    if not np.isfinite(affine).all():
        refuse_geometry(case, "the affine holds values that are not finite", "export the scan again", "scan.affine")
    away_mm = float(np.abs(affine[:3, 3]).max())
    if away_mm > PLACE_MM:
        what = f"the affine places the scan {away_mm:g} mm away from the scanner's centre"
        refuse_geometry(case, what, "export the scan again", "scan.affine")
    spacing_mm = np.array(spacing_of(affine))
    check_spacing(spacing_mm, case)
    axes = affine[:3, :3] / spacing_mm
    worst = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if worst > SHEAR:
        refuse_geometry(
            case,
            f"the axes are {np.degrees(np.arcsin(min(worst, 1.0))):.1f} degrees away from right angles",
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
    way_out = f"give the labels of {image_case}, on its own grid"
    if tuple(shape) != tuple(image_shape):
        labels, image = ("x".join(map(str, sizes)) for sizes in (shape, image_shape))
        refuse_geometry(case, f"{labels} label voxels, but {image} image voxels", way_out, "label.shape")
    shift = largest_shift_mm(shape, affine, image_affine)
    # float32 affines and DICOM's decimal strings round by less than 0.01 mm over a body, while a tenth of a
    # voxel cannot carry a label to the next voxel.
    tolerance = max(0.01, 0.1 * min(spacing_of(image_affine)))
    if shift > tolerance:
        refuse_geometry(
            case,
            f"the labels lie {shift:.2f} mm away from the image (at most {tolerance:.2f} mm can be rounding)",
            way_out,
            "label.affine",
        )
