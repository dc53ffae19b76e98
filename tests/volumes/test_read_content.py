"""What the voxels say: HU or not, ids or not, and whether labels lie on their image."""

import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from monai_ext.base import GeometryError, InputError, LabelError, ScanError
from monai_ext.volumes import Scan, read_labels, read_scan, reading_inside
from monai_ext.volumes.check_values import check_hu, label_ids
from monai_ext.volumes.checks import largest_shift_mm

RNG = np.random.default_rng(3)
SHAPE = (17, 19, 23)
AFFINE = np.diag([1.5, 2.0, 2.5, 1.0])


def torso(air: float = -1000, fat: float = -100, tissue: float = 45, noise: float = 12) -> np.ndarray:
    voxels = np.full(SHAPE, air)
    voxels[3:14, 4:15] = fat
    voxels[5:12, 6:13] = tissue
    return voxels + RNG.normal(0, noise, SHAPE)


def with_padding(padding: float) -> np.ndarray:
    voxels = torso().round()
    voxels[:2] = padding
    return voxels


def body_crop() -> np.ndarray:
    """A crop inside the belly: soft tissue, fat, and 2 voxels in 1000 of bowel gas."""
    voxels = RNG.normal(30, 60, SHAPE)
    voxels[4:6, 4:6, 4:8] = -930
    return voxels


HU = {
    "torso": torso(),
    "noisy": torso(noise=60),
    "padded -2000": with_padding(-2000),
    "padded -3024": with_padding(-3024),
    "padded -1024": with_padding(-1024),
    "crop": body_crop(),
    "lung": torso(tissue=-850, fat=-870, noise=30) + (RNG.random(SHAPE) < 0.05) * 900,
    "metal": np.where(RNG.random(SHAPE) < 0.005, 20000, torso()),
}
OTHER = {
    "mr": np.abs(RNG.normal(300, 200, SHAPE)),
    "8 bit": RNG.integers(0, 256, SHAPE),
    "without rescale": torso().round() + 1024,
    "without rescale, padded": np.where(with_padding(-2000) == -2000, -2000, torso().round() + 1024),
    "rescaled twice": torso() - 1024,
    "rescaled twice, clipped": np.clip(torso() - 1024, -1024, None),
    "z-scored": (torso() - torso().mean()) / torso().std(),
    "windowed": np.clip((torso() + 175) / 425, 0, 1),
    "thousandths": torso() / 1000,
    "phase": RNG.integers(-4096, 4096, SHAPE),
    "labels": RNG.integers(0, 40, SHAPE),
}


@pytest.mark.parametrize("kind", HU)
def test_ct_passes(kind):
    out = check_hu(HU[kind], "case_7", assume_hu=False)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, HU[kind], rtol=1e-6)  # float32


@pytest.mark.parametrize("kind", OTHER)
def test_what_is_not_hu_is_refused_unless_assumed(kind):
    low, high = OTHER[kind].min(), OTHER[kind].max()
    sentence = rf"^case_7: values from {low:g} to {high:g} do not look like CT .*--assume-hu".replace("+", r"\+")
    with pytest.raises(ScanError, match=sentence) as caught:
        check_hu(OTHER[kind], "case_7", assume_hu=False)
    assert caught.value.code == "scan.not_hu"
    check_hu(OTHER[kind], "case_7", assume_hu=True)


def test_the_real_scans_pass(shared_ct):
    for name in ("torso_3mm", "abdomen_slab_3mm", "heart_1p5mm"):
        read_scan(shared_ct / f"{name}.nii.gz")


@pytest.mark.parametrize("assume_hu", [False, True])
def test_what_no_option_lets_through(assume_hu):
    voxels = torso()
    voxels[2, 3, 4], voxels[5, 6, 7], voxels[0, 0, 0] = np.nan, np.inf, -np.inf
    cases = {
        "scan.not_finite": (voxels, f"3 of {voxels.size} voxels are NaN or infinite"),
        "scan.constant": (np.full(SHAPE, -1000), "every voxel is -1000"),
        "scan.range": (np.where(torso() > 0, 70000, torso()), "to 70000 are beyond any HU"),
    }
    for code, (values, sentence) in cases.items():
        with pytest.raises(ScanError, match=f"^case_7: .*{sentence}") as caught:
            check_hu(values, "case_7", assume_hu=assume_hu)
        assert caught.value.code == code


