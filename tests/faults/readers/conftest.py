"""Readers under limits, and how the campaign judges what they make of a file."""

import importlib.util
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

SECONDS = 10
READERS = {
    "read_scan": "monai_ext.volumes.read_scan",
    "read_header": "monai_ext.volumes.read_header",
    "read_labels": "monai_ext.volumes.read_labels",
    "read_picture": "monai_ext.transforms.read_picture",
    "read_mask": "monai_ext.transforms.read_mask",
    "open_checkpoint": "monai_ext.networks.checkpoints.open_checkpoint",
    "read_manifest": "monai_ext.manifests.reading.read_manifest",
}


class Limited:
    """Calls readers in a process of their own: 10 s of computing, 60 s of waiting, 1.5 GiB beyond what is loaded."""

    def __init__(self, *, full: bool) -> None:
        self.all = full  # to fork a process that holds torch takes half a second
        command = [sys.executable, str(Path(__file__).with_name("limited.py"))]
        # Two threads beside the one that forks would be two too many. Each fork has limits of its own: what is tried
        # here are the readers, not the process that they are usually in.
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MONAI_EXT_READ_INSIDE": "1"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )

    def __call__(self, reader: str, *args: Any, **options: Any) -> SimpleNamespace:
        """Return ``kind``: value, refused, raised, killed or hung; and what belongs to it."""
        if not self.all and not READERS[reader].startswith("monai_ext.volumes"):
            return _here(READERS[reader], args, options)
        pickle.dump((READERS[reader], SECONDS, args, options), self.process.stdin)
        self.process.stdin.flush()
        return SimpleNamespace(**pickle.load(self.process.stdout))

    def close(self) -> None:
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def _here(function: str, args: tuple, options: dict) -> SimpleNamespace:
    """Call a reader in this process, where an alarm keeps the time."""
    spoken = importlib.util.spec_from_file_location("limited", Path(__file__).with_name("limited.py"))
    limits = importlib.util.module_from_spec(spoken)
    spoken.loader.exec_module(limits)
    module, name = function.rsplit(".", 1)
    reader = getattr(importlib.import_module(module), name)  # before the time runs: torch takes its own

    def late(*_: object) -> None:
        raise _LateError

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        answer = limits.called(reader, args, options)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    late_ones = {"kind": "hung"} if answer.get("type") == "_LateError" else answer
    return SimpleNamespace(**late_ones, printed="")


class _LateError(BaseException):
    """The time of a reader is up."""


@pytest.fixture(scope="session")
def limited(request: pytest.FixtureRequest) -> Iterator[Limited]:
    """The readers with limits on time and memory; on time alone for those that need torch, but for --full."""
    calls = Limited(full=request.config.getoption("--full"))
    yield calls
    calls.close()


@pytest.fixture
def judged(record_property: Callable[[str, object], None]) -> Callable[..., str]:
    """Record what became of a bad file and fail unless it was refused in one sentence that betrays nothing."""

    def judge(family: str, case: str, found: SimpleNamespace, *secrets: str) -> str:
        outcome = {"refused": "caught", "value": "silent", "hung": "hung"}.get(found.kind, "crashed")
        record_property("fault", [family, case, outcome])
        assert outcome == "caught", f"{outcome}: {vars(found)}"
        assert found.code not in ("", "input"), found.message
        told = found.message + found.printed
        assert not any(secret in told for secret in ("SENTINEL", *secrets)), told
        assert "\n" not in found.message
        if family != "checkpoints":  # of which it is said that no checksum lies beside them
            assert not found.printed
        return found.code

    return judge


NIFTI_1 = np.dtype(
    [
        *(("sizeof_hdr", "<i4"), ("data_type", "S10"), ("db_name", "S18"), ("extents", "<i4")),
        *(("session_error", "<i2"), ("regular", "S1"), ("dim_info", "u1"), ("dim", "<i2", 8)),
        *(("intent_p", "<f4", 3), ("intent_code", "<i2"), ("datatype", "<i2"), ("bitpix", "<i2")),
        *(("slice_start", "<i2"), ("pixdim", "<f4", 8), ("vox_offset", "<f4"), ("scl_slope", "<f4")),
        *(("scl_inter", "<f4"), ("slice_end", "<i2"), ("slice_code", "u1"), ("xyzt_units", "u1")),
        *(("cal_max", "<f4"), ("cal_min", "<f4"), ("slice_duration", "<f4"), ("toffset", "<f4")),
        *(("glmax", "<i4"), ("glmin", "<i4"), ("descrip", "S80"), ("aux_file", "S24")),
        *(("qform_code", "<i2"), ("sform_code", "<i2"), ("quatern", "<f4", 3), ("qoffset", "<f4", 3)),
        *(("srow_x", "<f4", 4), ("srow_y", "<f4", 4), ("srow_z", "<f4", 4), ("intent_name", "S16"), ("magic", "S4")),
    ]
)
TYPES = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "f8": 64, "i1": 256, "u2": 512, "u4": 768, "i8": 1024, "u8": 1280}


