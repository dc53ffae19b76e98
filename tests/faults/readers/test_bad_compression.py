"""Compressed slices that were cut, doubled or overwritten in the middle, their end in its place.

Damage within a packet of JPEG 2000 is not among them: it has no checksum, and any bits decode to something.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames

ROWS, COLUMNS, COUNT = 66, 63, 3
Damage = Callable[[bytes], bytes]


def cut(count: int) -> Damage:
    return lambda frame: frame[: len(frame) // 2] + frame[len(frame) // 2 + count :]


DAMAGE: dict[str, Damage] = {
    "10 bytes lost": cut(10),
    "1000 bytes lost": cut(1000),
    "the last 500 bytes lost": lambda frame: frame[:-500] + frame[-2:],
    "half lost": lambda frame: frame[: len(frame) // 2] + frame[-2:],
    "nearly all lost": lambda frame: frame[:200] + frame[-2:],
    "50 bytes twice": lambda frame: frame[: len(frame) // 2] + frame[len(frame) // 2 - 50 :],
    "80 bytes more": lambda frame: frame[: len(frame) // 2] + b"abcd" * 20 + frame[len(frame) // 2 :],
    "another end": lambda frame: frame[:-2] + b"\1\2",
    "another beginning": lambda frame: b"\1\2" + frame[2:],
}
OVERWRITTEN: dict[str, Damage] = {
    "zeros": lambda frame: frame[: len(frame) // 2] + bytes(100) + frame[len(frame) // 2 + 100 :],
    "ones": lambda frame: frame[: len(frame) // 2] + b"\xff" * 100 + frame[len(frame) // 2 + 100 :],
}
SYNTAXES = {
    "RLE": uid.RLELossless,
    "JPEG 2000": uid.JPEG2000Lossless,
    "JPEG-LS": uid.JPEGLSLossless,
    "JPEG": uid.JPEGLosslessSV1,
}
CASES = [
    (syntax, name)
    for syntax in SYNTAXES
    for name in (DAMAGE if syntax == "JPEG 2000" else DAMAGE | OVERWRITTEN)
    if (syntax, name) != ("RLE", "another end")  # which RLE has none of: the bytes are values like others
]


@pytest.fixture(scope="module")
def packed(ct_series, tmp_path_factory) -> Callable[[str], tuple[Path, np.ndarray]]:
    """A series of noise like CT, compressed in a syntax; made once for each."""
    made: dict[str, tuple[Path, np.ndarray]] = {}

    def make(syntax: str) -> tuple[Path, np.ndarray]:
        if syntax not in made:
            hu = np.random.default_rng(3).integers(-1010, 90, (COLUMNS, ROWS, COUNT))
            slices = ct_series.slices()[:COUNT]
            for index, data in enumerate(slices):
                data.Rows, data.Columns, data.BitsStored, data.HighBit = ROWS, COLUMNS, 16, 15
                data.PixelData = (hu[:, :, index].T + 1024).astype("<u2").tobytes()
                data["PixelData"].VR = "OW"
                compress(data, SYNTAXES[syntax], tmp_path_factory.mktemp("one"))
            made[syntax] = ct_series.save(slices, tmp_path_factory.mktemp("packed") / "case_7"), hu
        return made[syntax]

    return make


def compress(data: Dataset, syntax: str, folder: Path) -> None:
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    if syntax != uid.JPEGLosslessSV1:
        needs = {uid.JPEG2000Lossless: "openjpeg", uid.JPEGLSLossless: "jpeg_ls"}.get(syntax)
        if needs:
            pytest.importorskip(needs, reason="an encoder: pip install 'monai-ext[dicom]' pyjpegls")
        data.compress(syntax)
        return
    values = np.frombuffer(data.PixelData, "<u2").reshape(1, ROWS, COLUMNS)
    writer = SimpleITK.ImageFileWriter()
    writer.SetFileName(str(folder / "a.dcm"))
    writer.SetUseCompression(True)
    writer.SetCompressor("JPEG")
    writer.Execute(SimpleITK.GetImageFromArray(values))
    data.PixelData = pydicom.dcmread(folder / "a.dcm").PixelData
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    data.file_meta.TransferSyntaxUID = syntax


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_whole(packed, limited, syntax):
    folder, hu = packed(syntax)
    found = limited("read_scan", folder)
    assert found.kind == "value", found
    np.testing.assert_array_equal(found.value[0], hu)


@pytest.mark.parametrize(("syntax", "bad"), CASES)
def test_damaged(packed, limited, judged, tmp_path, syntax, bad):
    folder, _ = packed(syntax)
    there = tmp_path / "case_7"
    there.mkdir()
    for path in sorted(folder.iterdir()):
        (there / path.name).write_bytes(path.read_bytes())
    data = pydicom.dcmread(there / path.name)
    frame = next(generate_frames(data.PixelData, number_of_frames=1))
    frame = frame if syntax == "RLE" else frame.rstrip(b"\0")
    damaged = (DAMAGE | OVERWRITTEN)[bad](frame)
    data.PixelData = encapsulate([damaged + b"\0" * (len(damaged) % 2)])
    data["PixelData"].is_undefined_length = True
    data.save_as(there / path.name)
    judged("DICOM", f"{syntax}: {bad}", limited("read_scan", there), str(tmp_path))