def write(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    image = nib.Nifti1Image(voxels, affine, dtype=voxels.dtype)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    nib.save(image, path)
    return path


def ids(dtype: type = np.uint8) -> np.ndarray:
    labels = np.zeros(SHAPE, dtype)
    labels[3:14, 5:9, 2:19], labels[4:7, 10:15, 3:5] = 3, 5
    return labels


@pytest.fixture
def image(tmp_path) -> Scan:
    return read_scan(write(tmp_path / "ct.nii.gz", torso().astype(np.float32)))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64, np.int64])
def test_labels_of_every_type(tmp_path, image, dtype):
    labels = read_labels(write(tmp_path / "seg.nii.gz", ids(dtype)), like=image, classes=[3, 5])
    np.testing.assert_array_equal(labels.voxels, ids())
    assert labels.voxels.dtype == np.int32


def test_labels_of_600_classes(tmp_path):
    labels = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 600
    np.testing.assert_array_equal(read_labels(write(tmp_path / "a.nii", labels.astype(np.int16))).voxels, labels)


def test_labels_of_another_format(tmp_path, image):
    seg = SimpleITK.ReadImage(str(write(tmp_path / "seg.nii.gz", ids())))
    SimpleITK.WriteImage(seg, str(tmp_path / "seg.nrrd"), useCompression=True)
    np.testing.assert_array_equal(read_labels(tmp_path / "seg.nrrd", like=image).voxels, ids())


@pytest.mark.parametrize(
    ("values", "classes", "code", "sentence"),
    [
        ([0, 3, 5, 7, 9], [3, 5], "label.classes", "label ids 7, 9 are not among the classes 0, 3, 5"),
        (range(30), [1], "label.classes", "ids 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 18 more are not"),
        ([0, -1], None, "label.classes", "label ids -1 are not among whole numbers from 0 on"),
        ([0, 2**40], None, "label.classes", "label ids 1099511627776 are not"),
        ([0, 1.0, 0.25], None, "label.fraction", "1 label voxels are not whole numbers, 0.25 for one"),
        ([0, 1.0, np.nan], None, "label.fraction", "1 label voxels are not whole numbers, nan for one"),
    ],
)
def test_bad_ids(values, classes, code, sentence):
    with pytest.raises(LabelError, match=f"^case_7: .*{sentence}") as caught:
        label_ids(np.array(values), "case_7", classes)
    assert caught.value.code == code


@pytest.mark.parametrize("axes", ["LPS", "RAI", "SPR"])
def test_labels_whose_axes_run_another_way_are_turned(tmp_path, image, axes):
    turned = nib.as_closest_canonical(nib.Nifti1Image(ids(), AFFINE)).as_reoriented(
        nib.orientations.axcodes2ornt(tuple(axes))
    )
    labels = read_labels(write(tmp_path / "seg.nii", np.asarray(turned.dataobj), turned.affine), like=image)
    np.testing.assert_array_equal(labels.voxels, ids())
    np.testing.assert_allclose(labels.affine, image.affine, rtol=0, atol=1e-6)


