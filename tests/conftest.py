"""What every test may use: the shared folders, a whole DICOM series, one thread, and the --full switch."""

import os
import shutil
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian

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
