"""The training side: what a crop's affine says of a mark, after preparing, is where the mark lies in the patient."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from monai_ext.transforms import RandStoreCrop
from monai_ext.volumes import prepare

FAMILY = "orientations, training crops"


def write_pair(patient: Any, folder: Path, name: str, affine: np.ndarray) -> dict[str, str]:
    """Write the patient and, as labels, the balls themselves."""
    path = patient.write(folder / f"{name}.nii.gz", affine)
    shape = nib.load(path).shape
    place = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    labels = np.zeros(shape, np.uint8)
    for number, ball in patient.balls.items():
        labels[np.linalg.norm(place - ball, axis=-1) <= patient.radius_mm] = number
    image = nib.Nifti1Image(labels, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    nib.save(image, folder / f"{name}_label.nii.gz")
    return {"image": f"{name}.nii.gz", "label": f"{name}_label.nii.gz"}


def problems_of(cut: RandStoreCrop, name: str, patient: Any) -> list[str]:
    """Find each mark in crops drawn until every mark was wholly inside one, by image and by label."""
    problems, seen = [], set()
    for _ in range(200):
        image = cut(name)
        labels = cut(name, "label", randomize=False)
        affine = image.affine.numpy()
        if not np.array_equal(affine, labels.affine.numpy()):
            problems.append("image and label crops lie apart")
        hu, ids = image.numpy()[0], labels.numpy()[0]
        for number, ball in patient.balls.items():
            wanted = np.linalg.solve(affine, [*ball, 1])[:3]
            reach = patient.radius_mm / 1.5 + 2
            if number in seen or (wanted < reach).any() or (wanted > np.array(hu.shape) - 1 - reach).any():
                continue
            seen.add(number)
            near = np.linalg.norm(np.moveaxis(np.indices(hu.shape), 0, -1) - wanted, axis=-1) <= reach
            weights = np.clip(hu + 90, 0, None) * near
            bright = np.einsum("xyz,cxyz->c", weights, np.indices(hu.shape)) / max(weights.sum(), 1)
            marked = np.argwhere(ids == number).mean(axis=0) if (ids == number).any() else np.full(3, np.inf)
            for what, found in (("bright ball", bright), ("label", marked)):
                error = np.abs(found - wanted).max()
                if not error < 0.5:
                    problems.append(f"{what} {number} is {error:.2f} voxels away")
        if len(seen) == len(patient.balls):
            return problems
    return [*problems, f"only {sorted(seen)} were ever wholly in a crop"]


@pytest.mark.parametrize(
    ("tilt", "step"),
    [("oblique", 8), *(pytest.param(tilt, 1, marks=pytest.mark.full) for tilt in ("straight", "tilted", "oblique"))],
)
def test_marks_lie_in_crops_where_they_do_in_the_patient(
    patient: Any, tmp_path: Path, notes: Any, tilt: str, step: int
) -> None:
    (tmp_path / "scans").mkdir()
    chosen = patient.orientations[::step]
    pairs = [write_pair(patient, tmp_path / "scans", codes, patient.grid(codes, tilt)) for codes in chosen]
    names = {str(number): patient.names[str(number)] for number in range(4)}
    (tmp_path / "scans" / "dataset.json").write_text(json.dumps({"labels": names, "training": pairs}))
    summary = prepare(tmp_path / "scans" / "dataset.json", tmp_path / "store", workers=0)
    assert summary.exit_code == 0
    cut = RandStoreCrop(tmp_path / "store", (27, 25, 29)).set_random_state(seed=3)
    for codes in chosen:
        notes(FAMILY, f"{codes} {tilt}", problems_of(cut, codes, patient))
    assert not notes.wrong
