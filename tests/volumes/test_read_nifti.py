"""NIfTI: every good variant gives nibabel's numbers, every bad one a sentence with the case and the reason."""

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from monai_ext.base import GeometryError, InputError, ScanError
from monai_ext.volumes import affine_of_itk, read_scan

SHAPE = (7, 11, 13)
OBLIQUE = np.array(
    [[-1.1, 0.3, 0.0, 20.0], [-0.33, -1.0, 0.2, -31.0], [0.06, 0.2, 2.3, 44.0], [0, 0, 0, 1]], dtype=float
)


def ct(dtype: type = np.int16) -> np.ndarray:
    """Return CT-like voxels: air around a block of fat and soft tissue, no two alike in place."""
    rng = np.random.default_rng(5)
    voxels = rng.integers(-1010, -990, SHAPE)
    voxels[2:5, 3:9, 2:11] = rng.integers(-100, 80, (3, 6, 9))
    return voxels.astype(dtype)


def right_angled(affine: np.ndarray) -> np.ndarray:
    """Return the nearest affine with right angles and the same spacing."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    u, _, v = np.linalg.svd(affine[:3, :3] / spacing)
    out = affine.copy()
    out[:3, :3] = u @ v * spacing
    return out


def nifti(
    path: Path,
    voxels: np.ndarray | None = None,
    affine: np.ndarray | None = None,
    change: Callable[[nib.Nifti1Header], None] = lambda header: None,
    kind: type[nib.Nifti1Image] = nib.Nifti1Image,
) -> Path:
    """Write a NIfTI whose header is changed afterwards, against all of nibabel's checks."""
    image = kind(ct() if voxels is None else voxels, np.diag([1.5, 2, 2.5, 1]) if affine is None else affine)
    image.set_qform(image.affine, 1)
    image.set_sform(image.affine, 1)
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    image.to_filename(plain)
    content = bytearray(plain.read_bytes())
    header = kind.header_class(bytes(content[: image.header.sizeof_hdr]), check=False)
    change(header)
    content[: image.header.sizeof_hdr] = header.binaryblock
    plain.unlink()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def put(**fields: object) -> Callable[[nib.Nifti1Header], None]:
    def change(header: nib.Nifti1Header) -> None:
        for key, value in fields.items():
            header[key] = value

    return change


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz", "CT.NII.GZ"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_every_packing_gives_the_same_scan(tmp_path, name, kind):
    path = nifti(tmp_path / "x.nii.gz" if name.lower().endswith("gz") else tmp_path / "x.nii", kind=kind)
    path = path.rename(tmp_path / name)
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.voxels, ct())
    assert scan.voxels.dtype == np.float32
    assert (scan.case, str(scan.source), scan.kind) == (name[:2], name, "nifti")
    assert scan.spacing_mm == (1.5, 2, 2.5)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64])
def test_every_type_is_read(tmp_path, dtype):
    np.testing.assert_array_equal(read_scan(nifti(tmp_path / "a.nii", ct(dtype))).voxels, ct())


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_big_endian(tmp_path, kind):
    image = kind(ct(">i2"), OBLIQUE, kind.header_class(endianness=">"))
    image.set_sform(right_angled(OBLIQUE), 1)
    image.to_filename(tmp_path / "big.nii")
    assert (tmp_path / "big.nii").read_bytes()[0] == 0  # the size of the header, its first byte last
    np.testing.assert_array_equal(read_scan(tmp_path / "big.nii").voxels, ct())


def test_slope_and_intercept_give_hu(tmp_path):
    stored = ((ct().astype(int) + 1024) * 2).astype(np.uint16)
    path = nifti(tmp_path / "a.nii.gz", stored, change=put(scl_slope=0.5, scl_inter=-1024))
    np.testing.assert_array_equal(read_scan(path).voxels, ct())  # halves and whole numbers: exact in float32


