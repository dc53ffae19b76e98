"""Phantom volumes to calibrate on and to localize in, and how many planted lesions their candidates find."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from monai_ext.base import case_id, derive_seed, replacing
from monai_ext.demo.lesion_crops import CONTRAST_HU, SEEN, SHAPE, SPACING_MM
from monai_ext.outputs import find_candidates
from monai_ext.volumes import check_read_back, nifti_image, phantom_torso
from monai_ext.volumes.phantom_lesions import LesionPhantom, draw_lesions, phantom_with_lesions

PLANTED_MM = 10.0
# Voxels that count as beside a lesion: one up or down (5 mm), two in the plane (4 mm).
_STEPS = np.abs(np.indices((5, 5, 3)) - np.reshape([2, 2, 1], (3, 1, 1, 1)))
BESIDE = _STEPS[0] + _STEPS[1] + 2 * _STEPS[2] <= 2
# As many as an organ holds apart from one another; two in each kidney would leave no room in a small one.
PLANTED = {"liver": 3, "kidney_right": 1, "kidney_left": 1, "heart": 2}


class OperatingPoint(NamedTuple):
    """What candidates above a threshold find.

    Attributes:
        threshold: log-odds.
        found: share of the planted lesions that hold a candidate's peak, or have one beside them.
        false_per_volume: candidates a volume whose peak is in or beside no lesion.
    """

    threshold: float
    found: float
    false_per_volume: float


def planted_phantom(seed: int) -> LesionPhantom:
    """Make a patient with lesions of 10 mm in organs whose lesions were seen.

    Args:
        seed: chooses the patient and the lesions.
    """
    plans = []
    for organ in SEEN:
        diameter = (PLANTED_MM, PLANTED_MM)
        plans += draw_lesions(derive_seed(seed, organ), [organ], PLANTED[organ], diameter, CONTRAST_HU[organ])
    return phantom_with_lesions(seed, plans, SHAPE, SPACING_MM)


def write_normal(job: tuple[Path, int]) -> Path:
    """Write a patient without lesions as NIfTI: its path and its seed."""
    path, seed = job
    phantom = phantom_torso(seed, SHAPE, SPACING_MM)
    return write_volume(path, phantom.hu, phantom.affine)


def write_planted(job: tuple[Path, Path, int]) -> Path:
    """Write a patient with planted lesions, and their numbers as ``NAME_lesions.nii.gz``: path, folder, seed."""
    path, truth, seed = job
    phantom = planted_phantom(seed)
    write_volume(truth / path.name.replace(".nii.gz", "_lesions.nii.gz"), phantom.lesions, phantom.affine)
    return write_volume(path, phantom.hu, phantom.affine)


def write_volume(path: Path, voxels: npt.NDArray[np.generic], affine: npt.NDArray[np.float64]) -> Path:
    """Write NIfTI with both forms, and return the path.

    Raises:
        WriteError: the file could not be written.
    """
    with replacing(path, lambda written: check_read_back(written, voxels, affine, case_id(path))) as temporary:
        nib.save(nifti_image(voxels, affine), temporary)
    return path


def operating_point(
    cases: Iterable[tuple[npt.NDArray[np.floating], npt.NDArray[np.integer]]], threshold: float, min_voxels: int
) -> OperatingPoint:
    """Count what candidates above a threshold find: a lesion, where a candidate has its peak in it or beside it.

    A candidate that merely touches a lesion, as one that covers half the body does, has not found it.

    Args:
        cases: the map of log-odds and the numbers of the planted lesions, 0 elsewhere; both ``(x, y, z)``.
        threshold: log-odds.
        min_voxels: smaller candidates do not count.
    """
    planted = found = false = volumes = 0
    for odds, lesions in cases:
        _, candidates = find_candidates(odds, threshold, min_voxels)
        near = ndimage.grey_dilation(lesions, footprint=BESIDE)
        hits = [int(near[candidate.peak_index]) for candidate in candidates]
        planted += len(np.unique(lesions[lesions > 0]))
        found += len(set(hits) - {0})
        false += hits.count(0)
        volumes += 1
    return OperatingPoint(threshold, found / planted if planted else float("nan"), false / max(1, volumes))


def operating_curve(
    cases: Sequence[tuple[npt.NDArray[np.floating], npt.NDArray[np.integer]]],
    min_voxels: int,
    points: int = 25,
) -> list[OperatingPoint]:
    """Return operating points from the strictest threshold that finds anything down to even odds.

    Args:
        cases: see `operating_point`.
        min_voxels: smaller candidates do not count.
        points: how many thresholds.
    """
    highest = max(float(odds.max()) for odds, _ in cases)
    return [operating_point(cases, level, min_voxels) for level in np.linspace(highest, min(0.0, highest), points)]
