"""Names of a submitted label's ids: by id or name, never by place."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from monai_ext.base import LabelError
from monai_ext.label.label_names import names_of_label

KNOWN = {1: "liver", 2: "spleen", 3: "aorta"}


@pytest.fixture
def label(tmp_path: Path) -> Path:
    """A label map with 2 alone."""
    values = np.zeros((5, 7, 3), np.uint8)
    values[1:3, 2:5, 1] = 2
    path = tmp_path / "label.nii.gz"
    image = nib.Nifti1Image(values, np.eye(4))
    image.set_sform(np.eye(4), 1)
    image.header.set_xyzt_units(2)
    nib.save(image, path)
    return path


@pytest.mark.parametrize(
    "told",
    [None, [], [{"name": "spleen"}], [{"name": "Spleen", "idx": 2}], "spleen", [{"idx": 2}], [3]],
)
def test_the_models_names_stand(label: Path, told: Any) -> None:
    assert names_of_label(told, KNOWN, label, "case") == KNOWN


def test_a_new_label_is_added_under_its_id(label: Path) -> None:
    told = [{"name": "stent", "idx": 4}, {"name": "spleen"}]
    assert names_of_label(told, KNOWN, label, "case") == KNOWN | {4: "stent"}


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ([{"name": "spleen", "idx": 1}], r"case: spleen is told as id 1, but is 2 here"),
        ([{"name": "stent", "idx": 2}], r"case: id 2 is told as another label than spleen"),
        ([{"name": "lesion"}], r"case: lesion is none of the models' labels; tell its id"),
        ([{"name": "lesion", "idx": True}], r"case: lesion is none of the models' labels; tell its id"),
        ([{"name": "liver"}], r"case: ids 2 have no name; those with one are 1 liver$"),
        ([{"name": "stent", "idx": 4}], r"case: ids 2 have no name; those with one are 4 stent$"),
    ],
)
def test_contradictions_are_refused(label: Path, told: Any, sentence: str) -> None:
    with pytest.raises(LabelError, match=sentence):
        names_of_label(told, KNOWN, label, "case")


def test_an_id_without_a_name_is_refused(label: Path) -> None:
    with pytest.raises(LabelError, match=r"case: ids 2 have no name; those with one are 1 liver"):
        names_of_label(None, {1: "liver"}, label, "case")
