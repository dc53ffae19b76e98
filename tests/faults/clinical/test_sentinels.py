"""Words planted wherever a file can hold a patient's name are found in nothing that is said or written."""

import gzip
import logging
import os
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import pydicom
import pytest
import SimpleITK
from PIL import Image
from pydicom import datadict
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

FAMILY = "patient sentinels"
STEM, DAY, UID = "QZXW", "19010203", "2.25.447700112233"
WORDS = [STEM.encode(), STEM.encode("utf-16-le"), DAY.encode(), UID.encode()]
# What the reader goes by; everything else is planted. GroupLength and the like are no text.
KEPT = {"SpecificCharacterSet", "Modality", "ImageType", "PhotometricInterpretation", "RescaleType"}
KEPT |= {"PatientSex", "PixelPaddingRangeLimit", "TimezoneOffsetFromUTC", "PatientIdentityRemoved"}
TEXT = {"LO", "SH", "PN", "LT", "ST", "UT", "UC", "AE", "CS", "UR"}
# PS3.3 C.7.1 and C.7.2: whose result it is. A result that lacks them belongs to nobody in an archive.
NEEDED = {"PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyID"}
NEEDED |= {"StudyTime", "AccessionNumber", "StudyDescription", "ReferringPhysicianName", "BodyPartExamined"}
NEEDED |= {"StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID", "ReferencedSOPInstanceUID"}
NEEDED |= {"DeidentificationMethod", "ReferencedFrameOfReferenceUID"}


def plant_dicom(data: Dataset, everything: bool) -> None:
    """Fill every text and date of the dictionary, private elements and three levels of sequences."""
    used = {element.tag for element in data}
    for tag, (kind, many, _, retired, keyword) in datadict.DicomDictionary.items():
        if not everything or tag in used or tag >> 16 in (0, 2, 4) or not keyword or keyword in KEPT or retired:
            continue
        if kind in TEXT:
            data.add_new(tag, kind, [STEM + "A", STEM + "B"] if many == "2" else STEM + f"{tag & 0xFFFF:04X}")
        elif kind in ("DA", "DT"):
            data.add_new(tag, kind, DAY)
    data.PatientName, data.PatientID = f"{STEM}^JANE", f"{STEM}-4711"
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID"):
        data[keyword].value = f"{UID}.{data[keyword].value.removeprefix('2.25.')}"
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    block = data.private_block(0x0009, f"{STEM} CREATOR", create=True)
    block.add_new(1, "LO", f"{STEM} private")
    deep = Dataset()
    deep.PatientID, deep.TypeOfPatientID = f"{STEM}-deep", "TEXT"
    outer = Dataset()
    outer.PatientName, outer.OtherPatientIDsSequence = f"{STEM}^DEEP", Items([deep])
    data.OtherPatientIDsSequence = Items([outer])
    data.RequestAttributesSequence = Items([outer])


def planted_series(
    write: Callable[..., Path], patient: Any, folder: Path, everything: bool = False, **changes: Any
) -> Path:
    """Write a series whose files are called after the patient, too."""
    write(folder, patient.hu(patient.grid("LPS"))[:, :, 8:15], spacing_mm=(1.1, 1.7, 2.3), **changes)
    for path in sorted(folder.iterdir()):
        data = pydicom.dcmread(path)
        plant_dicom(data, everything)
        path.unlink()
        data.save_as(path.with_name(f"{STEM}_{path.name}"))
    return folder


def planted_nifti(patient: Any, path: Path) -> Path:
    image = nib.load(patient.write(path, patient.grid("LPS")), mmap=False)
    for field, length in (("descrip", 79), ("aux_file", 23), ("db_name", 17), ("intent_name", 15)):
        image.header[field] = f"{STEM} {field} {STEM}"[:length].encode()
    for code in (4, 6, 44):  # AFNI, comment, and one of anybody's
        image.header.extensions.append(nib.nifti1.Nifti1Extension(code, f"{STEM} extension {code}".encode()))
    nib.save(image, path)
    return path


def planted_itk(patient: Any, path: Path) -> Path:
    """Write NRRD or MetaImage with comments, keys and values about the patient."""
    image = SimpleITK.ReadImage(str(patient.write(path.with_suffix(".nii"), patient.grid("LPS"))))
    for key in ("PatientName", f"{STEM}Key", "ITK_FileNotes"):
        image.SetMetaData(key, f"{STEM} value")
    SimpleITK.WriteImage(image, str(path))
    path.with_suffix(".nii").unlink()
    if path.suffix == ".nrrd":
        magic, _, rest = path.read_bytes().partition(b"\n")
        path.write_bytes(magic + f"\n# {STEM} comment\ncontent: {STEM} content\n{STEM}Own:={STEM}\n".encode() + rest)
    else:
        first, _, rest = path.read_bytes().partition(b"\n")
        path.write_bytes(first + f"\nComment = {STEM} comment\n{STEM}Own = {STEM}\n".encode() + rest)
    return path


