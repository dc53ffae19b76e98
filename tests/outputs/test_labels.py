"""Label volumes: what third-party readers find in them, and that nothing half-written is left."""

import errno
import hashlib
import json
import os
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from monai_ext.base import GeometryError, LabelError, WriteError
from monai_ext.outputs import write_labels
from monai_ext.volumes import affine_of_itk, read_labels

SHAPE = (7, 11, 13)
NAMES = {1: "liver", 2: "Milz (spleen)", 5: "kidney_left"}


def labels(largest: int = 5) -> np.ndarray:
    out = np.zeros(SHAPE, np.int64)
    out[1:4, 2:9, 3:5], out[5, 6:8, 7:12] = 1, largest
    return out


def affine_of(axes: str, degrees: float = 0.0) -> np.ndarray:
    turn = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(tuple(axes)), (1, 1, 1))
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    affine = np.eye(4)
    about = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    affine[:3, :3] = about @ turn[:3, :3] * (0.7, 1.3, 5.0)
    affine[:3, 3] = -131.7, 217.3, 953.1
    return affine


ORIENTATIONS = ["".join(axes) for order in permutations(("RL", "AP", "SI")) for axes in product(*order)]


@pytest.mark.parametrize("degrees", [0.0, 12.0, 37.0])
@pytest.mark.parametrize("axes", ORIENTATIONS)
def test_simpleitk_and_nibabel_find_voxels_and_place(tmp_path, axes, degrees):
    affine = affine_of(axes, degrees)
    write_labels(tmp_path / "a.nii", labels(), affine, NAMES)
    image = SimpleITK.ReadImage(str(tmp_path / "a.nii"))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0), labels())
    # float32 holds an origin of 1 m to 6e-5 mm, and a direction to 1e-7 over 65 mm.
    np.testing.assert_allclose(affine_of_itk(image), affine, rtol=0, atol=2e-4)
    other = nib.load(tmp_path / "a.nii")
    np.testing.assert_array_equal(np.asarray(other.dataobj), labels())
    np.testing.assert_allclose(other.get_sform(), affine, rtol=0, atol=1e-4)
    # A float32 quaternion near a half turn loses 3e-4 of a radian, over 65 mm.
    np.testing.assert_allclose(other.get_qform(), affine, rtol=0, atol=0.02)
    assert (int(other.header["sform_code"]), int(other.header["qform_code"])) == (1, 1)
    assert other.header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize(
    ("largest", "dtype"), [(5, np.uint8), (255, np.uint8), (256, np.uint16), (599, np.uint16), (70000, np.int32)]
)
def test_the_type_holds_every_name(tmp_path, largest, dtype):
    names = NAMES | {largest: "last"}
    write_labels(tmp_path / "a.nii.gz", labels(largest), affine_of("LPS"), names)
    image = SimpleITK.ReadImage(str(tmp_path / "a.nii.gz"))
    assert SimpleITK.GetArrayViewFromImage(image).dtype == dtype
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0), labels(largest))
    # The type is the model's, not the scan's: without the last label it stays the same.
    write_labels(tmp_path / "b.nii.gz", labels(1), affine_of("LPS"), names)
    assert nib.load(tmp_path / "b.nii.gz").get_data_dtype() == dtype


def test_names_in_header_and_sidecar(tmp_path):
    sidecar = write_labels(tmp_path / "ct_seg.nii.gz", labels(), affine_of("RAS"), NAMES | {0: "background"}, case="ct")
    assert sidecar == tmp_path / "ct_seg.json"
    extension = nib.load(tmp_path / "ct_seg.nii.gz").header.extensions[0]
    assert extension.get_code() == 6
    table = json.loads(extension.get_content())
    assert table == {"labels": {"0": "background", "1": "liver", "2": "Milz (spleen)", "5": "kidney_left"}}
    content = json.loads(sidecar.read_text())
    voxel_ml = 0.7 * 1.3 * 5 / 1000
    assert [entry | {"volume_ml": 0} for entry in content["labels"]] == [
        {"id": 1, "name": "liver", "voxels": 42, "volume_ml": 0},
        {"id": 2, "name": "Milz (spleen)", "voxels": 0, "volume_ml": 0},
        {"id": 5, "name": "kidney_left", "voxels": 10, "volume_ml": 0},
    ]
    assert [entry["volume_ml"] for entry in content["labels"]] == pytest.approx(
        [42 * voxel_ml, 0, 10 * voxel_ml],
        abs=5.1e-4,  # three digits
    )
    assert (content["case"], content["file"], content["shape"]) == ("ct", "ct_seg.nii.gz", [7, 11, 13])
    np.testing.assert_array_equal(content["affine_ras"], affine_of("RAS"))
    assert str(tmp_path) not in sidecar.read_text()