@pytest.mark.parametrize("axes", ["RAS", "LPS", "AIL", "oblique"])
@pytest.mark.parametrize("forms", [(1, 1), (1, 0), (0, 2)])
def test_affine_is_that_of_nibabel_and_simpleitk(tmp_path, axes, forms):
    affine = right_angled(OBLIQUE)
    if axes != "oblique":
        turn = nib.orientations.axcodes2ornt(tuple(axes))
        affine = np.diag([1.5, 2, 2.5, 1]) @ nib.orientations.inv_ornt_aff(turn, SHAPE)
    path = nifti(tmp_path / "a.nii", affine=affine, change=put(qform_code=forms[0], sform_code=forms[1]))
    scan = read_scan(path)
    np.testing.assert_allclose(scan.affine, nib.load(path).affine, rtol=0, atol=1e-12)
    image = SimpleITK.ReadImage(str(path))
    # NIfTI holds float32, whose quaternions are good to 1e-4 mm over these few cm.
    np.testing.assert_allclose(scan.affine, affine_of_itk(image), rtol=0, atol=1e-3)
    np.testing.assert_array_equal(scan.voxels, SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0))


def test_trailing_axis_of_one_is_accepted(tmp_path):
    assert read_scan(nifti(tmp_path / "a.nii", ct()[..., None])).voxels.shape == SHAPE


def test_extensions_are_passed_over(tmp_path):
    image = nib.Nifti1Image(ct(), right_angled(OBLIQUE))
    image.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"forty-three bytes of a comment, or nearly so"))
    image.to_filename(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_scan(tmp_path / "a.nii.gz").voxels, ct())


@pytest.mark.parametrize("name", ["torso_3mm.nii.gz", "abdomen_slab_3mm.nii.gz", "heart_1p5mm.nii.gz"])
def test_real_scans_are_those_of_nibabel(shared_ct, name):
    scan, image = read_scan(shared_ct / name), nib.load(shared_ct / name)
    np.testing.assert_array_equal(scan.voxels, image.get_fdata(dtype=np.float32))
    np.testing.assert_array_equal(scan.affine, image.affine)


def tilted() -> np.ndarray:
    affine = np.diag([1.5, 2, 2.5, 1])
    affine[1, 2] = 2.5 * np.tan(np.radians(10))
    return affine


def sform(affine: np.ndarray) -> Callable[[nib.Nifti1Header], None]:
    return put(srow_x=affine[0], srow_y=affine[1], srow_z=affine[2], qform_code=0)


def pixdim(*values: float) -> Callable[[nib.Nifti1Header], None]:
    return lambda header: header["pixdim"].__setitem__(slice(1, 4), values)


def dim(*values: int) -> Callable[[nib.Nifti1Header], None]:
    return lambda header: header["dim"].__setitem__(slice(0, len(values)), values)