def lines_before(path: Path, target: Path, lines: str) -> None:
    first, _, rest = path.read_bytes().partition(b"\n")
    target.write_bytes(first + b"\n" + lines.encode() + rest)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, patient: Any) -> Path:
    """Good scans of every format, each below a folder called after its patient."""
    return tmp_path_factory.mktemp("inputs") / f"{STEM}^PARENT"


@pytest.fixture
def good(inputs: Path, write_series: Callable[..., Path], patient: Any) -> Path:
    folder = inputs / "good"
    if folder.exists():
        return folder
    for number, name in enumerate(("a.nii.gz", "b.nrrd", "c.mha")):
        (folder / f"{STEM}_{number}").mkdir(parents=True)
        write = planted_nifti if name.endswith(".gz") else planted_itk
        write(patient, folder / f"{STEM}_{number}" / name)
    planted_series(write_series, patient, folder / f"{STEM}_3" / "series", everything=True)
    with zipfile.ZipFile(folder / "packed.zip", "w") as archive:
        archive.comment = STEM.encode()
        for path in planted_series(write_series, patient, inputs / "zipped", SeriesInstanceUID="2.25.81").iterdir():
            archive.write(path, f"{STEM}/{path.name}")
    return folder


@pytest.fixture
def bad(inputs: Path, write_series: Callable[..., Path], patient: Any) -> Path:
    """Files that readers refuse, each in another of their steps."""
    folder = inputs / "bad"
    if folder.exists():
        return folder
    here = folder / f"{STEM}_bad"
    here.mkdir(parents=True)
    nifti = planted_nifti(patient, here / "whole.nii")
    (here / "torn.nii").write_bytes(nifti.read_bytes()[:-9])
    nifti.unlink()
    for ending, comment in (("nrrd", f"{STEM} no field\n"), ("mha", f"Comment {STEM} no field\n")):
        whole = planted_itk(patient, here / f"whole.{ending}")
        lines_before(whole, here / f"no_field.{ending}", comment)
        sign = ": " if ending == "nrrd" else " = "
        lines_before(whole, here / f"twice.{ending}", f"{STEM} key{sign}{STEM}\n" * 2)
        (here / f"torn.{ending}").write_bytes(whole.read_bytes()[:-9])
        whole.unlink()
    changes: dict[str, dict[str, Any]] = {
        "other_modality": {"Modality": STEM},
        "other_unit": {"RescaleType": STEM},
        "colour": {"PhotometricInterpretation": STEM},
        "localizer": {"ImageType": [STEM, STEM, "LOCALIZER"]},
        "no_rescale": {"RescaleSlope": None},
    }
    for number, (name, change) in enumerate(changes.items()):
        planted_series(write_series, patient, here / name, SeriesInstanceUID=f"2.25.9{number}", **change)
    for name in ("missing", "short", "text", "tilted", "two_patients"):
        series = planted_series(write_series, patient, here / name, SeriesInstanceUID=f"2.25.7{len(name)}")
        path = sorted(series.iterdir())[3]
        data = pydicom.dcmread(path)
        if name == "missing":
            path.unlink()
        elif name == "short":
            data.PixelData = data.PixelData[:-20]
        elif name == "tilted":
            data.GantryDetectorTilt = 9
        elif name == "two_patients":
            data.PatientName, data.ImagePositionPatient = f"{STEM}^JOHN", [1, 2, 3]
        if name in ("short", "tilted", "two_patients"):
            data.save_as(path)
        if name == "text":
            path.write_bytes(f"{STEM} is no DICOM".encode() * 99)
    (here / "broken.zip").write_bytes(b"PK\x03\x04" + STEM.encode() * 40)
    return folder


def leaks(folder: Path) -> Iterator[str]:
    """Search names and content of every file, unpacked where it is packed."""
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if any(word in os.fsencode(name) for word in WORDS):
            yield f"the name {name}"
        if path.is_file():
            for what, content in unpacked(path):
                found = [word for word in WORDS if word.lower() in content.lower()]
                if found:
                    place = content.lower().index(found[0].lower())
                    yield f"{what}: ...{content[max(0, place - 60) : place + 40]!r}"


def unpacked(path: Path) -> Iterator[tuple[str, bytes]]:
    content = path.read_bytes()
    yield path.name, content
    if content[:2] == b"\x1f\x8b":
        yield path.name, gzip.decompress(content)
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from ((f"{path.name}/{name}", archive.read(name)) for name in archive.namelist())
    elif path.suffix == ".png":
        with Image.open(path) as image:
            yield path.name, repr(image.info).encode()


