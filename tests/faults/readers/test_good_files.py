"""Good files of every kind must pass, with exact HU and the place that a second reader gives them."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom import uid
from pydicom.dataset import Dataset

from monai_ext.volumes import affine_of_itk, read_scan

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # of values that break the standard: some do
TURN = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
STEPS = TURN * (1.5, 2.0, 2.5)
OBLIQUE = {f"srow_{axis}": [*STEPS[row], 5.0 * row] for row, axis in enumerate("xyz")}
HALF = float(np.sqrt(0.1))  # the quaternion of that turn: its cosine is 0.8


def rescaled(slope: float, inter: float, dtype: str) -> Callable[[Any], bytes]:
    def make(nifti: Any) -> bytes:
        return nifti(((nifti.voxels() - inter) / slope).astype(dtype), scl_slope=slope, scl_inter=inter)

    return make


def of_type(dtype: str) -> Callable[[Any], bytes]:
    return lambda nifti: nifti(nifti.voxels().astype(dtype))


EXTENSION = b"\1\0\0\0" + struct.pack("<2i", 32, 6) + b"a comment".ljust(24, b"\0")
NIFTI: dict[str, Callable[[Any], bytes]] = {
    **{f"of {dtype}": of_type(dtype) for dtype in ("i2", "i4", "f4", "f8", "i8")},
    "big-endian": lambda nifti: nifti(order=">"),
    "unsigned, rescaled": rescaled(1, -1024, "u2"),
    "halves": rescaled(0.5, -1024, "u4"),
    "slope 0, not scaled": lambda nifti: nifti(scl_slope=0),
    "slope NaN, not scaled": lambda nifti: nifti(scl_slope=float("nan"), scl_inter=float("nan")),
    "qform alone": lambda nifti: nifti(sform_code=0),
    "sform alone": lambda nifti: nifti(qform_code=0, sform_code=4),
    "left-handed": lambda nifti: nifti(srow_x=[-1.5], quatern=[0, 1, 0], pixdim=[-1]),
    "oblique": lambda nifti: nifti(qform_code=0, **OBLIQUE),
    "oblique qform": lambda nifti: nifti(sform_code=0, quatern=[0, 0, HALF]),
    "an extension": lambda nifti: nifti(between=EXTENSION),
    "room before the voxels": lambda nifti: nifti(between=bytes(164)),
    "trailing axis of 1": lambda nifti: nifti(dim=[4]),
    "units not told": lambda nifti: nifti(xyzt_units=0),
}


@pytest.mark.parametrize("good", NIFTI)
@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
def test_nifti(tmp_path, nifti, record_property, good, ending):
    content = NIFTI[good](nifti)
    path = tmp_path / f"a.{ending}"
    # In two members, as parallel packers write it.
    path.write_bytes(gzip.compress(content[:999]) + gzip.compress(content[999:]) if ending == "nii.gz" else content)
    name = f"{good}, {ending}"
    second = None if "not scaled" in good else SimpleITK.ReadImage(str(path))
    passed(record_property, "good NIfTI", name, path, nifti.voxels(), second)


def passed(
    record: Callable[[str, object], None],
    family: str,
    name: str,
    path: Path,
    voxels: np.ndarray | None,
    second: SimpleITK.Image | None,
) -> None:
    """Record that a good file was read, and as what it is; refused is as wrong as silent here."""
    outcome = "crashed"
    try:
        scan = read_scan(path)
        outcome = "silent"
        if voxels is not None:
            np.testing.assert_array_equal(scan.voxels, voxels)
        if second is not None:
            np.testing.assert_array_equal(scan.voxels, SimpleITK.GetArrayFromImage(second).transpose(2, 1, 0))
            np.testing.assert_allclose(scan.affine, affine_of_itk(second), rtol=0, atol=1e-3)  # float32 quaternions
        outcome = "passed"
    finally:
        record("fault", [family, name, outcome])


def every(**fields: object) -> Callable[[list[Dataset]], None]:
    def change(slices: list[Dataset]) -> None:
        for data in slices:
            for keyword, value in fields.items():
                if value is None:
                    delattr(data, keyword)
                else:
                    setattr(data, keyword, value)

    return change


def stored(values: Callable[[np.ndarray, int], np.ndarray], **fields: object) -> Callable[[list[Dataset]], None]:
    """Store HU ``(y, x)`` of slice ``k`` as ``values`` gives them."""

    def change(slices: list[Dataset]) -> None:
        every(**fields)(slices)
        for index, data in enumerate(slices):
            hu = np.frombuffer(data.PixelData, "<u2").reshape(11, 7).astype(int) - 1024
            data.PixelData = values(hu, index).tobytes() + b"\0" * (values(hu, index).nbytes % 2)

    return change


def slopes(slices: list[Dataset]) -> None:
    """Each slice halved once more, as PET scanners and some CT do; every HU is a whole number of steps."""
    for index, data in enumerate(slices):
        hu = np.frombuffer(data.PixelData, "<u2").astype(int) - 1024
        step = 2.0**-index
        data.RescaleSlope, data.RescaleIntercept = step, -1024
        data.PixelData = ((hu + 1024) / step).astype("<u2").tobytes()
        data.BitsStored, data.HighBit = 16, 15


def shuffled(slices: list[Dataset]) -> None:
    slices.reverse()
    for number, data in enumerate(slices):
        data.InstanceNumber = number * 3 % 5 + 1


def compressed(syntax: str) -> Callable[[list[Dataset]], None]:
    def change(slices: list[Dataset]) -> None:
        for data in slices:
            data.file_meta = pydicom.dataset.FileMetaDataset()
            data.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
            data.compress(syntax)

    return change


S16 = {"BitsStored": 16, "HighBit": 15}
DICOM: dict[str, tuple[Callable[[list[Dataset]], object], str]] = {
    "12 bits": (lambda slices: None, uid.ExplicitVRLittleEndian),
    "implicit VR": (lambda slices: None, uid.ImplicitVRLittleEndian),
    "big-endian": (stored(lambda hu, _: (hu + 1024).astype(">u2")), uid.ExplicitVRBigEndian),
    "signed": (
        stored(lambda hu, _: hu.astype("<i2"), PixelRepresentation=1, RescaleIntercept=0, **S16),
        uid.ExplicitVRLittleEndian,
    ),
    "signed in 12 bits": (
        stored(lambda hu, _: (hu & 0xFFF).astype("<u2"), PixelRepresentation=1, RescaleIntercept=0),
        uid.ExplicitVRLittleEndian,
    ),
    "32 bits": (
        stored(lambda hu, _: (hu + 1024).astype("<u4"), BitsAllocated=32, BitsStored=32, HighBit=31),
        uid.ExplicitVRLittleEndian,
    ),
    "a slope for each slice": (slopes, uid.ExplicitVRLittleEndian),
    "MONOCHROME1": (every(PhotometricInterpretation="MONOCHROME1"), uid.ExplicitVRLittleEndian),
    "shuffled": (shuffled, uid.ExplicitVRLittleEndian),
    "one frame, told": (every(NumberOfFrames=1), uid.ExplicitVRLittleEndian),
    "unspecified unit": (every(RescaleType="US"), uid.ExplicitVRLittleEndian),
    "no UIDs": (every(SeriesInstanceUID="", StudyInstanceUID=""), uid.ExplicitVRLittleEndian),
    "tilt of 0": (every(GantryDetectorTilt=0), uid.ExplicitVRLittleEndian),
    "decimals of two digits": (every(PixelSpacing=["1.25", ".75"]), uid.ExplicitVRLittleEndian),
    "exponents": (every(RescaleIntercept="-1.024E+3", RescaleSlope="1e0"), uid.ExplicitVRLittleEndian),
    "nested sequences": (every(RequestAttributesSequence=[Dataset()]), uid.ExplicitVRLittleEndian),
    "RLE": (compressed(uid.RLELossless), uid.RLELossless),
    "JPEG 2000": (compressed(uid.JPEG2000Lossless), uid.JPEG2000Lossless),
    "JPEG-LS": (compressed(uid.JPEGLSLossless), uid.JPEGLSLossless),
}
AXES = {
    "head first": (1, 0, 0, 0, 1, 0),
    "feet first": (-1, 0, 0, 0, 1, 0),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "coronal": (1, 0, 0, 0, 0, -1),
    "oblique": (0.8, 0.6, 0.0, -0.48, 0.64, 0.6),
}


@pytest.mark.parametrize("good", DICOM)
def test_dicom(tmp_path, ct_series, record_property, good):
    change, syntax = DICOM[good]
    if good == "JPEG-LS":
        pytest.importorskip("jpeg_ls", reason="an encoder: pip install pyjpegls")
    if good == "JPEG 2000":
        pytest.importorskip("openjpeg", reason="an encoder: pip install pylibjpeg-openjpeg")
    if good.startswith("JPEG"):  # OpenJPEG encodes no smaller picture with its usual levels
        ct_series = larger(ct_series)
    slices = ct_series.slices()
    expected = ct_series.voxels()
    change(slices)
    folder = ct_series.save(slices, tmp_path / "case_7", syntax)
    passed(record_property, "good DICOM", good, folder, expected, second_of(folder, good))


def larger(ct_series: Any) -> Any:
    """The same maker, its slices tiled to 63 x 66."""
    kind = type(ct_series)

    class Larger(kind):
        @staticmethod
        def voxels() -> np.ndarray:
            return np.tile(kind.voxels(), (9, 6, 1))

        def slices(self, axes: tuple[float, ...] = AXES["head first"]) -> list[Dataset]:
            found = super().slices(axes)
            for index, data in enumerate(found):
                data.Rows, data.Columns = 66, 63
                data.PixelData = (self.voxels()[:, :, index].T + 1024).astype("<u2").tobytes()
                data["PixelData"].VR = "OW"
            return found

    return Larger()


def second_of(folder: Path, good: str) -> SimpleITK.Image | None:
    # ITK inverts MONOCHROME1, and finds no series without a UID.
    if good in ("MONOCHROME1", "no UIDs"):
        return None
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


@pytest.mark.parametrize("lying", AXES)
def test_dicom_lying(tmp_path, ct_series, record_property, lying):
    folder = ct_series.save(ct_series.slices(AXES[lying]), tmp_path / "case_7")
    passed(record_property, "good DICOM", lying, folder, ct_series.voxels(), second_of(folder, lying))


@pytest.mark.full
@pytest.mark.parametrize(
    "name", ["torso_3mm.nii.gz", "abdomen_slab_3mm.nii.gz", "heart_1p5mm.nii.gz", "dicom_jpeg2000"]
)
def test_real_scans(shared_ct, record_property, name):
    path = shared_ct / name
    second = second_of(path, name) if path.is_dir() else SimpleITK.ReadImage(str(path))
    passed(record_property, "good files, real", name, path, None, second)
