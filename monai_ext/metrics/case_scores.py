"""How well one segmentation agrees with its reference, class by class."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice

from monai_ext.base import LabelError, replacing

_COLUMNS = ("case", "class_id", "class", "dice", "hd95_mm", "surface_dice")


@dataclass(frozen=True)
class ClassScore:
    """Agreement on one class of one case.

    A class absent from both volumes has nothing to measure: all three are NaN. Absent from one only,
    Dice and surface Dice are 0 and the distance, which does not exist, is NaN.

    Attributes:
        case: the case.
        class_id: the label id.
        dice: volume overlap, 0 to 1.
        hd95_mm: 95th percentile of the distances between the surfaces, the larger direction.
        surface_dice: share of both surfaces that lies within the tolerance of the other, 0 to 1.
    """

    case: str
    class_id: int
    dice: float
    hd95_mm: float = float("nan")
    surface_dice: float = float("nan")


def case_scores(
    case: str,
    prediction: np.ndarray,
    reference: np.ndarray,
    classes: Sequence[int],
    spacing_mm: Sequence[float],
    tolerance_mm: float = 2.0,
    surfaces: bool = True,
) -> list[ClassScore]:
    """Score one case.

    Args:
        case: name of the case.
        prediction: label ids, ``(x, y, z)``.
        reference: label ids on the same grid.
        classes: ids to score, background left out.
        spacing_mm: voxel edges along x, y, z.
        tolerance_mm: of the surface Dice.
        surfaces: ``False`` leaves out the two surface measures, which take longer.

    Raises:
        LabelError: the shapes differ.
    """
    if prediction.shape != reference.shape:
        raise LabelError(
            f"{case}: the prediction has {prediction.shape} voxels and the reference {reference.shape}; "
            "score volumes on the same grid",
            code="label.shape",
            case=case,
        )
    return [
        _score(case, number, prediction == number, reference == number, spacing_mm, tolerance_mm, surfaces)
        for number in classes
    ]


def _score(
    case: str,
    number: int,
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing_mm: Sequence[float],
    tolerance_mm: float,
    surfaces: bool,
) -> ClassScore:
    sizes = int(prediction.sum()), int(reference.sum())
    if not any(sizes):
        return ClassScore(case, number, float("nan"))
    if not all(sizes):
        return ClassScore(case, number, 0.0, surface_dice=0.0 if surfaces else float("nan"))
    dice = 2 * int((prediction & reference).sum()) / sum(sizes)
    if not surfaces:
        return ClassScore(case, number, dice)
    pair = [torch.from_numpy(part[None, None]) for part in _boxed(prediction, reference)]
    spacing = [float(edge) for edge in spacing_mm]
    distance = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=spacing)
    surface = compute_surface_dice(*pair, [tolerance_mm], include_background=True, spacing=spacing)
    return ClassScore(case, number, dice, float(distance), float(surface))


def _boxed(*masks: np.ndarray) -> list[np.ndarray]:
    """Cut the masks to the box that holds all of them and one voxel around, padded where the volume ends.

    The rim keeps a structure's surface apart from the edge of the array; distances do not change.
    """
    union = np.logical_or.reduce(masks)
    ranges = []
    for axis in range(union.ndim):
        other = tuple(a for a in range(union.ndim) if a != axis)
        filled = np.flatnonzero(union.any(axis=other))
        ranges.append(slice(filled[0], filled[-1] + 1))
    return [np.pad(mask[tuple(ranges)], 1) for mask in masks]


def mean_scores(scores: Sequence[ClassScore]) -> dict[int, ClassScore]:
    """Average each class over the cases that have it; NaN where none does."""
    classes = dict.fromkeys(score.class_id for score in scores)
    return {
        number: ClassScore(
            "mean",
            number,
            *(
                _nan_mean([getattr(score, name) for score in scores if score.class_id == number])
                for name in ("dice", "hd95_mm", "surface_dice")
            ),
        )
        for number in classes
    }


def mean_dice(scores: Sequence[ClassScore]) -> float:
    """Average Dice over classes of the averages over cases, background left out; NaN if nothing was there."""
    return _nan_mean([score.dice for score in mean_scores(scores).values()])


def write_scores(path: str | Path, scores: Sequence[ClassScore], names: Mapping[int, str]) -> None:
    """Write a CSV: one row a case and class, then one a class with the mean over cases.

    Args:
        path: the CSV file; distances are in mm, undefined values read ``nan``.
        scores: of all cases.
        names: class names by id.

    Raises:
        WriteError: the file could not be written.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    for score in [*scores, *mean_scores(scores).values()]:
        values = (f"{value:.6g}" for value in (score.dice, score.hd95_mm, score.surface_dice))
        table.writerow([score.case, score.class_id, names.get(score.class_id, ""), *values])
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def _nan_mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
