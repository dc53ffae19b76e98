"""DICOM series for several test modules: small, like CT, each with voxels of its own, and full of identifiers."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

COLUMNS, ROWS = 7, 11


def voxels_of(number: int, count: int) -> np.ndarray:
    """Return ``(x, y, z)`` HU, other ones for each series number."""
    rng = np.random.default_rng(number)
    voxels = rng.integers(-1010, -990, (COLUMNS, ROWS, count))
    voxels[2:5, 3:9] = rng.integers(-100, 80, (3, 6, count))
    return voxels


def save_dicom(data: Dataset, path: Path) -> None:
    data.preamble, data.file_meta = bytes(128), FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.get("SOPClassUID", "")
    data.file_meta.MediaStorageSOPInstanceUID = data.get("SOPInstanceUID", "")
    path.parent.mkdir(parents=True, exist_ok=True)
    if pydicom.__version_info__[0] == "2":
        data.is_little_endian, data.is_implicit_VR = True, False
        data.save_as(path, write_like_original=True)
    else:
        data.save_as(path)


class DicomMaker:
    """Writes series and other objects of one patient, whose identifiers all hold ``SENTINEL``."""

    save = staticmethod(save_dicom)
    voxels = staticmethod(voxels_of)

    def slice(self, number: int, index: int, count: int = 4, **fields: object) -> Dataset:
        """Return slice ``index`` of series ``number``; a field of ``None`` is left out."""
        data = Dataset()
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, f"2.25.9.{number}.{index}"
        data.StudyInstanceUID, data.SeriesInstanceUID, data.SeriesNumber = "2.25.7", f"2.25.8.{number}", number
        data.PatientName, data.PatientID, data.SeriesDescription = "SENTINEL^JANE", "SENTINEL-4711", "SENTINEL lung"
        data.Modality, data.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        data.ImageOrientationPatient, data.PixelSpacing = [1, 0, 0, 0, 1, 0], [1.25, 0.75]
        data.ImagePositionPatient = [-10, 20.5, 30 + 2.5 * index]
        data.Rows, data.Columns, data.SamplesPerPixel = ROWS, COLUMNS, 1
        data.PhotometricInterpretation = "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
        data.RescaleSlope, data.RescaleIntercept = 1, -1024
        data.PixelData = (voxels_of(number, count)[:, :, index].T + 1024).astype("<u2").tobytes()
        data["PixelData"].VR = "OW"
        for keyword, value in fields.items():
            if value is None:
                delattr(data, keyword)
            else:
                setattr(data, keyword, value)
        return data

    def series(
        self, folder: Path, number: int = 3, count: int = 4, only: range | None = None, **fields: object
    ) -> Path:
        """Write a series, or some of its slices, into a folder that may hold others."""
        for index in only or range(count):
            save_dicom(self.slice(number, index, count, **fields), folder / f"SENTINEL-{number}-{index:02d}")
        return folder

    def other(self, path: Path, modality: str, sop_class: str = "", number: int = 90, **fields: object) -> Path:
        """Write an object without pixels."""
        data = Dataset()
        data.SOPClassUID, data.SOPInstanceUID = sop_class, f"2.25.9.{number}.0"
        data.StudyInstanceUID, data.SeriesInstanceUID, data.SeriesNumber = "2.25.7", f"2.25.8.{number}", number
        data.PatientName, data.Modality = "SENTINEL^JANE", modality
        for keyword, value in fields.items():
            setattr(data, keyword, value)
        save_dicom(data, path)
        return path

    @staticmethod
    def zip(folder: Path, path: Path) -> Path:
        """Pack a folder with its base name in front, as zips usually are."""
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(folder.rglob("*")):
                archive.write(file, file.relative_to(folder.parent))
        return path


@pytest.fixture(scope="session")
def dicom() -> DicomMaker:
    """Makes series, other DICOM objects and zips."""
    return DicomMaker()


@pytest.fixture
def no_temporary_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Path]]:
    """Lists what lies in the folder for temporary files, which is this test's own."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return lambda: list(folder.iterdir())
