"""Localization: the heat map and the mask lie where the lesion lies, whichever way the file's axes run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from torch import nn

FAMILY = "orientations, heat maps"
MARK = 3  # the brightest ball, to the head, right and back: no mirror image or exchange of axes leaves it there


class Shown(nn.Module):
    """A network whose map is the picture itself, above half of the window."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=1, keepdim=True) + 0 * self.seen


def problems_of(source: Path, folder: Path, patient: Any) -> list[str]:
    case, ball, problems = folder.name, patient.balls[MARK], []
    for name in ("anomaly", "mask"):
        image = nib.load(folder / f"{case}_{name}.nii.gz")
        values = np.asarray(image.dataobj, float)
        weights = np.where(values > 0.6, values, 0)
        if image.shape != nib.load(source).shape or not np.array_equal(image.affine, nib.load(source).affine):
            problems.append(f"the {name} is on another grid than the scan")
        centre = np.einsum("xyz,cxyz->c", weights, np.indices(values.shape)) / weights.sum()
        error = np.abs(centre - np.linalg.solve(image.affine, [*ball, 1])[:3]).max()
        if not error < 0.5:
            problems.append(f"the {name} is {error:.2f} voxels away")
        other = SimpleITK.ReadImage(str(folder / f"{case}_{name}.nii.gz"))
        point = np.array(other.TransformContinuousIndexToPhysicalPoint(centre.tolist())) * (-1, -1, 1)
        if not np.linalg.norm(point - image.affine[:3] @ [*centre, 1]) < 0.01:
            problems.append(f"SimpleITK finds the {name} elsewhere than nibabel")
    (found,) = json.loads((folder / f"{case}_candidates.json").read_text())["candidates"]
    if not np.linalg.norm(np.array(found["center_mm"]) - ball) < 1.2:  # half of the coarsest edge
        problems.append("the candidate's millimetres are others")
    return problems


@pytest.mark.parametrize(
    ("tilt", "step", "views"),
    [
        ("oblique", 24, ["axial"]),
        pytest.param("straight", 1, ["axial"], marks=pytest.mark.full),
        pytest.param("tilted", 1, ["axial", "coronal", "sagittal"], marks=pytest.mark.full),
        pytest.param("oblique", 1, ["axial"], marks=pytest.mark.full),
    ],
)
def test_the_lesion_lies_where_it_does_in_the_patient(
    run_bundle: Callable[..., None], patient: Any, tmp_path: Path, notes: Any, tilt: str, step: int, views: list[str]
) -> None:
    (tmp_path / "scans").mkdir()
    chosen = patient.orientations[::step]
    for codes in chosen:
        patient.write(tmp_path / "scans" / f"{codes}.nii.gz", patient.grid(codes, tilt))
    picture = {"_target_": "monai_ext.transforms.ClipPicture", "size": 96, "mean": [0.0] * 3, "std": [1.0] * 3}
    settings = {"network": Shown(), "adapters": None, "device": "cpu", "picture": picture, "smooth_mm": 0.0}
    # Without this, the whole CLIP is built for what only a calibration would compare.
    settings |= {"calibration_settings": None}
    settings |= {"window_hu": [122, 250], "threshold": 0.5, "overlay": False, "views": views}
    settings |= {"dataset_dir": str(tmp_path / "scans"), "output_dir": str(tmp_path / "out")}
    run_bundle("aa_clip_lesion_localization", ["inference"], settings)
    for codes in chosen:
        found = problems_of(tmp_path / "scans" / f"{codes}.nii.gz", tmp_path / "out" / codes, patient)
        notes(FAMILY, f"{codes} {tilt}", found)
    assert not notes.wrong
