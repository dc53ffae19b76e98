"""The strict reader as a transform: tensors, metadata without paths, and refusals."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor, list_data_collate

from monai_ext.base import GeometryError, LabelError, ScanError, SettingError
from monai_ext.transforms import ReadScand

SHAPE = (17, 19, 23)


def write_scan(path: Path, seed: int = 0, affine: np.ndarray | None = None) -> Path:
    voxels = np.random.default_rng(seed).integers(-1010, -990, SHAPE).astype(np.int16)
    voxels[3:14, 4:15] += 1040
    return write(path, voxels, affine)


def write(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels, np.diag([-1.5, 2, 2.5, 1]) if affine is None else affine)
    image.set_sform(image.affine, 1)
    nib.save(image, path)
    return path


def labels() -> np.ndarray:
    out = np.zeros(SHAPE, np.uint8)
    out[5:9, 3:11, 2:19] = 2
    return out


def test_tensor_and_metadata(tmp_path):
    path = write_scan(tmp_path / "Doe^Jane" / "ct_7.nii.gz")
    out = ReadScand("image")({"image": path, "other": 3})
    image = out["image"]
    assert isinstance(image, MetaTensor)
    assert (image.shape, image.dtype, image.affine.dtype) == ((1, *SHAPE), torch.float32, torch.float64)
    np.testing.assert_array_equal(image[0].numpy(), nib.load(path).get_fdata())
    np.testing.assert_array_equal(image.affine.numpy(), nib.load(path).affine)
    np.testing.assert_array_equal(image.meta["original_affine"].numpy(), nib.load(path).affine)
    assert tuple(image.meta["spatial_shape"].tolist()) == SHAPE
    assert (image.meta["filename_or_obj"], image.meta["case"]) == ("ct_7.nii.gz", "ct_7")
    assert (out["case"], out["other"]) == ("ct_7", 3)
    assert "Doe" not in repr(image.meta)


def test_the_entry_may_name_its_case(tmp_path):
    out = ReadScand("image", "label")(
        {
            "image": write_scan(tmp_path / "a.nii"),
            "label": write(tmp_path / "b.nii", labels()),
            "case": "case-12",
        }
    )
    assert out["case"] == out["image"].meta["case"] == out["label"].meta["case"] == "case-12"


def test_labels_are_whole_float32_on_the_images_grid(tmp_path):
    out = ReadScand("image", "label", classes=[1, 2])(
        {"label": write(tmp_path / "seg.nii", labels()), "image": write_scan(tmp_path / "ct.nii")}
    )
    np.testing.assert_array_equal(out["label"][0].numpy(), labels())
    assert (out["label"].dtype, out["case"]) == (torch.float32, "ct")


def test_labels_are_checked_against_the_image_and_the_classes(tmp_path):
    entry = {"image": write_scan(tmp_path / "ct.nii"), "label": write(tmp_path / "seg.nii", labels())}
    with pytest.raises(LabelError, match=r"^seg: label ids 2 are not among the classes 0, 1; "):
        ReadScand("image", "label", classes=[1])(entry)
    entry["label"] = write(tmp_path / "moved.nii", labels(), np.diag([1.5, 2, 2.5, 1]))
    with pytest.raises(GeometryError, match=r"^moved: the labels lie"):
        ReadScand("image", "label")(entry)


def test_labels_alone(tmp_path):
    out = ReadScand((), "label")({"label": write(tmp_path / "seg.nii", labels())})
    assert out["case"] == "seg"


def test_the_fingerprint_tells_scans_apart_but_not_copies(tmp_path):
    paths = [write_scan(tmp_path / "a" / "ct.nii"), write_scan(tmp_path / "b" / "ct.nii.gz")]
    paths.append(write_scan(tmp_path / "c" / "ct.nii", seed=1))
    paths.append(write_scan(tmp_path / "d" / "ct.nii", affine=np.diag([1.5, 2, 2.5, 1])))
    prints = [ReadScand("image")({"image": path})["image"].meta["scan_sha256"] for path in paths]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3
    assert all(len(text) == 64 for text in prints)


def test_batches_collate(tmp_path):
    read = ReadScand("image")
    items = [read({"image": write_scan(tmp_path / f"{seed}.nii", seed)}) for seed in (0, 1)]
    batch = list_data_collate(items)
    assert batch["image"].shape == (2, 1, *SHAPE)
    assert batch["case"] == ["0", "1"]


def test_assume_hu_is_handed_on(tmp_path):
    path = write(tmp_path / "mr.nii", np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16))
    with pytest.raises(ScanError, match=r"^mr: .*--assume-hu"):
        ReadScand("image")({"image": path})
    assert ReadScand("image", assume_hu=True)({"image": path})["image"].max() < 900


def test_keys(tmp_path):
    with pytest.raises(SettingError, match=r"image: named both as an image and as labels"):
        ReadScand("image", "image")
    with pytest.raises(KeyError, match=r"label"):
        ReadScand("image", "label")({"image": write_scan(tmp_path / "ct.nii")})
    out = ReadScand("image", "label", allow_missing_keys=True)({"image": write_scan(tmp_path / "ct.nii")})
    assert set(out) == {"image", "case"}
