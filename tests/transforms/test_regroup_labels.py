"""Labels with numbers of their own become the classes of a network, wherever they lie."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_ext.base import LabelError
from monai_ext.transforms import RegroupLabels, RegroupLabelsd, load_ct

SHAPE = (17, 19, 23)
AFFINE = np.array([[-1.5, 0, 0, 31], [0, 2, 0, -17], [0, 0, 2.5, 53], [0, 0, 0, 1]])


def ids_of_many_organs() -> np.ndarray:
    return np.random.default_rng(0).choice([0, 1, 2, 3, 5, 52, 117, 16777215], SHAPE).astype(np.int32)


def expected(ids: np.ndarray) -> np.ndarray:
    out = np.zeros(ids.shape, np.float32)
    for voxel in np.ndindex(ids.shape):  # the definition, voxel by voxel
        out[voxel] = {5: 1, 2: 2, 3: 2, 16777215: 3}.get(int(ids[voxel]), 0)
    return out


def test_listed_ids_become_their_class_and_all_others_background() -> None:
    ids = ids_of_many_organs()
    affine = torch.from_numpy(AFFINE)
    labels = MetaTensor(torch.from_numpy(ids).float()[None], affine=affine, meta={"case": "ct_7"})
    out = RegroupLabels({1: [5], 2: (3, 2), 3: [16777215]})(labels)
    np.testing.assert_array_equal(out[0].numpy(), expected(ids))
    assert out.dtype == torch.float32
    assert (out.meta["case"], out.affine.tolist()) == ("ct_7", AFFINE.tolist())
    np.testing.assert_array_equal(labels[0].numpy(), ids)  # the input stays


def test_a_class_may_have_the_number_of_another_ones_id() -> None:
    swapped = RegroupLabelsd("label", {1: [2], 2: [1]})({"label": torch.tensor([[0, 1, 2, 3]]), "case": "a"})
    assert swapped["label"].tolist() == [[0, 2, 1, 0]]
    assert swapped["case"] == "a"


@pytest.mark.parametrize("key", ["label_keys", "native_label_keys"])
def test_loading_regroups_what_it_trains_on_and_what_it_scores_against(tmp_path: Path, key: str) -> None:
    ids = ids_of_many_organs()
    voxels = np.where(ids > 0, 40, -1000).astype(np.int16)
    for name, content in (("ct", voxels), ("seg", ids)):
        image = nib.Nifti1Image(content, AFFINE)
        image.set_sform(AFFINE, 1)
        nib.save(image, tmp_path / f"{name}.nii")
    entry = {"image": tmp_path / "ct.nii", "label": tmp_path / "seg.nii"}
    settings = {key: "label", "spacing_mm": (1.5, 2, 2.5), "classes": [1, 2, 3]}
    found = load_ct(**settings, label_ids={1: [5], 2: [2, 3], 3: [16777215]})(entry)["label"][0].numpy()
    # Resampling to the scan's own spacing only turns it to RAS.
    np.testing.assert_array_equal(found[::-1] if key == "label_keys" else found, expected(ids))
    with pytest.raises(RuntimeError) as caught:
        load_ct(**settings)(entry)
    assert isinstance(caught.value.__cause__, LabelError)  # without label_ids the file's ids are the classes