def test_our_own_strict_reader_takes_them(tmp_path):
    write_labels(tmp_path / "a.nii.gz", labels(), affine_of("PIR", 12), NAMES)
    back = read_labels(tmp_path / "a.nii.gz", classes=NAMES)
    np.testing.assert_array_equal(back.voxels, labels())


def test_the_same_labels_give_the_same_bytes(tmp_path):
    sums = []
    for name in ("one", "two"):
        write_labels(tmp_path / name / "a.nii.gz", labels(), affine_of("LPS"), NAMES)
        sums.append(hashlib.sha256((tmp_path / name / "a.nii.gz").read_bytes()).hexdigest())
    assert sums[0] == sums[1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, np.uint16])
def test_whole_numbers_of_any_type(tmp_path, dtype):
    write_labels(tmp_path / "a.nii", labels().astype(dtype), affine_of("LPS"), NAMES)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.nii").voxels, labels())


@pytest.mark.parametrize(
    ("values", "sentence"),
    [(7, "labels hold 7, which have no name"), (-1, "labels hold -1"), (0.5, "labels hold 0.5"), (np.nan, "nan")],
)
def test_ids_without_a_name_are_refused(tmp_path, values, sentence):
    wrong = labels().astype(np.float64)
    wrong[0, 0, 0] = values
    with pytest.raises(LabelError, match=f"^a: .*{sentence}") as caught:
        write_labels(tmp_path / "a.nii.gz", wrong, affine_of("LPS"), NAMES)
    assert caught.value.code == "label.names"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [-3, 2**31])
def test_names_of_impossible_ids(tmp_path, number):
    with pytest.raises(LabelError, match="do not fit a NIfTI"):
        write_labels(tmp_path / "a.nii.gz", labels(), affine_of("LPS"), NAMES | {number: "far"})


def test_wrong_shape_affine_and_name(tmp_path):
    with pytest.raises(GeometryError, match=r"^a: labels of shape \(1, 7, 11, 13\) are no volume"):
        write_labels(tmp_path / "a.nii", labels()[None], affine_of("LPS"), NAMES)
    sheared = affine_of("LPS")
    sheared[0, 1] += 0.4
    with pytest.raises(GeometryError, match=r"^a: .*right angles"):
        write_labels(tmp_path / "a.nii", labels(), sheared, NAMES)
    with pytest.raises(WriteError, match=r"a\.png: name the label volume"):
        write_labels(tmp_path / "a.png", labels(), affine_of("LPS"), NAMES)
    assert not list(tmp_path.iterdir())


def no_space(*args: object, **kwargs: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def half_written(image: nib.Nifti1Image, path: Path) -> None:
    """A writer that ignores a full disk, as some do: the lower half is zero and nobody says so."""
    voxels = np.asarray(image.dataobj).copy()
    voxels[..., voxels.shape[2] // 2 :] = 0
    nib.Nifti1Image(voxels, image.affine, image.header).to_filename(path)


def mirrored(image: nib.Nifti1Image, path: Path) -> None:
    nib.Nifti1Image(np.asarray(image.dataobj), np.diag([-1, 1, 1, 1]) @ image.affine).to_filename(path)


def other_type(image: nib.Nifti1Image, path: Path) -> None:
    nib.Nifti1Image(np.asarray(image.dataobj, np.float32), image.affine).to_filename(path)


def nothing(image: nib.Nifti1Image, path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("writer", "sentence"),
    [
        (no_space, r"^a\.nii\.gz: could not be written \(No space left on device\)"),
        (half_written, "^a: SimpleITK reads other voxels than were written"),
        (other_type, "^a: SimpleITK reads other voxels than were written"),
        (mirrored, "^a: SimpleITK reads another place than was written"),
        (nothing, "^a: SimpleITK reads a file that it cannot open"),
    ],
)
def test_what_was_not_written_whole_is_not_kept(tmp_path, monkeypatch, writer, sentence):
    write_labels(tmp_path / "a.nii.gz", labels(1), affine_of("LPS"), NAMES)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(nib, "save", writer)
    with pytest.raises(WriteError, match=sentence):
        write_labels(tmp_path / "a.nii.gz", labels(), affine_of("LPS"), NAMES)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
