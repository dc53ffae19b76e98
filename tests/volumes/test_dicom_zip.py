"""Zips that are damaged, hostile or of something else: nothing is written before all is known to be sound."""

import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from monai_ext.base import ScanError
from monai_ext.volumes import dicom_zip as module
from monai_ext.volumes import find_inputs, find_scans, find_series, open_series, prepare, read_scan


@pytest.fixture
def whole(tmp_path: Path, dicom) -> Path:
    return dicom.zip(dicom.series(tmp_path / "in" / "SENTINEL", 3), tmp_path / "case_7.zip")


def refused(path: Path, sentence: str, code: str) -> None:
    for call in (read_scan, open_series, find_series):
        with pytest.raises(ScanError, match=rf"^case_7: {sentence}") as caught:
            call(path)
        assert caught.value.code == code
        assert not any(word in str(caught.value) for word in ("SENTINEL", "/", "passwd"))


def test_files_of_an_open_series_last_as_long_as_it(whole, dicom, no_temporary_left):
    series = open_series(whole)
    (folder,) = no_temporary_left()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert "SENTINEL" not in "".join(map(str, folder.rglob("*")))
    np.testing.assert_array_equal(series.read().voxels, dicom.voxels(3, 4))
    assert [header.SOPInstanceUID for header in series.headers()] == [f"2.25.9.3.{index}" for index in range(4)]
    del series
    assert no_temporary_left() == []
    series = open_series(whole)
    series.close()
    assert no_temporary_left() == []
    with pytest.raises(ScanError, match=r"^case_7: it cannot be read \(No such file or directory\)"):
        series.headers()


def add(name: str, mode: int = 0, content: bytes = b"x") -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with zipfile.ZipFile(path, "a") as archive:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, content)

    return change


def patched(old: bytes, new: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(path.read_bytes().replace(old, new)) and None


def encrypted(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.find(mark)
        content[place + at] |= 1
    path.write_bytes(bytes(content))


HOSTILE: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "up": (add("../../SENTINEL"), "the zip holds a path that leads out of it; have", "zip.path"),
    "up in the middle": (add("a/../../b"), "the zip holds a path that leads out", "zip.path"),
    "up by backslash": (add("a\\..\\..\\b"), "the zip holds a path that leads out", "zip.path"),
    "absolute": (add("/etc/passwd"), "the zip holds a path that leads out", "zip.path"),
    "drive": (add("C:\\a"), "the zip holds a path that leads out", "zip.path"),
    "link": (add("SENTINEL/a", stat.S_IFLNK | 0o777, b"/etc/passwd"), "the zip holds a link or a device", "zip.link"),
    "pipe": (add("SENTINEL/a", stat.S_IFIFO | 0o666), "the zip holds a link or a device", "zip.link"),
    "encrypted": (encrypted, "the zip is encrypted; decrypt it first", "zip.encrypted"),
    "text": (lambda path: path.write_text("SENTINEL"), "the file cannot be used, it is no whole zip", "scan.damaged"),
    "empty": (lambda path: path.write_bytes(b""), "the file cannot be used, it is no whole zip", "scan.damaged"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-30]), "the file cannot be used", "scan.damaged"),
}


@pytest.mark.parametrize("bad", HOSTILE)
def test_hostile_zip(whole, bad, no_temporary_left):
    change, sentence, code = HOSTILE[bad]
    change(whole)
    refused(whole, sentence, code)
    assert no_temporary_left() == []


