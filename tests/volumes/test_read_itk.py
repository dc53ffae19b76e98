"""NRRD and MetaImage: SimpleITK's numbers for good files, a sentence for bad ones."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from monai_ext.base import GeometryError, ScanError
from monai_ext.volumes import affine_of_itk, read_scan

SHAPE = (7, 11, 13)
TURN = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)  # about z, exact in decimals


def ct() -> np.ndarray:
    rng = np.random.default_rng(5)
    voxels = rng.integers(-1010, -990, SHAPE)
    voxels[2:5, 3:9, 2:11] = rng.integers(-100, 80, (3, 6, 9))
    return voxels.astype(np.int16)


def itk_image(voxels: np.ndarray | None = None) -> SimpleITK.Image:
    image = SimpleITK.GetImageFromArray((ct() if voxels is None else voxels).transpose(2, 1, 0))
    image.SetSpacing((1.5, 2.0, 2.5))
    image.SetOrigin((-20.5, 31.0, 44.25))
    image.SetDirection(TURN)
    return image


def save(path: Path, packed: bool = False, image: SimpleITK.Image | None = None) -> Path:
    SimpleITK.WriteImage(image or itk_image(), str(path), useCompression=packed)
    return path


def edit(path: Path, old: bytes, new: bytes) -> Path:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    return path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ending", ["nrrd", "mha", "mhd"])
def test_good_files(tmp_path, ending, packed):
    scan = read_scan(save(tmp_path / f"case_7.{ending}", packed))
    np.testing.assert_array_equal(scan.voxels, ct())
    np.testing.assert_allclose(scan.affine, affine_of_itk(itk_image()), rtol=0, atol=1e-12)
    # LPS to RAS by hand: the direction's columns times the spacing, x and y negated.
    np.testing.assert_allclose(scan.affine[:, 0], (-1.2, -0.9, 0, 0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(scan.affine[:, 3], (20.5, -31.0, 44.25, 1), rtol=0, atol=1e-12)
    assert (scan.case, scan.kind) == ("case_7", "itk")


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64, np.int64])
@pytest.mark.parametrize("ending", ["nrrd", "mha"])
def test_every_type(tmp_path, ending, dtype):
    path = save(tmp_path / f"a.{ending}", image=itk_image(ct().astype(dtype)))
    np.testing.assert_array_equal(read_scan(path).voxels, ct())


@pytest.mark.parametrize(("space", "signs"), [("right-anterior-superior", (1, 1)), ("LAS", (-1, 1)), ("LPS", (-1, -1))])
def test_nrrd_spaces(tmp_path, space, signs):
    path = edit(save(tmp_path / "a.nrrd"), b"left-posterior-superior", space.encode())
    written = np.diag([-1, -1, 1, 1]) @ affine_of_itk(itk_image())  # the numbers of the file, in whatever axes
    expected = np.diag([*signs, 1, 1]) @ written
    np.testing.assert_allclose(read_scan(path).affine, expected, rtol=0, atol=1e-12)


def test_pynrrd_files(tmp_path):
    nrrd = pytest.importorskip("nrrd", reason="pynrrd, of the extra dev, writes files other than ITK's")
    directions = affine_of_itk(itk_image())[:3, :3].T
    header = {"space": "RAS", "space directions": directions, "space origin": [1.0, 2.0, 3.0]}
    nrrd.write(str(tmp_path / "a.nrrd"), ct(), header)
    scan = read_scan(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(scan.voxels, ct())
    np.testing.assert_allclose(scan.affine[:3], np.c_[directions.T, [1, 2, 3]], rtol=0, atol=1e-12)


def test_comments_and_key_values_are_passed_over(tmp_path):
    path = edit(save(tmp_path / "a.nrrd"), b"type: short\n", b"# by hand\ntype: short\nsegment:=liver: 3\n")
    np.testing.assert_array_equal(read_scan(path).voxels, ct())


NRRD = {
    "magic": (b"NRRD000", b"NRRX000", "scan.damaged", "first line"),
    "dimension": (b"dimension: 3", b"dimension: 4", "scan.damaged", "sizes '7 11 13' are not '4'"),
    "4d": (b"sizes: 7 11 13", b"sizes: 7 11 13 1", "scan.damaged", "not '3' whole numbers"),
    "a slice": (b"sizes: 7 11 13", b"sizes: 77 13 1", "scan.dimensions", "2D image"),
    "fraction": (b"sizes: 7 11 13", b"sizes: 7 11 1.3", "scan.damaged", "whole numbers"),
    "longer": (b"sizes: 7 11 13", b"sizes: 7 11 14", "scan.damaged", "2002 of the 2156 bytes"),
    "shorter": (b"sizes: 7 11 13", b"sizes: 7 11 12", "scan.damaged", "more than the 1848 bytes"),
    "huge": (b"sizes: 7 11 13", b"sizes: 99999 99999 99999", "scan.size", "more than"),
    "vectors": (b"kinds: domain domain domain", b"kinds: domain domain vector", "scan.not_scalar", "vector"),
    "block": (b"type: short", b"type: block", "scan.damaged", "voxel type 'block'"),
    "byte order": (b"endian: little\n", b"", "scan.damaged", "byte order"),
    "no space": (b"space: left-posterior-superior\n", b"", "scan.no_orientation", "lacks space"),
    "scanner space": (b"left-posterior-superior", b"3D-right-handed", "scan.no_orientation", "patient axes"),
    "no origin": (b"space origin", b"spice origin", "scan.no_orientation", "lacks space origin"),
    "no directions": (b"space directions", b"spice directions", "scan.no_orientation", "lacks space directions"),
    "bad origin": (b"space origin: (-20.5,", b"space origin: (north,", "scan.damaged", "not three numbers"),
    "inches": (b"encoding:", b'space units: "in" "in" "in"\nencoding:', "scan.no_orientation", "millimetres"),
    "twice": (b"type: short\n", b"type: short\ntype: float\n", "scan.damaged", "'type' twice"),
    "no value": (b"type: short\n", b"type: short\nnonsense\n", "scan.damaged", "without a value"),
    "text": (b"encoding: raw", b"encoding: txt", "scan.damaged", "encoding 'txt'"),
    "skip": (b"encoding:", b"byte skip: 3\nencoding:", "scan.damaged", "skipped"),
    "nan spacing": (b"(0,0,2.5)", b"(0,nan,2.5)", "scan.spacing", "spacing along z is nan"),
    "zero spacing": (b"(0,0,2.5)", b"(0,0,0)", "scan.spacing", "spacing along z is 0"),
}


@pytest.mark.parametrize("bad", NRRD)
def test_bad_nrrd(tmp_path, bad):
    old, new, code, sentence = NRRD[bad]
    with pytest.raises(ScanError, match=rf"^case_7: .*{sentence}") as caught:
        read_scan(edit(save(tmp_path / "case_7.nrrd"), old, new))
    assert caught.value.code == code


META = {
    "type": (b"ObjectType = Image", b"ObjectType = Mesh", "scan.damaged", "not that of a MetaImage"),
    "2d": (b"DimSize = 7 11 13", b"DimSize = 77 13", "scan.damaged", "not '3' whole numbers"),
    "a slice": (b"DimSize = 7 11 13", b"DimSize = 77 13 1", "scan.dimensions", "2D image"),
    "longer": (b"DimSize = 7 11 13", b"DimSize = 7 11 14", "scan.damaged", "2002 of the 2156 bytes"),
    "shorter": (b"DimSize = 7 11 13", b"DimSize = 7 11 12", "scan.damaged", "more than the 1848 bytes"),
    "colour": (b"ElementType", b"ElementNumberOfChannels = 3\nElementType", "scan.not_scalar", "3 channels"),
    "long": (b"MET_SHORT", b"MET_LONG", "scan.damaged", "voxel type 'MET_LONG'"),
    "no spacing": (b"ElementSpacing = 1.5 2 2.5\n", b"", "scan.no_orientation", "lacks ElementSpacing"),
    "no matrix": (b"TransformMatrix", b"TransformMetrix", "scan.no_orientation", "lacks TransformMatrix"),
    "no offset": (b"Offset = ", b"Offzet = ", "scan.no_orientation", "lacks Offset"),
    "zero": (b"ElementSpacing = 1.5 2 2.5", b"ElementSpacing = 1.5 0 2.5", "scan.spacing", "along y is 0 mm"),
    "negative": (b"ElementSpacing = 1.5", b"ElementSpacing = -1.5", "scan.spacing", "along x is -1.5 mm"),
    "nan": (b"ElementSpacing = 1.5", b"ElementSpacing = nan", "scan.spacing", "along x is nan mm"),
    "text": (b"BinaryData = True", b"BinaryData = False", "scan.damaged", "data as text"),
    "neither": (b"CompressedData = False", b"CompressedData = maybe", "scan.damaged", "neither True nor False"),
    "behind": (b"ElementType", b"HeaderSize = 64\nElementType", "scan.damaged", "behind another header"),
    "twice": (b"Offset = ", b"Position = 1 2 3\nOffset = ", "scan.damaged", "'Offset' twice"),
    "list": (b"ElementDataFile = LOCAL", b"ElementDataFile = LIST", "scan.damaged", "not beside its header"),
    "away": (b"ElementDataFile = LOCAL", b"ElementDataFile = ../x.raw", "scan.damaged", "not beside its header"),
    "absolute": (b"ElementDataFile = LOCAL", b"ElementDataFile = /etc/passwd", "scan.damaged", "not beside"),
}


def test_a_file_of_another_format_is_no_text(tmp_path):
    path = tmp_path / "case_7.mha"
    path.write_bytes(b"\x00\x01\xff\xfe = \x1b[31m\n" * 7)
    with pytest.raises(ScanError, match=r"^case_7: the file cannot be used, its header is not text; copy or export"):
        read_scan(path)


@pytest.mark.parametrize("bad", META)
def test_bad_metaimage(tmp_path, bad):
    old, new, code, sentence = META[bad]
    (tmp_path / "x.raw").write_bytes(bytes(2002))
    folder = tmp_path / "Doe^Jane"
    folder.mkdir()
    with pytest.raises(ScanError, match=rf"^case_7: .*{sentence}") as caught:
        read_scan(edit(save(folder / "case_7.mha"), old, new))
    assert caught.value.code == code
    assert "Doe" not in str(caught.value)


@pytest.mark.parametrize("matrix", [b"1 0 0 1 0 0 0 0 1", b"1 0 0 0 1 0 0 0.2 0.98"])
def test_singular_and_sheared(tmp_path, matrix):
    path = save(tmp_path / "case_7.mha")
    line = next(line for line in path.read_bytes().split(b"\n") if line.startswith(b"TransformMatrix"))
    with pytest.raises(ScanError, match=r"^case_7: .*right angles"):
        read_scan(edit(path, line, b"TransformMatrix = " + matrix))


@pytest.mark.parametrize("ending", ["nrrd", "mha"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("keep", [0, 60, -1, -50])
def test_truncated(tmp_path, ending, packed, keep):
    path = save(tmp_path / f"case_7.{ending}", packed)
    path.write_bytes(path.read_bytes()[: keep or 0])
    with pytest.raises(ScanError, match=r"^case_7: .*; copy or export it again") as caught:
        read_scan(path)
    assert caught.value.code == "scan.damaged"


@pytest.mark.parametrize("ending", ["nrrd", "mha"])
def test_flipped_bits_in_compressed_data(tmp_path, ending):
    path = save(tmp_path / f"case_7.{ending}", packed=True)
    content = bytearray(path.read_bytes())
    content[-300] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ScanError, match=r"checksum|truncated|bytes of voxels"):
        read_scan(path)


def test_detached_data_must_be_whole_and_beside(tmp_path):
    path = save(tmp_path / "case_7.mhd")
    data = tmp_path / "case_7.raw"
    data.write_bytes(data.read_bytes()[:-2])
    with pytest.raises(ScanError, match="2000 of the 2002 bytes"):
        read_scan(path)
    data.unlink()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "secret").write_bytes(bytes(2002))
    data.symlink_to(elsewhere / "secret")
    with pytest.raises(ScanError, match="not beside its header"):
        read_scan(path)


def test_detached_nrrd(tmp_path):
    path = save(tmp_path / "case_7.nrrd", packed=True)
    header, data = path.read_bytes().split(b"\n\n", 1)
    (tmp_path / "voxels.gz").write_bytes(data)
    path.write_bytes(header + b"\ndata file: voxels.gz\n")
    np.testing.assert_array_equal(read_scan(path).voxels, ct())
    (tmp_path / "voxels.gz").write_bytes(gzip.compress(gzip.decompress(data)[:-1]))
    with pytest.raises(ScanError, match="2001 of the 2002 bytes"):
        read_scan(path)


def test_geometry_errors_have_their_own_type(tmp_path):
    with pytest.raises(GeometryError):
        read_scan(edit(save(tmp_path / "a.mha"), b"ElementSpacing = 1.5", b"ElementSpacing = 0"))