def moved(*by_mm: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[:3, 3] += by_mm
    return affine


@pytest.mark.parametrize(
    ("labels", "affine", "code", "sentence"),
    [
        (ids()[:-1], AFFINE, "label.shape", "16x19x23 label voxels, but 17x19x23 image voxels; .* of ct"),
        (ids(), moved(0, 0.3, 0), "label.affine", r"0\.30 mm away from the image \(at most 0\.15 mm"),
        (ids(), np.diag([1.5, 2, 2.6, 1]), "label.affine", r"2\.20 mm away"),
        (ids(), np.diag([-1.5, 2, 2.5, 1]), "label.affine", r"24\.00 mm away"),
    ],
)
def test_labels_elsewhere(tmp_path, image, labels, affine, code, sentence):
    with pytest.raises(GeometryError, match=f"^seg: .*{sentence}") as caught:
        read_labels(write(tmp_path / "seg.nii", labels, affine), like=image)
    assert caught.value.code == code


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz", "ct.mha", "ct.nrrd"])
def test_files_that_may_not_be_read_are_refused_without_their_path(tmp_path, monkeypatch, name):
    (tmp_path / name).write_bytes(b"x")

    def refuse(path: Path, *_: object) -> object:  # root, as which tests may run, may read everything
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setenv("MONAI_EXT_READ_INSIDE", "1")
    monkeypatch.setattr(Path, "open", refuse)
    sentence = r"^{}: it cannot be read \(Permission denied\); check its permissions and the disk$"
    with pytest.raises(ScanError, match=sentence.format("ct")) as caught:
        read_scan(tmp_path / name)
    assert caught.value.code == "scan.unreadable"
    with pytest.raises(ScanError, match=sentence.format("labels of case_7")):
        read_labels(tmp_path / name, case="case_7")


def test_errors_of_reading_say_that_they_are_about_the_labels(tmp_path, image):
    (tmp_path / "seg.nii").write_bytes(b"")
    (tmp_path / "series").mkdir()
    for name, sentence in (
        ("seg.nii", "the file cannot"),
        ("no.nii", "there is no such"),
        ("series", "a DICOM series"),
    ):
        with pytest.raises(InputError, match=f"^labels of case_7: {sentence}") as caught:
            read_labels(tmp_path / name, like=image, case="case_7")
        assert caught.value.case == "case_7"


def test_rounding_of_the_affine_is_accepted(tmp_path, image):
    read_labels(write(tmp_path / "seg.nii", ids(), moved(0, 0.1, 0)), like=image)


def test_largest_shift_is_that_of_the_worst_voxel():
    other = AFFINE.copy()
    other[:3, :3] = other[:3, :3] @ np.array([[1, 0.01, 0], [-0.01, 1, 0], [0, 0, 1]])
    every = np.indices(SHAPE).reshape(3, -1)
    naive = np.linalg.norm((AFFINE - other)[:3, :3] @ every, axis=0).max()
    assert largest_shift_mm(SHAPE, AFFINE, other) == pytest.approx(naive, rel=1e-12)


def test_errors_survive_the_way_out_of_a_worker(tmp_path):
    with pytest.raises(ScanError) as caught:
        read_scan(tmp_path / "gone.nii")
    back = pickle.loads(pickle.dumps(caught.value))
    assert (type(back), str(back), back.code, back.case) == (ScanError, str(caught.value), "scan.missing", "gone")


NARROWED = {
    "int16": (torso().round().astype(np.int16), (1, 0), "int16"),
    "big-endian int32": (torso().round().astype(">i4"), (1, 0), "int16"),
    "whole, scaled": ((torso().round() + 2048).astype(np.uint16), (1, -2048), "int16"),
    "whole float32": (torso().round().astype(np.float32), (1, 0), "int16"),
    "float64": (torso(), (1, 0), "float32"),
    "one fraction": (np.where(np.arange(23) == 22, 0.25, torso().round()), (1, 0), "float32"),
    "scaled by a fraction": (torso().round().astype(np.int16), (0.75, -20), "float32"),
}


@pytest.mark.parametrize("name", NARROWED)
def test_whole_hu_take_half_the_memory_on_request(tmp_path, name):
    voxels, (slope, intercept), dtype = NARROWED[name]
    image = nib.Nifti1Image(voxels, AFFINE)
    path = tmp_path / "ct.nii.gz"
    nib.save(image, path)
    if (slope, intercept) != (1, 0):
        path = with_slope(image, slope, intercept, tmp_path / "scaled.nii")
    wide = read_scan(path)
    for narrow in (read_scan(path, narrow=True), inside(path)):
        assert wide.voxels.dtype == np.float32
        assert narrow.voxels.dtype == dtype
        assert np.array_equal(narrow.voxels, wide.voxels)
        assert np.array_equal(narrow.affine, wide.affine)


def with_slope(image: nib.Nifti1Image, slope: float, intercept: float, path: Path) -> Path:
    """Write the stored numbers as they are, to be scaled by whoever reads them."""
    header = image.header.copy()
    header["vox_offset"], header["scl_slope"], header["scl_inter"] = 352, slope, intercept
    path.write_bytes(header.binaryblock + bytes(4) + np.asanyarray(image.dataobj).tobytes(order="F"))
    return path


def inside(path: Path) -> Scan:
    with reading_inside():
        return read_scan(path, narrow=True)