SINGULAR = np.array([[1.5, 0, 0, 0], [0, 2, 2, 0], [0, 0, 1.5, 0], [0, 0, 0, 1]])
BAD_HEADERS = {
    "2d": (dim(2, 7, 11 * 13), "scan.dimensions", "7x143 voxels are a 2D image"),
    "single slice": (dim(3, 7, 143, 1), "scan.dimensions", "2D image"),
    "4d": (dim(4, 7, 11, 1, 13), "scan.dimensions", "7x11x1x13 voxels are a 4D image"),
    "no axis": (dim(3, 7, 0, 13), "scan.shape", "empty axis"),
    "negative axis": (dim(3, 7, -11, 13), "scan.shape", "empty axis"),
    "no dimensions": (dim(0), "scan.damaged", "0 dimensions"),
    "eight dimensions": (dim(8), "scan.damaged", "8 dimensions"),
    "huge": (dim(3, 32767, 32767, 32767), "scan.size", "more than the 2147483648 read here"),
    "longer than the data": (dim(3, 7, 11, 14), "scan.damaged", r"2002 of the 2156 bytes"),
    "shorter than the data": (dim(3, 7, 11, 12), "scan.damaged", r"more than the 1848 bytes"),
    "rgb": (put(datatype=128, bitpix=24), "scan.not_scalar", "RGB"),
    "complex": (put(datatype=32, bitpix=64), "scan.not_scalar", "complex"),
    "bits": (put(datatype=1, bitpix=1), "scan.not_scalar", "single bits"),
    "type": (put(datatype=77), "scan.damaged", "voxel type 77"),
    "long double": (put(datatype=1536, bitpix=128), "scan.damaged", "voxel type 1536"),
    "bitpix": (put(bitpix=32), "scan.damaged", "gives 32 bits to voxels of 16"),
    "offset": (put(vox_offset=100), "scan.damaged", "byte 100"),
    "offset nan": (put(vox_offset=np.nan), "scan.damaged", "byte nan"),
    "offset beyond": (put(vox_offset=2e9), "scan.damaged", "byte 2e"),
    "offset into data": (put(vox_offset=360), "scan.damaged", "1994 of the 2002 bytes"),
    "spacing zero": (pixdim(1.5, 0, 2.5), "scan.spacing", "spacing along y is 0 mm"),
    "spacing negative": (pixdim(1.5, 2, -2.5), "scan.spacing", "spacing along z is -2.5 mm"),
    "spacing nan": (pixdim(np.nan, 2, 2.5), "scan.spacing", "spacing along x is nan mm"),
    "spacing infinite": (pixdim(np.inf, 2, 2.5), "scan.spacing", "spacing along x is inf mm"),
    "spacing of another file": (pixdim(9, 2, 2.5), "scan.spacing_contradiction", "9 x 2 x 2.5 mm and the sform"),
    "no forms": (put(qform_code=0, sform_code=0), "scan.no_orientation", "neither qform nor sform"),
    "unknown form": (put(sform_code=77), "scan.damaged", "sform code 77"),
    "forms apart": (put(qoffset_x=40), "scan.forms", "40.00 mm apart"),
    "forms mirrored": (put(quatern_d=1), "scan.forms", "mm apart"),
    "no rotation": (put(quatern_b=3), "scan.qform", "no rotation"),
    "sform nan": (put(srow_x=[np.nan] * 4), "scan.affine", "not finite"),
    "sform zero": (put(srow_z=[0] * 4), "scan.spacing", "spacing along z is 0 mm"),
    "sform singular": (sform(SINGULAR), "scan.sheared", "right angles"),
    "sheared": (sform(tilted()), "scan.sheared", r"10\.0 degrees"),
    "metres": (put(xyzt_units=1), "scan.units", "unit of length 1"),
    "microns": (put(xyzt_units=3), "scan.units", "unit of length 3"),
    "intercept without slope": (put(scl_slope=0, scl_inter=-1024), "scan.slope", "slope 0 with intercept -1024"),
    "intercept, slope nan": (put(scl_slope=np.nan, scl_inter=5), "scan.slope", "slope nan"),
    "slope infinite": (put(scl_slope=np.inf, scl_inter=0), "scan.slope", "slope inf"),
    "slope without intercept": (put(scl_slope=2, scl_inter=np.nan), "scan.slope", "intercept nan"),
    "magic": (put(magic=b"n+9"), "scan.damaged", "first bytes"),
    "pair": (put(magic=b"ni1"), "scan.damaged", "first bytes"),
    "size of header": (put(sizeof_hdr=347), "scan.damaged", "first bytes"),
}


@pytest.mark.parametrize("bad", BAD_HEADERS)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_bad_header(tmp_path, bad, ending):
    change, code, sentence = BAD_HEADERS[bad]
    folder = tmp_path / "Doe^Jane"
    folder.mkdir()
    path = nifti(folder / f"case_7{ending}", change=change)
    with pytest.raises(ScanError, match=rf"^case_7: .*{sentence}.*; ") as caught:
        read_scan(path)
    assert (caught.value.code, caught.value.case) == (code, "case_7")
    assert "Doe" not in str(caught.value)


def cut(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)