class Heard:
    """Everything that was said since the last look: both streams, every logger at its lowest level, warnings."""

    def __init__(self, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
        self.capfd, self.caplog = capfd, caplog

    def leaks(self) -> list[str]:
        out, err = self.capfd.readouterr()
        texts = {"stdout": out, "stderr": err, "the logs": self.caplog.text}
        self.caplog.clear()
        problems = []
        for name, text in texts.items():
            for word in (STEM, DAY, UID):
                if word.lower() in text.lower():
                    place = text.lower().index(word.lower())
                    problems.append(f"{name}: ...{text[max(0, place - 90) : place + 40]!r}")
        return problems


@pytest.fixture
def heard(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Heard:
    caplog.set_level(logging.DEBUG)
    return Heard(capfd, caplog)


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with the place for temporary files inside: what is left there is searched too."""
    folder = tmp_path / "out"
    (folder / "temporary").mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "temporary"))
    return folder


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run ``python -m monai_ext`` in this process, and return its exit code."""
    from monai_ext.cli.app import main

    def run(*words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["monai_ext", *map(str, words)])
        with warnings.catch_warnings():
            warnings.simplefilter("default")  # in the open, as a user has them, and so among what is searched
            try:
                main()
            except SystemExit as end:
                return int(end.code or 0)
        return 0

    return run


def test_the_search_finds_what_is_planted(good: Path, bad: Path, tmp_path: Path) -> None:
    found = "\n".join(leaks(good))
    for name in ("a.nii.gz", "b.nrrd", "c.mha", f"{STEM}_slice_003.dcm", f"packed.zip/{STEM}/{STEM}_slice_003.dcm"):
        assert f"{name}: " in found, name
    data = pydicom.dcmread(next((good / f"{STEM}_3" / "series").iterdir()))
    assert sum(STEM in str(element.value) for element in data) > 500
    (tmp_path / "x").write_text(STEM.lower())
    assert list(leaks(tmp_path))


def test_prepare_and_store(
    verb: Callable[..., int], good: Path, bad: Path, out: Path, heard: Heard, notes: Any
) -> None:
    assert verb("prepare", good, "store", "--workers", 0) == 0
    notes(FAMILY, "prepare", heard.leaks())
    assert verb("prepare", bad, "store", "--workers", 0) == 1
    notes(FAMILY, "prepare, scans that are refused", heard.leaks())
    assert verb("prepare", good, "store", "--workers", 0) == 0  # skipped
    assert verb("store", "info", "store") == 0
    assert verb("store", "verify", "store") == 0
    notes(FAMILY, "store info and verify", heard.leaks())
    notes(FAMILY, "files of the store", list(leaks(out)))
    assert len(list((out / "store").glob("*.b2nd"))) == 5
    assert not notes.wrong


def allowed_in_dicom(path: Path) -> list[str]:
    """Say which elements of a DICOM result hold the words, beside those that a result needs."""
    found = []

    def look(dataset: Dataset, above: str) -> None:
        for element in dataset:
            name = f"{above}{element.keyword or element.tag}"
            if element.VR == "SQ":
                for item in element.value:
                    look(item, f"{name}.")
            elif element.keyword not in NEEDED and any(word in str(element.value) for word in (STEM, DAY, UID)):
                found.append(f"{path.name}: {name}")

    data = pydicom.dcmread(path)
    look(data, "")
    look(data.file_meta, "")
    return found


def written(out: Path) -> list[str]:
    """Search what was written; of DICOM results, only what they do not need to hold."""
    problems = []
    for path in sorted(out.rglob("*.dcm")):
        problems += allowed_in_dicom(path)
        path.unlink()
    return problems + list(leaks(out))


def refused(run: Callable[[], object]) -> None:
    from monai_ext.base import input_error_in

    with pytest.raises(RuntimeError) as caught:
        run()
    print(input_error_in(caught.value))  # as the command line does; it is searched with the rest


def test_segmentation(segment: Callable[..., Path], good: Path, bad: Path, out: Path, heard: Heard, notes: Any) -> None:
    segment(good, out / "seg", overlay=True, image_size=[48, 44, 48])
    notes(FAMILY, "segmentation", heard.leaks())
    refused(lambda: segment(bad, out / "bad"))
    notes(FAMILY, "segmentation, scans that are refused", heard.leaks())
    notes(FAMILY, "files of the segmentation", written(out))
    assert not notes.wrong


def test_dicom_results(segment: Callable[..., Path], good: Path, out: Path, heard: Heard, notes: Any) -> None:
    pytest.importorskip("highdicom", reason="pip install 'monai-ext[dicom]'")
    segment(good / f"{STEM}_3" / "series", out / "seg", dicom_seg=True, image_size=[48, 44, 48])
    notes(FAMILY, "segmentation as DICOM", heard.leaks())
    seg = pydicom.dcmread(out / "seg" / "series" / "series_seg.dcm")
    assert (str(seg.PatientName), seg.PatientID) == (f"{STEM}^JANE", f"{STEM}-4711")  # there it must be
    notes(FAMILY, "files of the segmentation as DICOM", written(out))
    assert not notes.wrong
