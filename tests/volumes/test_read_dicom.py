"""DICOM series: SimpleITK's numbers where both read, a sentence where a reader would be silently wrong."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from monai_ext.base import GeometryError, LabelError, ScanError
from monai_ext.volumes import affine_of_itk, open_series, read_labels, read_scan
from monai_ext.volumes.dicom_pixels import stored_values

COLUMNS, ROWS, COUNT = 7, 11, 5
STEP_MM, COLUMN_MM, ROW_MM = 2.5, 0.75, 1.25
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
TURNED = (0.8, 0.6, 0.0, -0.48, 0.64, 0.6)  # rows and columns oblique to all axes, exact in decimals
NAME = "SENTINEL^JANE"


def hu() -> np.ndarray:
    """Return CT-like ``(x, y, z)`` HU."""
    rng = np.random.default_rng(7)
    voxels = rng.integers(-1010, -990, (COLUMNS, ROWS, COUNT))
    voxels[2:5, 3:9] = rng.integers(-100, 80, (3, 6, COUNT))
    return voxels


def slice_of(index: int, axes: tuple[float, ...] = AXIAL) -> Dataset:
    """Return slice ``index`` from the feet, with unsigned 12 bits stored 1024 above HU."""
    normal = np.cross(axes[:3], axes[3:])
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, f"2.25.9.{index}"
    data.StudyInstanceUID, data.SeriesInstanceUID, data.SeriesNumber = "2.25.7", "2.25.8", 3
    data.PatientName, data.PatientID, data.Modality = NAME, "SENTINEL-4711", "CT"
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.ImageOrientationPatient = list(axes)
    data.ImagePositionPatient = [round(float(value), 6) for value in (-10, 20.5, 30) + index * STEP_MM * normal]
    data.PixelSpacing = [ROW_MM, COLUMN_MM]
    data.Rows, data.Columns, data.SamplesPerPixel = ROWS, COLUMNS, 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.RescaleSlope, data.RescaleIntercept, data.RescaleType = 1, -1024, "HU"
    data.PixelData = (hu()[:, :, index].T + 1024).astype("<u2").tobytes()
    return data


def save(data: Dataset, path: Path, syntax: str = ExplicitVRLittleEndian) -> None:
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    if pydicom.__version_info__[0] == "2":
        data.is_little_endian, data.is_implicit_VR = syntax != ExplicitVRBigEndian, syntax == ImplicitVRLittleEndian
        data.save_as(path, write_like_original=False)
    else:
        data.save_as(path, enforce_file_format=True)


def series(
    folder: Path,
    change: Callable[[list[Dataset]], object] = lambda slices: None,
    axes: tuple[float, ...] = AXIAL,
    syntax: str = ExplicitVRLittleEndian,
) -> Path:
    """Write a series into ``folder/case_7``, its files in an order of their own."""
    slices = [slice_of(index, axes) for index in range(COUNT)]
    change(slices)
    folder = folder / "case_7"
    folder.mkdir(parents=True)
    for number, data in enumerate(slices):
        save(data, folder / f"{NAME}-{number * 7 % 5}{number}", syntax)
    return folder


def by_simpleitk(folder: Path) -> SimpleITK.Image:
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def assert_same_as_simpleitk(folder: Path) -> None:
    scan, image = read_scan(folder), by_simpleitk(folder)
    np.testing.assert_array_equal(scan.voxels, SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0))
    # ITK makes the third axis of the normal and the distance; here it is the step itself, of decimal strings.
    np.testing.assert_allclose(scan.affine, affine_of_itk(image), rtol=0, atol=1e-5)


# How the patient lies and how the slices were taken; C.7.3.1.1.2 gives each its letters.
LYING = {
    "HFS": AXIAL,
    "HFP": (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    "FFS": (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "FFP": (1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    "HFDR": (0.0, 1.0, 0.0, -1.0, 0.0, 0.0),
    "sagittal": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
    "coronal": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0),
    "oblique": TURNED,
}


@pytest.mark.parametrize("lying", LYING)
def test_every_voxel_lies_where_it_was_in_the_patient(tmp_path, lying):
    """The patient is a function of millimetres, sampled slice by slice from the attributes alone."""

    def patient(lps_mm: np.ndarray) -> np.ndarray:
        return np.rint(lps_mm @ (3, 5, 7))  # no two axes and no two directions alike

    def sample(slices: list[Dataset]) -> None:
        for data in slices:
            if lying in ("HFS", "HFP", "FFS", "FFP", "HFDR"):
                data.PatientPosition = lying
            rows, columns = np.mgrid[:ROWS, :COLUMNS]
            across, down = np.array(data.ImageOrientationPatient, float).reshape(2, 3)
            place = np.array(data.ImagePositionPatient, float)
            place = place + columns[..., None] * COLUMN_MM * across + rows[..., None] * ROW_MM * down  # C.7.6.2.1.1
            data.PixelData = (patient(place) + 1024).astype("<u2").tobytes()

    folder = series(tmp_path, sample, axes=LYING[lying])
    scan = read_scan(folder, assume_hu=True)
    index = np.stack(np.meshgrid(*map(np.arange, scan.voxels.shape), indexing="ij"), axis=-1)
    ras_mm = index @ scan.affine[:3, :3].T + scan.affine[:3, 3]
    # One HU, where a hair's breadth decides how half a unit is rounded; the least step of a voxel is 2.25 HU.
    np.testing.assert_allclose(scan.voxels, patient(ras_mm * (-1, -1, 1)), rtol=0, atol=1)
    assert np.linalg.det(scan.affine) > 0  # no series is read as its mirror image


@pytest.mark.parametrize("axes", LYING.values())
def test_voxels_and_affine_are_simpleitks(tmp_path, axes):
    folder = series(tmp_path, axes=axes)
    scan = read_scan(folder)
    np.testing.assert_array_equal(scan.voxels, hu())
    assert (scan.case, str(scan.source), scan.kind) == ("case_7", "case_7", "dicom")
    np.testing.assert_allclose(scan.spacing_mm, (COLUMN_MM, ROW_MM, STEP_MM), rtol=0, atol=1e-6)
    assert_same_as_simpleitk(folder)


def test_affine_by_hand(tmp_path):
    affine = read_scan(series(tmp_path)).affine
    np.testing.assert_array_equal(affine, [[-0.75, 0, 0, 10], [0, -1.25, 0, -20.5], [0, 0, 2.5, 30], [0, 0, 0, 1]])


def test_the_real_series_with_empty_uids_and_its_labels(shared_ct):
    folder = shared_ct / "dicom_jpeg2000"
    assert_same_as_simpleitk(folder)
    scan = read_scan(folder)
    assert scan.voxels.shape == (512, 512, 20)
    labels = read_labels(shared_ct / "dicom_jpeg2000_organs.nii.gz", like=scan)
    np.testing.assert_allclose(labels.affine, scan.affine, rtol=0, atol=1e-4)  # the NIfTI holds float32
    # Ribs are brighter than the liver only where the labels' rows were turned to run as the image's do.
    assert scan.voxels[np.isin(labels.voxels, range(92, 116))].mean() > 200 > scan.voxels[labels.voxels == 5].mean()


def test_jpeg2000_is_decoded_as_openjpeg_does(shared_ct):
    pytest.importorskip("openjpeg", reason="a second decoder: pip install pylibjpeg-openjpeg")
    path = sorted((shared_ct / "dicom_jpeg2000").iterdir())[3]
    np.testing.assert_array_equal(stored_values(path), pydicom.dcmread(path).pixel_array)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_uncompressed_syntaxes(tmp_path, syntax):
    def swap(slices: list[Dataset]) -> None:
        for data in slices:
            if syntax == ExplicitVRBigEndian:
                data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
            data["PixelData"].VR = "OW"

    np.testing.assert_array_equal(read_scan(series(tmp_path, swap, syntax=syntax)).voxels, hu())


@pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000"])
@pytest.mark.parametrize("dtype", ["uint16", "int16"])
def test_jpeg_families_keep_sign_and_value(tmp_path, compressor, dtype):
    stored = hu()[:, :, 2].T + (1024 if dtype == "uint16" else 0)
    image = SimpleITK.GetImageFromArray(stored[None].astype(dtype))
    writer = SimpleITK.ImageFileWriter()
    writer.SetFileName(str(tmp_path / "a.dcm"))
    writer.SetUseCompression(True)
    writer.SetCompressor(compressor)
    writer.Execute(image)
    assert pydicom.dcmread(tmp_path / "a.dcm").file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(stored_values(tmp_path / "a.dcm"), stored)


def test_rle(tmp_path):
    data = slice_of(2)
    save(data, tmp_path / "plain")
    data = pydicom.dcmread(tmp_path / "plain")
    data.compress(pydicom.uid.RLELossless)
    data.save_as(tmp_path / "packed")
    np.testing.assert_array_equal(stored_values(tmp_path / "packed"), hu()[:, :, 2].T + 1024)


def signed(slices: list[Dataset]) -> None:
    for index, data in enumerate(slices):
        data.PixelRepresentation, data.RescaleIntercept = 1, 0
        # What overlays once left above the stored bits is not part of the value.
        stored = (hu()[:, :, index].T & 0x0FFF) | 0x5000
        data.PixelData = stored.astype("<u2").tobytes()


def slopes(slices: list[Dataset]) -> None:
    for index, data in enumerate(slices):
        data.RescaleSlope, data.RescaleIntercept = index + 1, -2000 + index
        data.PixelData = np.ascontiguousarray((hu()[:, :, index].T + 2000) // (index + 1)).astype("<u2").tobytes()


def test_signed_values_in_twelve_bits(tmp_path):
    np.testing.assert_array_equal(read_scan(series(tmp_path, signed)).voxels, hu())


def test_every_slice_has_its_own_rescale(tmp_path):
    expected = np.stack([(hu()[:, :, k] + 2000) // (k + 1) * (k + 1) - 2000 + k for k in range(COUNT)], axis=2)
    folder = series(tmp_path, slopes)
    np.testing.assert_array_equal(read_scan(folder).voxels, expected)
    assert_same_as_simpleitk(folder)


def test_monochrome1_is_no_other_value(tmp_path):
    folder = series(tmp_path, every(PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(read_scan(folder).voxels, hu())


def test_notes_beside_the_slices_are_passed_over(tmp_path):
    folder = series(tmp_path)
    for name in (".DS_Store", "DICOMDIR", "README.txt", "labels.json", "Thumbs.db", "desktop.ini"):
        (folder / name).write_text("not a slice")
    np.testing.assert_array_equal(read_scan(folder).voxels, hu())


def every(**fields: object) -> Callable[[list[Dataset]], None]:
    return lambda slices: [one(index, **fields)(slices) for index in range(len(slices))] and None


def one(index: int, **fields: object) -> Callable[[list[Dataset]], None]:
    def change(slices: list[Dataset]) -> None:
        for keyword, value in fields.items():
            if value is None:
                delattr(slices[index], keyword)
            else:
                setattr(slices[index], keyword, value)

    return change


def moved(index: int, *by_mm: float) -> Callable[[list[Dataset]], None]:
    def change(slices: list[Dataset]) -> None:
        position = np.array(slices[index].ImagePositionPatient, dtype=float) + by_mm
        slices[index].ImagePositionPatient = list(position)

    return change


def tilted(slices: list[Dataset]) -> None:
    """A gantry tilt of 12 degrees: the planes lean, the table still moves along z."""
    lean = np.radians(12)
    for index, data in enumerate(slices):
        data.ImageOrientationPatient = [1, 0, 0, 0, round(np.cos(lean), 9), round(-np.sin(lean), 9)]
        data.ImagePositionPatient = [-10, 20.5, 30 + index * STEP_MM]


def other_series(slices: list[Dataset]) -> None:
    for index in (1, 3):
        slices[index].SeriesInstanceUID = "2.25.88"


def other_numbers(slices: list[Dataset]) -> None:
    for index, data in enumerate(slices):
        data.SeriesInstanceUID, data.SeriesNumber = "", index // 2


def smaller(slices: list[Dataset]) -> None:
    slices[2].Rows, slices[2].PixelData = ROWS - 1, slices[2].PixelData[: -2 * COLUMNS]


def lut(slices: list[Dataset]) -> None:
    slices[1].ModalityLUTSequence = [Dataset()]


BAD: dict[str, tuple[Callable[[list[Dataset]], object], str, str]] = {
    "two series": (other_series, "dicom.series", r"mixes 2 series \(of 3, 2 files\); sort"),
    "empty uids": (other_numbers, "dicom.series", r"mixes 3 series \(of 2, 2, 1 files\)"),
    "mr": (every(Modality="MR"), "dicom.modality", "not CT by its modality; .*--assume-hu"),
    "no modality": (every(Modality=None), "dicom.modality", "not CT by its modality"),
    "a slice missing": (lambda s: s.pop(2), "dicom.missing", "1 slice is missing between others 2.5 mm"),
    "two missing": (lambda s: (s.pop(2), s.pop(2)), "dicom.*", "missing|apart"),
    "a slice twice": (lambda s: s.append(s[1]), "dicom.duplicates", "1 slice lies where another one does"),
    "phases": (lambda s: s.extend(map(slice_of, range(5))), "dicom.duplicates", "5 slices lie"),
    "spacing varies": (moved(4, 0, 0, 0.6), "dicom.spacing_varies", "from 2.5 to 3.1 mm apart"),
    "one out of step": (moved(2, 0, 0, 0.06), "dicom.spacing_varies", "mm apart"),
    "one aside": (moved(2, 0.5, 0, 0), "dicom.spacing_varies", "do not lie on one line"),
    "one slice": (lambda s: s.__delitem__(slice(1, 5)), "scan.dimensions", "7x11x1 voxels are a 2D image"),
    "orientation": (one(3, ImageOrientationPatient=[1, 0, 0, 0, 0.8, 0.6]), "dicom.orientations", "not parallel"),
    "flipped": (one(3, ImageOrientationPatient=[-1, 0, 0, 0, 1, 0]), "dicom.orientations", "not parallel"),
    "no right angle": (every(ImageOrientationPatient=[1, 0, 0, 0.6, 0.8, 0]), "dicom.orientation", "right angles"),
    "no unit": (every(ImageOrientationPatient=[2, 0, 0, 0, 1, 0]), "dicom.orientation", "right angles"),
    "no orientation": (every(ImageOrientationPatient=None), "dicom.geometry", "no usable ImageOrientationPatient"),
    "no position": (one(2, ImagePositionPatient=None), "dicom.geometry", "no usable ImagePositionPatient"),
    "short position": (one(2, ImagePositionPatient=[1, 2]), "dicom.geometry", "no usable ImagePositionPatient"),
    "no spacing": (every(PixelSpacing=None), "dicom.geometry", "no usable PixelSpacing"),
    "spacing zero": (every(PixelSpacing=[0, 1]), "scan.spacing", "spacing along y is 0 mm"),
    "spacing negative": (every(PixelSpacing=[1, -1]), "scan.spacing", "spacing along x is -1 mm"),
    "spacing of one": (one(2, PixelSpacing=[1.25, 0.8]), "dicom.spacings", "differ in pixel spacing"),
    "size of one": (smaller, "dicom.sizes", "several sizes, 7x11 and 7x10"),
    "tilt": (tilted, "dicom.tilt", r"tilted by 12\.0 degrees"),
    "tilt that is lost": (every(GantryDetectorTilt=-9), "dicom.tilt", r"tilted by 9\.0 degrees"),
    "no rescale": (every(RescaleSlope=None, RescaleIntercept=None), "dicom.rescale", "no rescale.*--assume-hu"),
    "half a rescale": (every(RescaleIntercept=None), "dicom.rescale", "no rescale slope and intercept"),
    "one without": (one(2, RescaleSlope=None, RescaleIntercept=None), "dicom.rescale", "no rescale"),
    "slope zero": (every(RescaleSlope=0), "dicom.rescale", "slope of 0"),
    "unit": (every(RescaleType="OD"), "dicom.rescale_type", "another unit"),
    "lut": (lut, "dicom.rescale", "modality LUT"),
    "localizer": (one(0, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "dicom.localizer", "is a localizer"),
    "frames": (one(0, NumberOfFrames=4), "dicom.multiframe", "several frames"),
    "colour": (every(SamplesPerPixel=3, PhotometricInterpretation="RGB"), "scan.not_scalar", "in colour"),
    "palette": (every(PhotometricInterpretation="PALETTE COLOR"), "dicom.pixels", "are in colour"),
    "no rows": (one(1, Rows=None), "dicom.no_pixels", "has no pixels"),
    "no pixel data": (one(1, PixelData=None), "dicom.truncated", "ends before its pixels; copy or export"),
    "no photometric": (every(PhotometricInterpretation=None), "dicom.pixels", "absent or cannot be parsed"),
    "empty pixel data": (one(1, PixelData=b""), "dicom.pixels", "absent or cannot be parsed"),
    "short pixel data": (one(1, PixelData=bytes(152)), "dicom.pixels", "152 bytes long instead of 154"),
    "long pixel data": (one(1, PixelData=bytes(156)), "dicom.pixels", "156 bytes long instead of 154"),
    "bits": (every(HighBit=15), "dicom.pixels", "12 of 16 bits up to bit 15"),
    "un-rescaled": (every(RescaleIntercept=0), "scan.not_hu", "do not look like CT"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_series(tmp_path, bad):
    change, code, sentence = BAD[bad]
    with pytest.raises(ScanError, match=rf"^case_7: .*({sentence})") as caught:
        read_scan(series(tmp_path / "Doe^Jane", change))
    assert code in (caught.value.code, "dicom.*")
    assert not any(word in str(caught.value) for word in ("SENTINEL", "Doe", "2.25", str(tmp_path)))


def damaged(how: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(how(path.read_bytes())) and None


BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "file 3 of 5 (is not a DICOM file|cannot be parsed)"),
    "text": (lambda path: path.write_text("hello " * 60), "file 3 of 5 is not a DICOM file"),
    "cut in the header": (
        damaged(lambda content: content[:400]),
        "file 3 of 5 ends before its pixels; copy or export the series again",
    ),
    "cut in the pixels": (damaged(lambda content: content[:-20]), "file 3 of 5 has pixels that"),
    "noise": (damaged(lambda content: content[:200] + bytes(range(256)) * 4), "file 3 of 5"),
}


@pytest.mark.parametrize("bad", BAD_FILES)
def test_bad_file(tmp_path, bad):
    damage, sentence = BAD_FILES[bad]
    folder = series(tmp_path)
    damage(sorted(folder.iterdir())[2])
    with pytest.raises(ScanError, match=rf"^case_7: ({sentence})") as caught:
        read_scan(folder)
    assert "SENTINEL" not in str(caught.value)


def test_deflated_slices_are_not_inflated(tmp_path):
    folder = series(tmp_path)
    path = sorted(folder.iterdir())[0]
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    data.save_as(path)
    with pytest.raises(ScanError, match=r"^case_7: file 1 of 5 is deflated; store the series uncompressed"):
        read_scan(folder)


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_truncated_jpeg2000_is_refused(shared_ct, tmp_path, keep):
    source = sorted((shared_ct / "dicom_jpeg2000").iterdir())[0]
    data = pydicom.dcmread(source)
    frame = pydicom.encaps.encapsulate([data.PixelData[16:][: int(len(data.PixelData) * keep) // 2 * 2]])
    data.PixelData = frame
    data.save_as(tmp_path / "cut")
    with pytest.raises(ScanError, match="are truncated"):
        stored_values(tmp_path / "cut")


def test_assume_hu_takes_stored_values_of_any_modality(tmp_path):
    def as_stored(slices: list[Dataset]) -> None:
        signed(slices)
        every(Modality="MR", RescaleSlope=None, RescaleIntercept=None, RescaleType=None)(slices)

    folder = series(tmp_path, as_stored)
    np.testing.assert_array_equal(read_scan(folder, assume_hu=True).voxels, hu())


def test_folders_without_a_series(tmp_path):
    (tmp_path / "case_7").mkdir()
    with pytest.raises(ScanError, match=r"^case_7: the folder holds no scan; give the folder of one DICOM series"):
        read_scan(tmp_path / "case_7")
    (tmp_path / "case_7" / "series").mkdir()
    with pytest.raises(ScanError, match=r"^case_7: the folder holds 1 folder; give"):
        read_scan(tmp_path / "case_7")


def test_labels_are_not_read_from_a_series(tmp_path):
    with pytest.raises(LabelError, match=r"^case_7: a DICOM series holds no label ids"):
        read_labels(series(tmp_path))


def test_geometry_errors_have_their_own_type(tmp_path):
    with pytest.raises(GeometryError):
        read_scan(series(tmp_path, tilted))


def test_nothing_about_the_patient_reaches_the_temporary_file(shared_ct, tmp_path, monkeypatch):
    seen: list[bytes] = []
    write = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda path, data: seen.append(bytes(data)) or write(path, data))
    path = sorted((shared_ct / "dicom_jpeg2000").iterdir())[0]
    data = pydicom.dcmread(path)
    data.PatientName, data.PatientID = NAME, "SENTINEL-4711"
    data.save_as(tmp_path / "a")
    stored_values(tmp_path / "a")
    assert len(seen) == 1
    assert b"SENTINEL" not in seen[0]
    assert b"SIEMENS" not in seen[0].split(b"\xff\x4f\xff\x51")[0]


def test_an_opened_series_has_its_files_and_headers_in_the_order_of_the_voxels(tmp_path):
    found = open_series(series(tmp_path, axes=TURNED), "of mine")
    assert (found.case, found.shape, found.modality) == ("of mine", (COLUMNS, ROWS, COUNT), "CT")
    scan, headers = found.read(), found.headers()
    np.testing.assert_array_equal(scan.voxels, hu())
    np.testing.assert_array_equal(scan.affine, found.affine)
    assert [header.SOPInstanceUID for header in headers] == [f"2.25.9.{index}" for index in range(COUNT)]
    for index, (path, header) in enumerate(zip(found.files, headers, strict=True)):
        assert header.PatientName == NAME
        assert header.file_meta.MediaStorageSOPInstanceUID == f"2.25.9.{index}"
        assert "PixelData" not in header
        np.testing.assert_array_equal(stored_values(path).T - 1024, hu()[:, :, index])
    assert "SENTINEL" not in repr(found)


def test_opening_decodes_no_pixels_but_checks_all_headers(tmp_path):
    folder = series(tmp_path, one(1, PixelData=bytes(152)))
    assert open_series(folder).shape == (COLUMNS, ROWS, COUNT)
    with pytest.raises(ScanError, match=r"^there: there is no such folder"):
        open_series(folder.parent / "there")
    with pytest.raises(ScanError, match=r"^case_7: file 5 of 5 has no rescale"):
        open_series(series(tmp_path / "b", one(2, RescaleSlope=None, RescaleIntercept=None)))