def test_flipped_bit_in_the_content_is_found(whole, no_temporary_left):
    with zipfile.ZipFile(whole) as archive:
        last = archive.infolist()[-1]
    content = bytearray(whole.read_bytes())
    content[last.header_offset + 30 + len(last.filename) + last.compress_size // 2] ^= 0x10
    whole.write_bytes(bytes(content))
    refused(whole, "the file cannot be used, it is no whole zip", "scan.damaged")
    assert no_temporary_left() == []


def test_unknown_compression(tmp_path, dicom):
    folder = dicom.series(tmp_path / "a", 3)
    with zipfile.ZipFile(tmp_path / "case_7.zip", "w", zipfile.ZIP_LZMA) as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    refused(tmp_path / "case_7.zip", "the zip is compressed in a way not read here; pack it again", "zip.method")


def bomb(path: Path) -> None:
    content = b"\0" * 128 + b"DICM" + b"\0" * 2**21
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/SENTINEL", content)


def test_bombs_are_refused_before_they_are_unpacked(tmp_path, monkeypatch, no_temporary_left):
    path = tmp_path / "case_7.zip"
    bomb(path)
    monkeypatch.setenv("MONAI_EXT_READ_INSIDE", "1")  # where the limits are changed
    monkeypatch.setattr(module.Unpacked, "add", lambda *_: pytest.fail("unpacked"))
    monkeypatch.setattr(module, "RATIO_FROM_BYTES", 2**20)
    refused(path, r"the zip would grow \d{3,4} times in unpacking, as no scan does; have", "zip.bomb")
    monkeypatch.setattr(module, "MAX_BYTES", 2**20)
    refused(path, r"the zip holds 0\.0 GiB of slices, more than the 0\.000976562 GiB unpacked here", "zip.size")
    monkeypatch.setattr(module, "MAX_FILES", 0)
    refused(path, "the zip holds 1 files, more than the 0 unpacked here; unpack it yourself", "zip.size")
    assert no_temporary_left() == []


def test_understated_size_does_not_get_past_the_guard(tmp_path, no_temporary_left):
    path = tmp_path / "case_7.zip"
    bomb(path)
    size = (132 + 2**21).to_bytes(4, "little")
    assert path.read_bytes().count(size) == 2
    patched(size, (1000).to_bytes(4, "little"))(path)
    refused(path, "the file cannot be used, it is no whole zip", "scan.damaged")
    assert no_temporary_left() == []


def test_no_room_for_temporary_files(whole, monkeypatch, no_temporary_left):
    monkeypatch.setenv("MONAI_EXT_READ_INSIDE", "1")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: os.terminal_size((0, 0)) and type("U", (), {"free": 0}))
    refused(whole, r"the zip needs .* GiB, but 0\.0 GiB are free for temporary files; free space", "zip.space")
    assert no_temporary_left() == []


def test_zip_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "case_7.zip", "w") as archive:
        archive.writestr("ct.nii.gz", b"x" * 500)
        archive.writestr("__MACOSX/._a", b"\0" * 128 + b"DICM")
        archive.writestr(".a/b", b"\0" * 128 + b"DICM")
    sentence = (
        "the zip holds no DICOM files; give the folder or zip of a DICOM series, and unpack scans of other formats"
    )
    refused(tmp_path / "case_7.zip", sentence, "scan.empty")
    with pytest.raises(ScanError, match=r"the folder holds no scan"):
        find_scans(tmp_path)  # passed over, as ever


def test_zips_that_are_damaged_or_hold_zips_do_not_vanish_among_scans(whole, dicom, tmp_path):
    dicom.series(tmp_path / "x", 5)
    packed = whole.read_bytes()
    (tmp_path / "half.zip").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "text.zip").write_text("SENTINEL")
    (tmp_path / "nothing.zip").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "nested.zip", "w") as archive:
        archive.writestr("SENTINEL/inner.zip", packed)
    damaged = "the file cannot be used, it is no whole zip; copy or export it again"
    expected = {name: f"{name}: {damaged}" for name in ("half", "text", "nothing")}
    expected["nested"] = "nested: the zip holds no DICOM files but other zips; unpack it first"
    for find in (find_scans, find_inputs):
        found = {scan.case: scan.problem for scan in find(tmp_path)}
        assert found == expected | {"case_7": None, "x": None, "SENTINEL": None}
    summary = prepare(tmp_path, tmp_path / "store", workers=0)
    assert sorted(outcome.reason for outcome in summary.failed) == sorted(expected.values())


def test_damaged_slice_is_not_taken_for_a_viewer(tmp_path, dicom):
    folder = dicom.series(tmp_path / "a", 3)
    (folder / "SENTINEL-3-03").write_bytes(b"")
    refused(
        dicom.zip(folder, tmp_path / "case_7.zip"),
        r"file 4 of 4 (is not a DICOM file|cannot be parsed)",
        "dicom.unreadable",
    )


def test_hostile_zip_among_scans_is_a_problem_of_its_own(whole, dicom, tmp_path):
    dicom.series(tmp_path / "x", 5)
    add("../SENTINEL")(whole)
    found = {scan.case: scan for scan in find_scans(tmp_path)}
    assert found.keys() == {"case_7", "x", "SENTINEL"}
    assert found["case_7"].problem == "case_7: the zip holds a path that leads out of it; have it packed again"
    assert found["x"].problem is None
