"""Rules that may be relaxed by name: what is read then is what the name says, and it is written down."""

import re

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from monai_ext.base import GeometryError, SettingError
from monai_ext.transforms import ReadScand
from monai_ext.volumes import RELAXABLE, VolumeStore, check_relax, prepare, read_header, read_labels, read_scan

SPACING_MM = (1.5, 2.0, 2.5)
FORMS = np.array([[0, -2.0, 0, 30], [1.5, 0, 0, -20], [0, 0, 2.5, 7], [0, 0, 0, 1]])  # a quarter turn


def ct(path, form=FORMS, codes=(1, 1), **fields):
    """Write 19 x 23 x 11 voxels like CT, none like another; fields are set without a check."""
    rng = np.random.default_rng(3)
    hu = rng.integers(-1010, -990, (19, 23, 11)).astype(np.int16)
    hu[4:15, 5:19, 2:9] = rng.integers(-100, 80, (11, 14, 7))
    image = nib.Nifti1Image(hu, form)
    image.set_qform(form, codes[0])
    image.set_sform(form, codes[1])
    for name, value in fields.items():
        image.header[name] = value
    path.parent.mkdir(exist_ok=True)
    nib.save(image, path)
    header = bytearray(path.read_bytes())
    if "pixdim" in fields:  # nibabel sets it from the affine
        header[80:92] = np.array(fields["pixdim"][1:4], "<f4").tobytes()
    header[252:256] = np.array(codes, "<i2").tobytes()
    path.write_bytes(header)
    return path, hu


def test_no_orientation_is_read_along_the_axes_that_the_rule_names(tmp_path):
    path, hu = ct(tmp_path / "ct.nii", np.diag([*SPACING_MM, 1]), codes=(0, 0))
    with pytest.raises(GeometryError, match=r"^ct: neither qform nor sform .* relax scan\.no_orientation$") as caught:
        read_scan(path)
    assert caught.value.code == "scan.no_orientation"
    scan = read_scan(path, relax=["scan.no_orientation"])
    assert scan.relaxed == read_header(path, relax="scan.no_orientation").relaxed == ("scan.no_orientation",)
    np.testing.assert_array_equal(scan.voxels, hu)
    np.testing.assert_array_equal(scan.affine, np.diag([*SPACING_MM, 1]))  # +x right, +y front, +z up


@pytest.mark.parametrize("codes", [(0, 1), (1, 1)])
def test_pixdim_against_the_sform_leaves_the_sform(tmp_path, codes):
    path, hu = ct(tmp_path / "ct.nii", codes=codes, pixdim=[1, 9, 2, 2.5, 0, 0, 0, 0])
    with pytest.raises(
        GeometryError, match=r"^ct: pixdim says 9 x 2 x 2\.5 mm and the sform says 1\.5 x 2 x 2\.5"
    ) as no:
        read_scan(path, relax="scan.no_orientation")
    assert no.value.code == "scan.spacing_contradiction"
    scan = read_scan(path, relax="scan.spacing_contradiction")
    assert scan.relaxed == ("scan.spacing_contradiction",)
    np.testing.assert_array_equal(scan.voxels, hu)
    np.testing.assert_array_equal(scan.affine, FORMS)


def test_names_of_other_axes_leave_the_matrix(tmp_path):
    source, hu = ct(tmp_path / "ct.nii")
    path = tmp_path / "ct.mha"
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(source)), str(path))
    content = path.read_bytes()
    np.testing.assert_array_equal(read_scan(path).voxels, hu)
    path.write_bytes(re.sub(rb"(AnatomicalOrientation = )\w+", rb"\1RAI", content))
    with pytest.raises(
        GeometryError, match=r"^ct: its AnatomicalOrientation RAI contradicts its TransformMatrix"
    ) as no:
        read_scan(path)
    assert no.value.code == "scan.anatomical_orientation"
    scan = read_scan(path, relax="scan.anatomical_orientation")
    assert scan.relaxed == ("scan.anatomical_orientation",)
    np.testing.assert_array_equal(scan.voxels, hu)
    np.testing.assert_allclose(scan.affine, FORMS, atol=1e-5)


def test_a_qform_that_lies_elsewhere_is_refused_all_the_same(tmp_path):
    path, _ = ct(tmp_path / "ct.nii", pixdim=[1, 9, 2, 2.5, 0, 0, 0, 0])
    content = bytearray(path.read_bytes())
    content[268:272] = np.float32(90).tobytes()  # qoffset_x
    path.write_bytes(content)
    with pytest.raises(GeometryError, match="qform and sform place a corner") as caught:
        read_scan(path, relax=list(RELAXABLE))
    assert caught.value.code == "scan.forms"


def test_what_keeps_the_rules_says_nothing_of_them(tmp_path):
    path, _ = ct(tmp_path / "ct.nii")
    assert read_scan(path, relax=list(RELAXABLE)).relaxed == ()
    assert ReadScand("image")({"image": path})["image"].meta["relaxed"] == ""


def test_no_other_rule_may_be_relaxed(tmp_path):
    path, _ = ct(tmp_path / "ct.nii")
    sentence = r"^relax: 'scan\.slope' is no rule that may be relaxed; give some of scan\.no_orientation, scan\.spacing"
    for use in (read_scan, read_header, read_labels):
        with pytest.raises(SettingError, match=sentence):
            use(path, relax=["scan.slope"])
    with pytest.raises(SettingError, match=sentence):
        ReadScand("image", relax="scan.slope")
    assert check_relax(" scan.no_orientation,") == ("scan.no_orientation",)


def test_the_store_and_its_summary_tell_what_was_relaxed(tmp_path):
    ct(tmp_path / "scans" / "odd.nii", np.diag([*SPACING_MM, 1]), codes=(0, 0))
    ct(tmp_path / "scans" / "sound.nii")
    store = tmp_path / "store"
    assert [item.code for item in prepare(tmp_path / "scans", store, workers=0).failed] == ["scan.no_orientation"]
    plain = VolumeStore(store).record("sound")
    assert "relax" not in plain.settings
    found = prepare(tmp_path / "scans", store, workers=0, relax=["scan.no_orientation"])
    assert (found.done, found.failed) == (["odd", "sound"], [])
    assert found.relaxed == {"scan.no_orientation": ["odd"]}
    records = VolumeStore(store)
    assert records.record("odd").relaxed == ("scan.no_orientation",)
    assert records.record("sound").relaxed == ()
    assert records.record("odd").settings["relax"] == ["scan.no_orientation"]
    assert prepare(tmp_path / "scans", store, workers=0, relax="scan.no_orientation").skipped == ["odd", "sound"]