BAD_BYTES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "empty": (".nii.gz", lambda path: cut(path, 0), "is empty"),
    "empty, plain": (".nii", lambda path: cut(path, 0), "is empty"),
    "one byte": (".nii", lambda path: cut(path, 1), "first bytes"),
    "within the header": (".nii", lambda path: cut(path, 200), "first bytes"),
    "within the voxels": (".nii", lambda path: cut(path, 1000), "648 of the 2002 bytes"),
    "within gzip": (".nii.gz", lambda path: cut(path, 900), "gzip data is truncated"),
    "gzip without its trailer": (".nii.gz", lambda path: cut(path, path.stat().st_size - 8), "gzip"),
    "gzip checksum": (".nii.gz", lambda path: flip(path, -6), "gzip data is truncated or fails its checksum"),
    "gzip length": (".nii.gz", lambda path: flip(path, -1), "gzip data is truncated or fails its checksum"),
    "gzip bits": (".nii.gz", lambda path: flip(path, 800), "gzip|bytes"),
    "surplus": (".nii", lambda path: path.write_bytes(path.read_bytes() + b"\0"), "more than the 2002"),
    "text": (".nii", lambda path: path.write_text("<html>not found</html>" * 50), "first bytes"),
    "gzip of nothing": (".nii.gz", lambda path: path.write_bytes(gzip.compress(b"")), "first bytes"),
    "plain named gz": (".nii.gz", lambda path: path.write_bytes(gzip.decompress(path.read_bytes())), "not gzipped"),
    "gz named plain": (".nii", lambda path: path.write_bytes(gzip.compress(path.read_bytes())), "it is gzipped"),
}


@pytest.mark.parametrize("bad", BAD_BYTES)
def test_bad_bytes(tmp_path, bad):
    ending, damage, sentence = BAD_BYTES[bad]
    path = nifti(tmp_path / f"case_7{ending}")
    damage(path)
    with pytest.raises(ScanError, match=rf"^case_7: .*({sentence}).*; copy or export it again") as caught:
        read_scan(path)
    assert caught.value.code == "scan.damaged"


def test_a_lying_header_costs_no_memory(tmp_path):
    path = nifti(tmp_path / "bomb.nii.gz", change=dim(3, 1000, 1000, 2000))  # 4 GB announced, 2002 bytes there
    with pytest.raises(ScanError, match="2002 of the 4000000000 bytes"):
        read_scan(path)


def test_a_corrupt_byte_is_refused_or_means_the_same_to_nibabel(tmp_path):
    good = nifti(tmp_path / "a.nii", affine=right_angled(OBLIQUE)).read_bytes()
    path = tmp_path / "b.nii"
    refused = 0
    # Sizes, type and spacing, place, scale and units, codes and forms, magic.
    for place in [*range(40, 56), *range(70, 124), *range(252, 328), *range(344, 348)]:
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x41]) + good[place + 1 :])
        try:
            scan = read_scan(path)
        except InputError:
            refused += 1
            continue
        image = nib.load(path)
        np.testing.assert_allclose(scan.affine, image.affine, rtol=0, atol=1e-9)
        np.testing.assert_array_equal(scan.voxels, image.get_fdata(dtype=np.float32))
    assert refused > 50  # the others are unused fields and the last bits of numbers


def test_missing_and_unknown(tmp_path):
    with pytest.raises(ScanError, match=r"^gone: there is no such file or folder") as caught:
        read_scan(tmp_path / "gone.nii.gz")
    assert caught.value.code == "scan.missing"
    (tmp_path / "scan.png").write_bytes(b"\x89PNG")
    with pytest.raises(ScanError, match=r"^scan: .*formats.*\.nii\.gz, \.nii, \.nrrd, \.mha, \.mhd") as caught:
        read_scan(tmp_path / "scan.png")
    assert caught.value.code == "scan.format"


def test_the_case_may_be_given(tmp_path):
    path = nifti(tmp_path / "DOE_JANE.nii")
    assert read_scan(path, case="case-12").case == "case-12"
    cut(path, 0)
    with pytest.raises(ScanError, match=r"^case-12: ") as caught:
        read_scan(path, case="case-12")
    assert "DOE" not in str(caught.value)


def test_geometry_errors_have_their_own_type(tmp_path):
    with pytest.raises(GeometryError):
        read_scan(nifti(tmp_path / "a.nii", change=pixdim(0, 2, 2.5)))