class NiftiMaker:
    """Makes NIfTI-1 files byte by byte, by nifti1.h and no library; 7 x 11 x 13 voxels like CT by default."""

    SHAPE = (7, 11, 13)
    SPACING_MM = (1.5, 2.0, 2.5)

    @staticmethod
    def voxels(seed: int = 5) -> np.ndarray:
        """Return ``(7, 11, 13)`` HU: air around fat and soft tissue, no two places alike."""
        rng = np.random.default_rng(seed)
        found = rng.integers(-1010, -990, NiftiMaker.SHAPE)
        found[2:5, 3:9, 2:11] = rng.integers(-100, 80, (3, 6, 9))
        return found

    def __call__(
        self, voxels: np.ndarray | None = None, order: str = "<", between: bytes = bytes(4), **fields: Any
    ) -> bytes:
        """Return a file whose forms agree, but for the header's fields that are given.

        Args:
            voxels: their type is that of the file.
            order: ``"<"`` or ``">"``.
            between: what lies between header and voxels; the first byte tells whether extensions follow.
            fields: of the header; ``dim`` and ``pixdim`` may be shorter than 8 values.
        """
        voxels = self.voxels().astype("i2") if voxels is None else voxels
        header = np.zeros((), NIFTI_1.newbyteorder(order))
        header["sizeof_hdr"], header["magic"], header["vox_offset"] = 348, b"n+1", 348 + len(between)
        header["dim"] = [voxels.ndim, *voxels.shape, *[1] * (7 - voxels.ndim)]
        header["pixdim"] = [1, *self.SPACING_MM, 0, 0, 0, 0]
        header["datatype"], header["bitpix"] = TYPES[voxels.dtype.str[1:]], 8 * voxels.dtype.itemsize
        header["scl_slope"], header["xyzt_units"], header["qform_code"], header["sform_code"] = 1, 2, 1, 1
        header["qoffset"] = -5, 6, 7
        for axis, row in enumerate(("srow_x", "srow_y", "srow_z")):
            header[row][axis], header[row][3] = self.SPACING_MM[axis], header["qoffset"][axis]
        for name, value in fields.items():
            if np.ndim(value) and header[name].ndim:
                header[name][: len(value)] = value
            else:
                header[name] = value
        return header.tobytes() + between + voxels.astype(voxels.dtype.newbyteorder(order)).tobytes(order="F")


@pytest.fixture(scope="session")
def nifti() -> NiftiMaker:
    """Makes NIfTI files byte by byte."""
    return NiftiMaker()


class SeriesMaker:
    """Makes CT series of 5 slices of 7 x 11 voxels, whose identifiers all hold ``SENTINEL``."""

    COUNT = 5

    @staticmethod
    def voxels() -> np.ndarray:
        """Return ``(7, 11, 5)`` HU."""
        rng = np.random.default_rng(7)
        found = rng.integers(-1010, -990, (7, 11, SeriesMaker.COUNT))
        found[2:5, 3:9] = rng.integers(-100, 80, (3, 6, SeriesMaker.COUNT))
        return found

    def slices(self, axes: tuple[float, ...] = (1, 0, 0, 0, 1, 0)) -> list[Dataset]:
        """Return the slices from the feet, 12 bits stored 1024 above HU."""
        found = []
        for index in range(self.COUNT):
            data = Dataset()
            data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, f"2.25.9.{index + 1}"
            data.StudyInstanceUID, data.SeriesInstanceUID, data.SeriesNumber = "2.25.7", "2.25.8", 3
            data.PatientName, data.PatientID, data.SeriesDescription = "SENTINEL^JANE", "SENTINEL-4711", "SENTINEL"
            data.Modality, data.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
            place = np.array([-10, 20.5, 30]) + 2.5 * index * np.cross(axes[:3], axes[3:])
            data.ImageOrientationPatient = list(axes)
            data.ImagePositionPatient = [round(float(value), 6) for value in place]
            data.PixelSpacing, data.Rows, data.Columns, data.SamplesPerPixel = [1.25, 0.75], 11, 7, 1
            data.PhotometricInterpretation = "MONOCHROME2"
            data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
            data.RescaleSlope, data.RescaleIntercept, data.RescaleType = 1, -1024, "HU"
            data.PixelData = (self.voxels()[:, :, index].T + 1024).astype("<u2").tobytes()
            data["PixelData"].VR = "OW"
            found.append(data)
        return found

    def save(self, slices: list[Dataset], folder: Path, syntax: str = ExplicitVRLittleEndian) -> Path:
        """Write slices, their files in an order of their own; a slice may know its syntax already."""
        folder.mkdir(parents=True)
        for number, data in enumerate(slices):
            meta = data.file_meta = getattr(data, "file_meta", None) or FileMetaDataset()
            meta.TransferSyntaxUID = meta.get("TransferSyntaxUID", syntax)
            meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, f"2.25.9.{number + 1}"
            data.save_as(folder / f"SENTINEL-{number * 7 % 5}{number}", enforce_file_format=True)
        return folder


@pytest.fixture(scope="session")
def ct_series() -> SeriesMaker:
    """Makes DICOM series."""
    return SeriesMaker()
