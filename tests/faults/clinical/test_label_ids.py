"""Ids 0 to 599 keep number and name through every file; a mask is made of logits that were taken back, not itself."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from monai.data import MetaTensor
from monai.transforms import Invertd
from torch import nn

from monai_ext.base import InputError, input_error_in
from monai_ext.outputs import LabelMapWriter, read_dicom_seg, write_dicom_seg, write_labels
from monai_ext.transforms import RegroupLabels, load_ct
from monai_ext.volumes import VolumeStore, open_series, prepare, read_labels

FAMILY = "label ids"
SHAPE = (17, 13, 11)
AFFINE = np.diag([-1.1, -1.7, 2.3, 1])
ALL = {number: f"structure {number}" for number in range(1, 600)}


def every_id(ids: list[int]) -> np.ndarray:
    labels = np.zeros(SHAPE, np.int64)
    labels.reshape(-1)[3 : 3 + 2 * len(ids) : 2] = ids
    return labels


def save(path: Path, values: np.ndarray, affine: np.ndarray) -> None:
    image = nib.Nifti1Image(values, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    nib.save(image, path)


def test_all_600_through_nifti_and_sidecar(tmp_path: Path, notes: Any) -> None:
    labels = every_id(list(range(600)))
    sidecar = write_labels(tmp_path / "a_seg.nii.gz", labels, AFFINE, ALL)
    image = nib.load(tmp_path / "a_seg.nii.gz")
    other = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "a_seg.nii.gz"))).T
    strict = read_labels(tmp_path / "a_seg.nii.gz", classes=ALL).voxels
    told = {entry["id"]: entry["name"] for entry in json.loads(sidecar.read_text())["labels"]}
    header = json.loads(image.header.extensions[0].get_content())["labels"]
    problems = [] if told == ALL and header == {str(n): name for n, name in ALL.items()} else ["names are others"]
    for number in range(600):
        places = [labels == number, np.asarray(image.dataobj) == number, other == number, strict == number]
        if not all(np.array_equal(places[0], place) for place in places[1:]):
            problems.append(f"voxels of id {number} are others")
    notes(FAMILY, "NIfTI of 600 ids", problems)
    assert not notes.wrong


@pytest.mark.parametrize(
    ("largest", "dtype"), [(255, "uint8"), (256, "uint16"), (599, "uint16"), (65535, "uint16"), (65536, "int32")]
)
def test_the_type_is_that_of_the_set(tmp_path: Path, notes: Any, largest: int, dtype: str) -> None:
    write_labels(tmp_path / "a.nii.gz", every_id([1]), AFFINE, {1: "one", largest: "last"})
    found = nib.load(tmp_path / "a.nii.gz").get_data_dtype().name
    notes(FAMILY, f"type for ids up to {largest}", [] if found == dtype else [f"it is {found}"])
    assert not notes.wrong


def test_ids_with_gaps_through_the_writer(tmp_path: Path, notes: Any) -> None:
    names = {0: "background", 7: "seven", 258: "two hundred and fifty-eight", 599: "last"}
    tensor = MetaTensor(torch.from_numpy(every_id([7, 258, 599, 258])[None]).float(), affine=torch.from_numpy(AFFINE))
    tensor.meta |= {"case": "a", "original_affine": torch.from_numpy(AFFINE), "spatial_shape": torch.tensor(SHAPE)}
    LabelMapWriter("pred", tmp_path, names)({"pred": tensor})
    written = np.asarray(nib.load(tmp_path / "a" / "a_seg.nii.gz").dataobj)
    told = {entry["id"] for entry in json.loads((tmp_path / "a" / "a_seg.json").read_text())["labels"]}
    problems = [] if np.array_equal(written, every_id([7, 258, 599, 258])) else ["voxels are others"]
    notes(FAMILY, "ids with gaps", problems + ([] if told == {7, 258, 599} else ["names are others"]))
    assert not notes.wrong


class Ramp(nn.Module):
    """Gives voxels one of 300 classes by their brightness."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = nn.Parameter(torch.zeros(1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot((image[:, 0] * 299).round().long(), 300).movedim(-1, 1).float() + 0 * self.seen


def test_300_classes_through_inference(segment: Callable[..., Path], tmp_path: Path, notes: Any) -> None:
    # One HU apart and on the network's own grid, so that no voxel lies between two classes.
    hu = np.full((23, 19, 17), -1000, np.int16)
    hu[2:-2, 2:-2, 2:-2] = (np.arange(19 * 15 * 13) % 300).reshape(19, 15, 13) - 150
    save(tmp_path / "ct.nii.gz", hu, np.diag([-1.5, -1.5, 1.5, 1]))
    labels = {str(number): f"class {number}" for number in range(300)}
    settings = {"network": Ramp(), "labels": labels, "window_hu": [-150, 149], "image_size": [24, 24, 24]}
    segment(tmp_path / "ct.nii.gz", tmp_path / "out", **settings)
    written = np.asarray(nib.load(tmp_path / "out" / "ct" / "ct_seg.nii.gz").dataobj)
    expected = np.clip(hu.astype(int) + 150, 0, 299)
    wrong = int((written != expected).sum())
    notes(FAMILY, "300 classes through inference", [f"{wrong} voxels are of another class"] if wrong else [])
    assert not notes.wrong


def test_label_maps_of_any_numbers_are_regrouped(tmp_path: Path, notes: Any) -> None:
    volume = every_id([5, 52, 599, 300, 17])
    found = RegroupLabels({1: [5], 2: [52, 599]})(MetaTensor(torch.from_numpy(volume[None]).float())).numpy()[0]
    expected = np.where(volume == 5, 1, np.where(np.isin(volume, [52, 599]), 2, 0))
    notes(FAMILY, "regrouped", [] if np.array_equal(found, expected) else ["classes are others"])
    assert not notes.wrong


