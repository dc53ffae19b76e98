"""The slices of a DICOM series as one even stack: their order and affine (PS3.3 C.7.6.2.1.1)."""

import numpy as np

from monai_ext.volumes.checks import LPS_TO_RAS, SHEAR, check_affine, check_spacing
from monai_ext.volumes.dicom_slice import DicomSlice
from monai_ext.volumes.refusals import refuse_geometry

_SORT = "sort them into one folder a series"


def stacked(slices: list[DicomSlice], case: str) -> tuple[list[DicomSlice], np.ndarray]:
    """Sort the slices along their normal.

    Returns:
        The slices, and the ``(4, 4)`` affine of the stack, voxel index to mm in RAS+.

    Raises:
        GeometryError: slices missing, doubled, unevenly placed, not parallel, or of a tilted gantry.
    """
    axes = np.array([item.numbers("ImageOrientationPatient", 6) for item in slices])
    spacings = np.array([item.numbers("PixelSpacing", 2) for item in slices])
    positions = np.array([item.numbers("ImagePositionPatient", 3) for item in slices])
    for spacing in spacings:
        check_spacing((spacing[1], spacing[0], 1.0), case)
    # In the middle of all: the first slice would make the grid depend on the order in which files are given.
    usual, edges = np.median(axes, axis=0), np.median(spacings, axis=0)
    if np.abs(axes - usual).max() > SHEAR:
        refuse_geometry(case, "the slices are not parallel", _SORT, "dicom.orientations")
    if np.abs(spacings / edges - 1).max() > 1e-3:  # decimal strings of few digits
        refuse_geometry(case, "the slices differ in pixel spacing", _SORT, "dicom.spacings")
    across, down = usual[:3], usual[3:]
    if max(abs(across @ across - 1), abs(down @ down - 1), abs(across @ down)) > SHEAR:
        what = "rows and columns are not at right angles"
        refuse_geometry(case, what, "export the series again", "dicom.orientation")
    normal = np.cross(across, down)
    order = np.argsort(positions @ normal, kind="stable")
    step = _step(positions[order], normal, case)
    _check_tilt(slices, normal, step, case)
    affine = np.eye(4)
    # PixelSpacing gives the distance between rows first, which is along y.
    affine[:3, :3] = np.stack([across * edges[1], down * edges[0], step], axis=1)
    affine[:3, 3] = positions[order[0]]
    check_affine(affine, case)
    return [slices[index] for index in order], LPS_TO_RAS @ affine


def _step(positions: np.ndarray, normal: np.ndarray, case: str) -> np.ndarray:
    """Return the vector in mm from each slice to the next, if it is the same for all."""
    gaps = np.diff(positions @ normal)
    doubled = int(np.count_nonzero(gaps < 1e-3))
    if doubled:
        what = "1 slice lies" if doubled == 1 else f"{doubled} slices lie"
        what, way_out = f"{what} where another one does", "keep one phase or copy in a folder"
        refuse_geometry(case, what, way_out, "dicom.duplicates")
    usual = float(np.median(gaps))
    missing = int(np.sum(np.rint(gaps / usual)[gaps > 1.5 * usual] - 1))
    if missing:
        what = "1 slice is" if missing == 1 else f"{missing} slices are"
        what += f" missing between others {usual:g} mm apart"
        refuse_geometry(case, what, "copy the whole series again", "dicom.missing")
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    tolerance = 0.01 + 0.01 * usual  # positions are decimal strings, often of two digits
    even = positions[0] + np.arange(len(positions))[:, None] * step
    away = positions - even
    if np.abs(away).max() > tolerance:
        along = away @ normal
        aside_mm = float(np.linalg.norm(away - along[:, None] * normal, axis=1).max())
        what, way_out = (
            f"the slices are from {gaps.min():.6g} to {gaps.max():.6g} mm apart",
            "resample it to even spacing",
        )
        if aside_mm > np.abs(along).max():
            what = f"the slices do not lie on one line, one of them {aside_mm:.3g} mm beside it"
            way_out = "export the series again, or resample it"
        refuse_geometry(case, what, way_out, "dicom.spacing_varies")
    return step


def _check_tilt(slices: list[DicomSlice], normal: np.ndarray, step: np.ndarray, case: str) -> None:
    shear = float(np.degrees(np.arctan2(np.linalg.norm(np.cross(normal, step)), normal @ step)))
    told = max(abs(item.number("GantryDetectorTilt", 0.0)) for item in slices)
    axial = abs(normal[2]) > 1 - SHEAR**2
    # A tilt that is told but that neither positions nor orientation show was lost on the way here.
    tilt = shear if shear > np.degrees(SHEAR) else told if told > 0.1 and axial else 0.0
    if tilt:
        what = f"the gantry was tilted by {tilt:.1f} degrees"
        refuse_geometry(case, what, "resample it to a grid with right angles", "dicom.tilt")
