"""Words planted wherever a file can hold a patient's name are found in nothing that is said or written."""

import gzip
import json
import logging
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
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


@pytest.mark.full
def test_localization(verb: Callable[..., int], good: Path, bad: Path, out: Path, heard: Heard, notes: Any) -> None:
    from monai.bundle import ConfigParser

    from monai_ext import bundle_path
    from monai_ext.networks import save_adapters

    configs = Path(bundle_path("aa_clip_lesion_localization")) / "configs"
    parser = ConfigParser()
    parser.read_config([str(configs / "inference.json"), str(configs / "tiny.json")])
    save_adapters(parser.get_parsed_content("network_def").model, out.parent / "adapters.safetensors")
    clip = out.parent / "clip.json"
    clip.write_text(json.dumps(json.loads((configs / "tiny.json").read_text())["architecture"]))
    common = ["--class", "liver", "--adapters", out.parent / "adapters.safetensors", "--architecture", clip]
    common += ["--activation", "gelu", "--image-size", 56, "--set", "clip_weights=null"]
    heard.leaks()
    assert verb("localize", good, *common) == 0
    notes(FAMILY, "localize", heard.leaks())
    assert verb("localize", bad, *common, "--output", "refused") == 2
    notes(FAMILY, "localize, scans that are refused", heard.leaks())
    notes(FAMILY, "files of localize", list(leaks(out)))
    assert verb("localize", good / f"{STEM}_3" / "series", *common, "--output", "dicom", "--dicom-seg") == 0
    notes(FAMILY, "localize as DICOM", heard.leaks())
    assert len(list((out / "dicom").rglob("*.dcm"))) == 3
    notes(FAMILY, "files of localize as DICOM", written(out))
    assert not notes.wrong


TINY: dict[str, Any] = {
    "network_def#encoder_width": 24,
    "network_def#encoder_depth": 3,
    "network_def#encoder_heads": 3,
    "image_size": [24, 24, 16],
    "patch_size": [8, 8, 8],
    "num_workers": 0,
    "batch_size": 2,
    "epochs": 1,
    "warmup_epochs": 0,
    "crops_per_scan": 1,
    "val_interval": 1,
    "ckpt_interval": 1,
}
PRETRAIN = {
    **TINY,
    "network_def#decoder_width": 18,
    "network_def#decoder_heads": 3,
    "network_def#taps": [1, 2],
    "held_out": 0.3,
    "val_crops_per_scan": 1,
    "preview_interval": 1,
}
FINETUNE = {**TINY, "network_def#feature_size": 4, "network_def#decoder_stride": 1, "network_def#taps": [1, 2, 3]}


@pytest.mark.full
def test_pretraining_and_its_inference(
    verb: Callable[..., int],
    run_bundle: Callable[..., None],
    good: Path,
    bad: Path,
    out: Path,
    heard: Heard,
    notes: Any,
) -> None:
    bundle = "hi_end_mae_ct_pretrain"
    assert verb("prepare", good, out.parent / "store", "--workers", 0, "--spacing", 2, 2, 2) == 0
    run_bundle(bundle, ["train"], PRETRAIN | {"dataset_dir": str(out.parent / "store"), "output_dir": str(out / "run")})
    notes(FAMILY, "pretraining", heard.leaks())
    assert list((out / "run" / "tensorboard").iterdir())
    assert (out / "run" / "history.jsonl").is_file()
    kept = ("network_def#", "image_size", "patch_size")
    chosen = {name: value for name, value in PRETRAIN.items() if name.startswith(kept)}
    chosen |= {"weights": str(out / "run" / "models" / "model.pt"), "spacing_mm": [2.0, 2.0, 2.0]}
    run_bundle(bundle, ["inference"], chosen | {"dataset_dir": str(good), "output_dir": str(out / "seen")})
    notes(FAMILY, "reconstruction", heard.leaks())
    refused(
        lambda: run_bundle(bundle, ["inference"], chosen | {"dataset_dir": str(bad), "output_dir": str(out / "bad")})
    )
    notes(FAMILY, "reconstruction, scans that are refused", heard.leaks())
    notes(FAMILY, "files of the pretraining", list(leaks(out)))
    assert not notes.wrong


@pytest.fixture
def data_set(inputs: Path, patient: Any) -> Path:
    """A data set in MSD's form, of planted scans with labels, one of them damaged."""
    folder = inputs / "Task09_Spleen"
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    pairs = []
    for number in range(1, 5):
        name = f"spleen_{number}.nii.gz"
        planted_nifti(patient, folder / "imagesTr" / name)
        image = nib.load(folder / "imagesTr" / name)
        labels = nib.Nifti1Image((np.asarray(image.dataobj) > 200).astype(np.uint8), None, image.header)
        labels.header["datatype"], labels.header["bitpix"] = 2, 8
        nib.save(labels, folder / "labelsTr" / name)
        pairs.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    torn = folder / "imagesTr" / "spleen_4.nii.gz"
    torn.write_bytes(torn.read_bytes()[:-99])
    content = {"name": "Spleen", "labels": {"0": "background", "1": "spleen"}, "numTraining": 4, "training": pairs}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


@pytest.mark.full
def test_manifests(verb: Callable[..., int], data_set: Path, out: Path, heard: Heard, notes: Any) -> None:
    manifest = out / "manifest.json"
    assert verb("manifest", "build", data_set, "--dataset", "msd_spleen", "--out", manifest, "--jobs", 0) in (0, 1)
    notes(FAMILY, "manifest build", heard.leaks())
    root = ["--root", data_set]
    assert verb("manifest", "verify", manifest, *root, "--jobs", 0, "--deep", "--report", "problems.jsonl") == 1
    notes(FAMILY, "manifest verify", heard.leaks())
    assert (out / "problems.jsonl").read_text()
    assert verb("manifest", "summary", manifest, *root, "--html", "summary.html", "--jobs", 0) == 0
    notes(FAMILY, "manifest summary", heard.leaks())
    roots = ["--root-a", data_set, "--root-b", data_set, "--jobs", 0, "--cache", "prints"]
    assert verb("manifest", "leakage", manifest, manifest, *roots, "--report", "leakage.json") in (0, 1)
    assert verb("manifest", "leakage", manifest, manifest, *roots, "--report", "leakage.html", "--pictures") in (0, 1)
    notes(FAMILY, "manifest leakage", heard.leaks())
    notes(FAMILY, "files of manifests", list(leaks(out)))
    assert not notes.wrong


@pytest.mark.full
def test_fine_tuning(run_bundle: Callable[..., None], data_set: Path, out: Path, heard: Heard, notes: Any) -> None:
    content = json.loads((data_set / "dataset.json").read_text())
    content["validation"] = [content["training"].pop(0)]
    content["training"] = content["training"][:2]
    (data_set / "dataset.json").write_text(json.dumps(content))
    settings = FINETUNE | {"labels": content["labels"], "dataset_dir": str(data_set), "crops_per_scan": 2}
    settings |= {"spacing_mm": [2.0, 2.0, 2.0], "output_dir": str(out / "run")}
    run_bundle("hi_end_mae_ct_segmentation", ["train"], settings)
    notes(FAMILY, "fine-tuning", heard.leaks())
    notes(FAMILY, "files of the fine-tuning", list(leaks(out)))
    assert not notes.wrong