def test_all_600_through_the_store(tmp_path: Path, notes: Any) -> None:
    hu = np.full((23, 19, 17), -1000, np.int16)
    hu[2:-2, 2:-2, 2:-2] = 40
    labels = np.zeros(hu.shape, np.uint16)
    labels.reshape(-1)[:600] = range(600)
    for name, values in (("ct", hu), ("ids", labels)):
        save(tmp_path / f"{name}.nii.gz", values, np.diag([1.5, 1.5, 1.5, 1]))
    content = {"labels": {str(n): name for n, name in ALL.items()} | {"0": "background"}}
    content["training"] = [{"image": "ct.nii.gz", "label": "ids.nii.gz"}]
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    assert prepare(tmp_path / "dataset.json", tmp_path / "store", workers=0).exit_code == 0
    store = VolumeStore(tmp_path / "store")
    same = np.array_equal(store.volume("ct", "label"), labels)
    names = store.record("ct").label_source
    assert names is not None
    problems = [] if same else ["voxels are others"]
    problems += [] if {n: s for n, s in names.names.items() if n} == ALL else ["names are others"]
    notes(FAMILY, "store of 600 ids", problems)
    assert not notes.wrong


@pytest.mark.full
def test_dicom_seg_holds_as_many_as_a_segment_number_counts(
    write_series: Callable[..., Path], tmp_path: Path, notes: Any
) -> None:
    pytest.importorskip("highdicom", reason="pip install 'monai-ext[dicom]'")
    series = open_series(write_series(tmp_path / "ct", np.random.default_rng(3).integers(-200, 300, SHAPE)))
    labels = every_id(list(range(600)))
    about = {"algorithm": "a", "version": "1", "case": "ct"}
    path = write_dicom_seg(tmp_path / "a.dcm", labels, series.affine, series.headers(), ALL, **about)
    found, names = read_dicom_seg(path, series.headers())
    problems = [] if np.array_equal(found, labels) and names == ALL else ["labels or names are others"]
    notes(FAMILY, "DICOM SEG of 599 segments", problems)
    # A segment's number is a US of 16 bits that starts at 1 without a gap (PS3.3 C.8.20.4.1).
    for case, wrong in (
        ("with a gap", {1: "one", 3: "three"}),
        ("beyond 16 bits", dict.fromkeys(range(1, 65537), "x")),
    ):
        problems = ["it was written"]
        try:
            write_dicom_seg(tmp_path / "b.dcm", every_id([1]), series.affine, series.headers(), wrong, **about)
        except InputError:
            problems.clear()
        notes(FAMILY, f"DICOM SEG {case}", problems, good="caught")
    assert not notes.wrong


def dice(one: np.ndarray, two: np.ndarray) -> float:
    return float(2 * (one & two).sum() / (one.sum() + two.sum()))


def test_logits_are_taken_back_and_not_the_mask(
    segment: Callable[..., Path], patient: Any, tmp_path: Path, notes: Any
) -> None:
    affine = patient.grid("LPS", "oblique")
    # Brightness falls evenly from the centre, so that resampling the image loses nothing that a logit needs.
    shape = (41, 37, 31)
    place = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    hu = np.rint(np.clip(250 - 17 * np.linalg.norm(place - patient.centre_mm, axis=-1), -175, 250)).astype(np.int16)
    hu[:2] = -1000
    save(tmp_path / "ct.nii.gz", hu, affine)
    truth = hu > 37.5  # half of the window
    names = {"0": "background", "1": "ball"}
    segment(tmp_path / "ct.nii.gz", tmp_path / "out", network=Half(), spacing_mm=[2.0] * 3, labels=names)
    written = np.asarray(nib.load(tmp_path / "out" / "ct" / "ct_seg.nii.gz").dataobj) == 1
    chain = load_ct(spacing_mm=(2, 2, 2))
    data = chain({"image": tmp_path / "ct.nii.gz"})
    data["pred"] = MetaTensor((data["image"].as_tensor() > 0.5).float(), meta=data["image"].meta)
    back = Invertd("pred", chain, orig_keys="image", nearest_interp=True)(data)["pred"].numpy()[0] > 0.5
    ours, inverted = dice(written, truth), dice(back, truth)
    problems = [] if ours > 0.97 else [f"Dice is {ours:.3f}"]
    problems += [] if inverted < 0.94 else [f"inverting the mask does as well ({inverted:.3f}), so this tells nothing"]
    notes(FAMILY, "logits taken back linearly", problems)
    assert not notes.wrong


class Half(nn.Module):
    """Marks what is brighter than half of the window, by a logit that changes linearly."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = nn.Parameter(torch.zeros(1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(image), image - 0.5 + 0 * self.seen], dim=1)


class Broken(nn.Module):
    """Returns one number that is none."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(image.shape[0], 4, *image.shape[2:])
        logits[0, 2, 9, 10, 11] = self.value
        return logits


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_no_numbers_are_refused(
    segment: Callable[..., Path], patient: Any, tmp_path: Path, notes: Any, value: float
) -> None:
    path = patient.write(tmp_path / "ct.nii.gz", patient.grid("LPS"))
    problems = ["a result was written"]
    try:
        segment(path, tmp_path / "out", network=Broken(value))
    except RuntimeError as error:
        cause = input_error_in(error)
        written = [file for file in tmp_path.rglob("out/**/*") if file.is_file() and file.name != "provenance.json"]
        problems = [] if "NaN or infinite" in str(cause) and not written else [str(cause)]
    notes("logits", f"{value}", problems, good="caught")
    assert not notes.wrong
