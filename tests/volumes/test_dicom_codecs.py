"""Every compressed transfer syntax gives back the very values, with the decoders that every installation has.

The encoders are others than the decoders where one is at hand: DCMTK's (a Debian package), CharLS (pyjpegls, which
newer highdicom brings), OpenJPEG (pylibjpeg-openjpeg, of the extra 'dicom'); pydicom and SimpleITK always are.
"""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.encaps import encapsulate

from monai_ext.base import ScanError
from monai_ext.volumes import read_scan
from monai_ext.volumes.dicom_pixels import stored_values

ROWS, COLUMNS = 67, 43  # OpenJPEG encodes no smaller picture with its usual levels
FORMATS = [(8, 8, 0), (8, 8, 1), (16, 12, 0), (16, 12, 1), (16, 13, 1), (16, 16, 0), (16, 16, 1)]


def values_of(stored: int, signed: int) -> np.ndarray:
    """Return ``(y, x)`` values, both ends of the range and the middle of it among them."""
    low, high = (-(1 << (stored - 1)), (1 << (stored - 1)) - 1) if signed else (0, (1 << stored) - 1)
    values = np.random.default_rng(stored).integers(low, high + 1, (ROWS, COLUMNS))
    values[3, :4] = low, high, low + 1, high - 1
    return values


@pytest.fixture
def plain(dicom, tmp_path: Path):
    """Writes values uncompressed."""

    def write(values: np.ndarray, allocated: int, stored: int, signed: int) -> Path:
        data = dicom.slice(3, 0, Rows=values.shape[0], Columns=values.shape[1])
        data.BitsAllocated, data.BitsStored, data.HighBit = allocated, stored, stored - 1
        data.PixelRepresentation = signed
        data.PixelData = values.astype(f"<{'ui'[signed]}{allocated // 8}").tobytes()
        if len(data.PixelData) % 2:
            data.PixelData += b"\0"
        data["PixelData"].VR = "OW"
        dicom.save(data, tmp_path / "plain.dcm")
        return tmp_path / "plain.dcm"

    return write


def by_dcmtk(path: Path, program: str, option: str = "") -> Path:
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}: apt-get install dcmtk")
    packed = path.with_name("packed.dcm")
    subprocess.run([program, *option.split(), str(path), str(packed)], check=True, capture_output=True)
    return packed


def by_pydicom(path: Path, syntax: str, needs: str) -> Path:
    if pydicom.__version_info__[0] == "2":
        pytest.skip("pydicom 2 encodes RLE alone")
    pytest.importorskip(needs, reason="an encoder: pip install 'monai-ext[dicom]' pyjpegls")
    data = pydicom.dcmread(path)
    data.compress(syntax)
    data.save_as(path.with_name("packed.dcm"))
    return path.with_name("packed.dcm")


def assert_packed(path: Path, syntax: str, values: np.ndarray) -> None:
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == f"1.2.840.10008.1.2.{syntax}"
    np.testing.assert_array_equal(stored_values(path), values)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("syntax", "program", "option"),
    [("4.70", "dcmcjpeg", "+e1"), ("4.57", "dcmcjpeg", "+el +sv 6"), ("4.80", "dcmcjpls", "+el"), ("5", "dcmcrle", "")],
)
def test_what_dcmtk_encodes(plain, form, syntax, program, option):
    values = values_of(*form[1:])
    assert_packed(by_dcmtk(plain(values, *form), program, option), syntax, values)


@pytest.mark.parametrize("form", [form for form in FORMATS if form[:2] != (8, 8)])
def test_jpeg_ls_of_charls(plain, form):
    values = values_of(*form[1:])
    assert_packed(by_pydicom(plain(values, *form), pydicom.uid.JPEGLSLossless, "jpeg_ls"), "4.80", values)


@pytest.mark.parametrize("form", FORMATS)
def test_jpeg_2000_of_openjpeg(plain, form):
    values = values_of(*form[1:])
    assert_packed(by_pydicom(plain(values, *form), pydicom.uid.JPEG2000Lossless, "openjpeg"), "4.90", values)


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize(("compressor", "syntax"), [("JPEG", "4.70"), ("JPEG2000", "4.90")])
def test_what_simpleitk_encodes(tmp_path, compressor, syntax, signed):
    values = values_of(16, signed)
    assert_packed(by_simpleitk(values, signed, compressor, tmp_path), syntax, values)


def by_simpleitk(values: np.ndarray, signed: int, compressor: str, folder: Path) -> Path:
    writer = SimpleITK.ImageFileWriter()
    writer.SetFileName(str(folder / "packed.dcm"))
    writer.SetUseCompression(True)
    writer.SetCompressor(compressor)
    writer.Execute(SimpleITK.GetImageFromArray(values[None].astype(("uint16", "int16")[signed])))
    return folder / "packed.dcm"


