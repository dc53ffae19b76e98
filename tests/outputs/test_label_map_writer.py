"""The writer at the end of inference: the scan's own grid, one folder a case, no overwriting."""

import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Flip, Invertd, Orientationd

from monai_ext.base import GeometryError, LabelError, WriteError
from monai_ext.outputs import LabelMapWriter

SHAPE = (7, 11, 13)
NAMES = {"1": "liver", "2": "spleen"}  # text, as JSON has them
AFFINE = np.array([[-1.1, 0, 0, 20], [0, -1.3, 0, 30], [0, 0, 2.9, -40], [0, 0, 0, 1]])


def labels() -> np.ndarray:
    out = np.zeros(SHAPE, np.uint8)
    out[1:4, 2:9, 3:5], out[5, 6:8, 7:12] = 1, 2
    return out


def tensor(values: torch.Tensor | np.ndarray, case: str = "case_7", fingerprint: str | None = "ab") -> MetaTensor:
    affine = torch.from_numpy(AFFINE)
    meta = {"original_affine": affine.clone(), "spatial_shape": torch.tensor(SHAPE), "case": case}
    if fingerprint:
        meta["scan_sha256"] = fingerprint
    return MetaTensor(torch.as_tensor(values), affine=affine, meta=meta)


def logits() -> torch.Tensor:
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(labels()).long(), 3).movedim(-1, 0)
    return one_hot * 2.5 - torch.rand(one_hot.shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_logits_become_labels(tmp_path, dtype):
    data = {"pred": tensor(logits().to(dtype)), "more": 1}
    assert LabelMapWriter("pred", tmp_path, NAMES)(data)["more"] == 1
    image = nib.load(tmp_path / "case_7" / "case_7_seg.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj), labels())
    np.testing.assert_array_equal(image.affine, AFFINE.astype(np.float32))
    content = json.loads((tmp_path / "case_7" / "case_7_seg.json").read_text())
    assert content["scan_sha256"] == "ab"
    assert [entry["voxels"] for entry in content["labels"]] == [42, 10]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
def test_labels_are_written_as_they_are(tmp_path, dtype):
    LabelMapWriter("pred", tmp_path, NAMES)({"pred": tensor(torch.from_numpy(labels())[None].to(dtype))})
    image = nib.load(tmp_path / "case_7" / "case_7_seg.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj), labels())


def test_after_invertd_the_affine_is_the_files_own_bit_for_bit(tmp_path):
    chain = Compose([Orientationd("image", "RAS", labels=(("L", "R"), ("P", "A"), ("I", "S")))])
    data = chain({"image": tensor(torch.zeros(1, *SHAPE))})
    turned = chain({"image": tensor(logits())})["image"]
    data["pred"] = MetaTensor(turned.as_tensor())
    data = Invertd("pred", chain, orig_keys="image", nearest_interp=False)(data)
    LabelMapWriter("pred", tmp_path, NAMES)(data)
    image = nib.load(tmp_path / "case_7" / "case_7_seg.nii.gz")
    np.testing.assert_array_equal(image.affine, AFFINE.astype(np.float32))
    np.testing.assert_array_equal(np.asarray(image.dataobj), labels())


def test_what_is_not_inverted_is_refused(tmp_path):
    flipped = Flip(spatial_axis=0)(tensor(logits()))
    with pytest.raises(GeometryError, match=r"^case_7: 7x11x13 voxels are not on the scan's own grid; put Invertd"):
        LabelMapWriter("pred", tmp_path, NAMES)({"pred": flipped})
    with pytest.raises(GeometryError, match=r"^case_7: 7x11x12 voxels are not on the scan's own grid"):
        LabelMapWriter("pred", tmp_path, NAMES)({"pred": tensor(logits()[..., :-1])})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite(tmp_path, value):
    bad = logits()
    bad[1, 2, 3, 4] = value
    with pytest.raises(WriteError, match=r"^case_7: 1 of 3003 logits are NaN or infinite, nothing was written"):
        LabelMapWriter("pred", tmp_path, NAMES)({"pred": tensor(bad)})
    assert not list(tmp_path.iterdir())


def test_more_channels_than_names(tmp_path):
    with pytest.raises(LabelError, match="labels hold 2, which have no name"):
        LabelMapWriter("pred", tmp_path, {1: "liver"})({"pred": tensor(logits())})


def test_a_batch_is_refused(tmp_path):
    with pytest.raises(GeometryError, match="give one volume without the batch"):
        LabelMapWriter("pred", tmp_path, NAMES)({"pred": tensor(logits()[None])})


def test_the_same_scan_again_but_not_another_one(tmp_path):
    writer = LabelMapWriter("pred", tmp_path, NAMES)
    writer({"pred": tensor(logits())})
    writer({"pred": tensor(logits())})
    before = (tmp_path / "case_7" / "case_7_seg.nii.gz").read_bytes()
    for fingerprint in ("cd", None):
        with pytest.raises(WriteError, match=r"^case_7: case_7_seg\.nii\.gz exists .* another scan") as caught:
            LabelMapWriter("pred", tmp_path, NAMES)({"pred": tensor(logits() * 0, fingerprint=fingerprint)})
        assert caught.value.code == "output.taken"
    assert (tmp_path / "case_7" / "case_7_seg.nii.gz").read_bytes() == before
    writer({"pred": tensor(logits(), case="case_8", fingerprint="cd")})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["case_7", "case_8"]


@pytest.mark.parametrize("sidecar", ["", "[]", "{}", None])
def test_files_of_unknown_origin_are_not_overwritten(tmp_path, sidecar):
    (tmp_path / "case_7").mkdir()
    (tmp_path / "case_7" / "case_7_seg.nii.gz").write_bytes(b"someone's work")
    if sidecar is not None:
        (tmp_path / "case_7" / "case_7_seg.json").write_text(sidecar)
    with pytest.raises(WriteError, match="another scan"):
        LabelMapWriter("pred", tmp_path, NAMES)({"pred": tensor(logits())})
    assert (tmp_path / "case_7" / "case_7_seg.nii.gz").read_bytes() == b"someone's work"


def test_a_run_killed_before_the_sidecar_is_repeated_and_keeps_others_out(tmp_path):
    writer, folder = LabelMapWriter("pred", tmp_path, NAMES), tmp_path / "case_7"
    writer({"pred": tensor(logits())})
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "case_7_seg.json").unlink()
    with pytest.raises(WriteError, match="another scan"):
        writer({"pred": tensor(logits(), fingerprint="cd")})
    writer({"pred": tensor(logits())})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole


def test_the_sidecar_tells_whether_the_volume_is_the_one_it_describes(tmp_path):
    LabelMapWriter("pred", tmp_path, NAMES)({"pred": tensor(logits())})
    told = json.loads((tmp_path / "case_7" / "case_7_seg.json").read_text())
    assert told["sha256"] == hashlib.sha256((tmp_path / "case_7" / "case_7_seg.nii.gz").read_bytes()).hexdigest()


@pytest.mark.parametrize("case", ["..", "../up", "/abs", "a/b", "a\\b", ".", "line\nbreak", "nul\0"])
def test_cases_that_are_no_folder(tmp_path, case):
    with pytest.raises(WriteError, match="this case id cannot name a folder") as caught:
        LabelMapWriter("pred", tmp_path / "out", NAMES)({"pred": tensor(logits(), case=case)})
    assert caught.value.code == "output.case"
    assert not list(tmp_path.iterdir())


def test_the_case_of_the_entry_serves_where_the_tensor_has_none(tmp_path):
    LabelMapWriter("pred", tmp_path, NAMES)({"pred": tensor(logits(), case=""), "case": "from_entry"})
    assert (tmp_path / "from_entry" / "from_entry_seg.nii.gz").exists()
    with pytest.raises(WriteError, match="'': this case id cannot name a folder"):
        LabelMapWriter("pred", tmp_path, NAMES)({"pred": tensor(logits(), case="")})


def test_a_picture_on_request(tmp_path):
    image = tensor(torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(2)))
    LabelMapWriter("pred", tmp_path, NAMES, overlay=True, postfix="organs")({"pred": tensor(logits()), "image": image})
    names = sorted(path.name for path in (tmp_path / "case_7").iterdir())
    assert names == ["case_7_organs.json", "case_7_organs.nii.gz", "case_7_organs.png"]


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(WriteError, match="could not be written"):
        LabelMapWriter("pred", Path(tmp_path) / "out", NAMES)({"pred": tensor(logits())})


def test_rounding_on_the_way_back_is_not_written(tmp_path):
    result = tensor(logits())
    result.affine = result.affine + torch.tensor([[0, 0, 0, 1e-4]] * 3 + [[0] * 4], dtype=torch.float64)
    LabelMapWriter("pred", tmp_path, NAMES)({"pred": result})
    content = json.loads((tmp_path / "case_7" / "case_7_seg.json").read_text())
    np.testing.assert_array_equal(content["affine_ras"], AFFINE)


def test_scans_without_a_fingerprint_never_overwrite(tmp_path):
    writer = LabelMapWriter("pred", tmp_path, NAMES)
    writer({"pred": tensor(logits(), fingerprint=None)})
    with pytest.raises(WriteError, match="another scan"):
        writer({"pred": tensor(logits(), fingerprint=None)})
