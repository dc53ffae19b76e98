"""What every test may use: the shared folders, a whole DICOM series, one thread, and the --full switch."""

import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="also run what is long or full-size (marked 'full')")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--full"):
        for item in items:
            if "full" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="long or full-size: runs with pytest --full"))


def _shared(part: str) -> Path:
    folder = Path(os.environ.get("MONAI_EXT_SHARED", REPOSITORY.parent / "shared")) / part
    if not folder.is_dir():
        pytest.skip(f"needs shared/{part} beside the checkout (the developers' data, not part of a clone)")
    return folder


@pytest.fixture(scope="session")
def shared_ct() -> Path:
    """Real CT volumes with third-party segmentations."""
    return _shared("ct")


@pytest.fixture(scope="session")
def shared_goldens() -> Path:
    """Numbers recorded from the authors' code."""
    return _shared("goldens")


@pytest.fixture(scope="session")
def shared_facts() -> Path:
    """Schemas and facts about data sets."""
    return _shared("facts")


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run ``python -m monai_ext`` in this process, and return its exit code."""
    from monai_ext.cli.app import main

    def run(*words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["monai_ext", *map(str, words)])
        with warnings.catch_warnings():
            warnings.simplefilter("default")  # in the open, as a user has them: no errors
            try:
                main()
            except SystemExit as end:
                return int(end.code or 0)
        return 0

    return run


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A group of one rank."""
    import torch

    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'ranks'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="session")
def repaired_jpeg2000(shared_ct: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real series, compressed as it came, with what its de-identification emptied made up anew.

    20 slices of 512 x 512 in a folder of that name; the patient is called ``PLANTED^NAME``, ``PLANTED-4711``.
    """
    folder = tmp_path_factory.mktemp("repaired") / "ct_jpeg2000"
    folder.mkdir()
    for number, path in enumerate(sorted((shared_ct / "dicom_jpeg2000").iterdir()), 1):
        data = pydicom.dcmread(path)
        data.SOPClassUID, data.SOPInstanceUID = (
            data.file_meta.MediaStorageSOPClassUID,
            data.file_meta.MediaStorageSOPInstanceUID,
        )
        data.StudyInstanceUID = "2.25.301"
        data.SeriesInstanceUID = "2.25.302"
        data.StudyID, data.SeriesNumber = "1", 3
        data.PatientName, data.PatientID = "PLANTED^NAME", "PLANTED-4711"
        data.PatientBirthDate, data.PatientSex, data.AccessionNumber = "19010203", "O", "PLANTED-17"
        # What dciodvfy calls errors in the original has no bearing here, and would only hide errors of ours.
        data.RequestingPhysician, data.BodyPartExamined = "", "ABDOMEN"
        data.remove_private_tags()
        data.save_as(folder / f"slice_{number:02}.dcm")
    return folder


@pytest.fixture(scope="session")
def repaired_series(repaired_jpeg2000: Path) -> Path:
    """The same series uncompressed (explicit VR, little endian), in a folder ``ct``: for what cannot decode."""
    from monai_ext.volumes.dicom_pixels import stored_values

    folder = repaired_jpeg2000.parent / "ct"
    folder.mkdir()
    for path in sorted(repaired_jpeg2000.iterdir()):
        data = pydicom.dcmread(path)
        data.PixelData = stored_values(path).astype("<u2").tobytes()
        data["PixelData"].VR, data["PixelData"].is_undefined_length = "OW", False
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.save_as(folder / path.name)
    return folder


@pytest.fixture
def write_series() -> Callable[..., Path]:
    """Write HU ``(x, y, z)`` as a CT series whose rows, columns and slices run as told, of patient PLANTED^NAME."""

    def write(
        folder: Path,
        voxels: np.ndarray,
        axes: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
        spacing_mm: tuple[float, float, float] = (0.75, 1.25, 2.5),
        backwards: bool = False,
        **changes: Any,
    ) -> Path:
        folder.mkdir(parents=True)
        normal = np.cross(axes[:3], axes[3:])
        for index in range(voxels.shape[2]):
            data = pydicom.Dataset()
            data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, f"2.25.9.{index + 1}"
            data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = "2.25.7", "2.25.8", "2.25.6"
            data.PatientName, data.PatientID, data.PatientSex = "PLANTED^NAME", "PLANTED-4711", "O"
            data.SeriesNumber, data.Modality, data.ImageType = 3, "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
            data.ImageOrientationPatient = list(axes)
            place = np.array([-10, 20.5, 30]) + index * spacing_mm[2] * normal
            data.ImagePositionPatient = [round(float(value), 6) for value in place]
            data.PixelSpacing, data.SliceThickness = [spacing_mm[1], spacing_mm[0]], 4
            data.Columns, data.Rows, data.SamplesPerPixel = *voxels.shape[:2], 1
            data.PhotometricInterpretation = "MONOCHROME2"
            data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
            data.RescaleSlope, data.RescaleIntercept, data.RescaleType = 1, -1024, "HU"
            data.PixelData = (voxels[:, :, index].T + 1024).astype("<u2").tobytes()
            for keyword, value in changes.items():
                setattr(data, keyword, value)
            data["PixelData"].VR = "OW"
            data.file_meta = pydicom.dataset.FileMetaDataset()
            data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            data.file_meta.MediaStorageSOPClassUID = CTImageStorage
            data.file_meta.MediaStorageSOPInstanceUID = f"2.25.9.{index + 1}"
            number = voxels.shape[2] - index if backwards else index
            path = folder / f"slice_{number:03}.dcm"
            if pydicom.__version_info__[0] == "2":
                data.is_little_endian, data.is_implicit_VR = True, False
                data.save_as(path, write_like_original=False)
            else:
                data.save_as(path, enforce_file_format=True)
        return folder

    return write


@pytest.fixture(scope="session")
def add_volume() -> Callable[..., None]:
    """Add a small volume of noise to a store: ``add_volume(folder, name, seed=0, **fields of NewVolume)``."""
    from monai_ext.volumes import Body
    from monai_ext.volumes.store_write import NewVolume, write_volume

    def add(folder: Path, name: str, seed: int = 0, **fields: Any) -> None:
        folder.mkdir(exist_ok=True)
        hu = np.random.default_rng(seed).integers(-1024, 3072, (37, 41, 29)).astype(np.int16)
        volume = NewVolume(
            id=name,
            hu=hu,
            affine=np.diag([1.5, 2.0, 2.5, 1]),
            spacing_mm=(1.5, 2.0, 2.5),
            source=f"{name}.nii.gz",
            source_root="0123abcd",
            source_sha256=f"{seed:064x}",
            source_shape=(37, 41, 29),
            source_affine=np.eye(4),
            settings={"orientation": "RAS"},
            body=Body(((1, 2, 3), (31, 37, 23)), np.array([[1, 2, 3], [5, 7, 11], [30, 36, 22]])),
        )
        write_volume(folder, replace(volume, **fields))

    return add


@pytest.fixture(scope="session")
def dciodvfy() -> str:
    """The validator of dicom3tools."""
    found = shutil.which("dciodvfy")
    if found is None:
        pytest.skip("needs dciodvfy: sudo apt-get install dicom3tools")
    return found


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    # Tests run side by side, a process a core; more threads each would only wait for one another.
    import torch

    torch.set_num_threads(1)