@pytest.mark.parametrize("form", FORMATS)
def test_rle_of_pydicom(plain, form, tmp_path):
    values = values_of(*form[1:])
    data = pydicom.dcmread(plain(values, *form))
    data.compress(pydicom.uid.RLELossless)
    data.save_as(tmp_path / "packed.dcm")
    assert_packed(tmp_path / "packed.dcm", "5", values)


@pytest.mark.parametrize(("syntax", "option", "tolerance"), [("4.81", "+en", 2), ("4.51", "+ee", 5)])
def test_lossy_images_are_near_the_original(plain, syntax, option, tolerance):
    """DCMTK's default for near-lossless JPEG-LS is 2; 12-bit JPEG of its best quality needs 5 here."""
    smooth = 900 + 9 * np.add.outer(np.arange(ROWS), np.arange(COLUMNS))
    path = by_dcmtk(plain(smooth, 16, 12, 0), "dcmcjpls" if option == "+en" else "dcmcjpeg", option)
    data = pydicom.dcmread(path)
    assert data.file_meta.TransferSyntaxUID == f"1.2.840.10008.1.2.{syntax}"
    # DCMTK spreads the values over all bits before it loses any, and says so in the rescale.
    hu = stored_values(path) * float(data.RescaleSlope) + float(data.RescaleIntercept)
    np.testing.assert_allclose(hu, smooth - 1024, rtol=0, atol=tolerance)


@pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000"])
@pytest.mark.parametrize("signed", [0, 1])
def test_series_of_compressed_slices_gives_hu(dicom, tmp_path, compressor, signed):
    """Rescale, order and sign together, as in a whole series; every second slice is left uncompressed."""
    folder = dicom.series(tmp_path / "a", 3, count=5)
    for index, path in enumerate(sorted(folder.iterdir())):
        data = pydicom.dcmread(path)
        stored = dicom.voxels(3, 5)[:, :, index].T + (0 if signed else 1024)
        data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 15, signed
        data.RescaleIntercept = 0 if signed else -1024
        data.PixelData = stored.astype("<i2").tobytes()
        if index % 2 == 0:
            packed = pydicom.dcmread(by_simpleitk(stored, signed, compressor, tmp_path))
            data.PixelData = packed.PixelData
            data["PixelData"].is_undefined_length = True
            data["PixelData"].VR = "OB"
            data.file_meta.TransferSyntaxUID = packed.file_meta.TransferSyntaxUID
        data.save_as(path)
    np.testing.assert_array_equal(read_scan(folder).voxels, dicom.voxels(3, 5))


@pytest.mark.parametrize(("syntax", "needs"), [("JPEG2000Lossless", "openjpeg"), ("JPEGLSLossless", "jpeg_ls")])
def test_header_and_image_that_disagree_about_sign_and_bits(plain, tmp_path, syntax, needs):
    """An encoder that was told 12 unsigned bits, in a header of 16 signed ones: below the half, both mean the same."""
    values = np.random.default_rng(5).integers(0, 2048, (ROWS, COLUMNS))
    for top, sound in ((2047, True), (2048, False)):
        values[5, 7] = top
        path = by_pydicom(plain(values, 16, 12, 0), getattr(pydicom.uid, syntax), needs)
        data = pydicom.dcmread(path)
        data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 15, 1
        data.save_as(path)
        if sound:
            np.testing.assert_array_equal(stored_values(path), values)
        else:
            with pytest.raises(
                ScanError, match="are compressed in 12 bits without a sign, but the header says 16 bits"
            ):
                stored_values(path)


def test_more_than_16_bits_are_not_read_compressed(plain, tmp_path):
    data = pydicom.dcmread(plain(values_of(20, 1), 32, 20, 1))
    np.testing.assert_array_equal(stored_values(tmp_path / "plain.dcm"), values_of(20, 1))
    data.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
    data.PixelData = encapsulate([b"\xff\x4f\xff\xd9"])
    data["PixelData"].is_undefined_length = True
    data.save_as(tmp_path / "packed.dcm")
    with pytest.raises(ScanError, match="are compressed in 32 bits, which is read here uncompressed only"):
        stored_values(tmp_path / "packed.dcm")


@pytest.mark.parametrize("syntax", ["JPEG2000MC", "MPEG2MPML", "HEVCMP51"])
def test_other_syntaxes_are_refused(plain, syntax, tmp_path):
    data = pydicom.dcmread(plain(values_of(12, 0), 16, 12, 0))
    data.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
    data.PixelData = encapsulate([b"\0" * 10])
    data["PixelData"].is_undefined_length = True
    data.save_as(tmp_path / "packed.dcm")
    with pytest.raises(ScanError, match=r"not read here \(JPEG, JPEG-LS, JPEG 2000 and RLE are\)"):
        stored_values(tmp_path / "packed.dcm")
