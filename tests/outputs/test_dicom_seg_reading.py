"""DICOM SEGs of other programs, and those that no label volume can hold."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.uid import DeflatedExplicitVRLittleEndian

from monai_ext.base import GeometryError, LabelError, ScanError
from monai_ext.outputs import read_dicom_seg, write_dicom_seg
from monai_ext.volumes import DicomSeries, affine_of_itk, open_series

pytest.importorskip("highdicom", reason="pip install 'monai-ext[dicom]'")

Series = Callable[..., Path]
SHAPE = (13, 11, 7)
NAMES = {1: "spleen", 2: "right kidney", 3: "liver"}
OBLIQUE = (0.8, 0.6, 0.0, -0.48, 0.64, 0.6)


@pytest.fixture
def series(write_series: Series, tmp_path: Path) -> DicomSeries:
    hu = np.random.default_rng(5).integers(-200, 300, SHAPE)
    return open_series(write_series(tmp_path / "ct", hu, OBLIQUE, backwards=True))


@pytest.fixture
def labels() -> np.ndarray:
    labels = np.random.default_rng(3).integers(0, 4, SHAPE)
    labels[:, :, 2] = 0
    return labels


@pytest.fixture
def seg(series: DicomSeries, labels: np.ndarray, tmp_path: Path) -> pydicom.Dataset:
    path = tmp_path / "a_seg.dcm"
    write_dicom_seg(path, labels, series.affine, series.headers(), NAMES, algorithm="a", version="1")
    return pydicom.dcmread(path)


def dcmqi(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip("needs a second writer and reader of SEG: pip install dcmqi")
    return found


def test_dcmqi_reads_ours_where_it_lies(series: DicomSeries, labels: np.ndarray, tmp_path: Path) -> None:
    tool = dcmqi("segimage2itkimage")
    path = tmp_path / "a_seg.dcm"
    write_dicom_seg(path, labels, series.affine, series.headers(), NAMES, algorithm="a", version="1")
    command = [tool, "--inputDICOM", str(path), "--outputDirectory", str(tmp_path / "itk"), "--outputType", "nifti"]
    (tmp_path / "itk").mkdir()
    subprocess.run(command, check=True, capture_output=True)
    meta = json.loads((tmp_path / "itk" / "meta.json").read_text())
    told = {
        one["labelID"]: (one["SegmentLabel"], one["SegmentedPropertyTypeCodeSequence"]["CodeMeaning"])
        for group in meta["segmentAttributes"]
        for one in group
    }
    assert told == {1: ("spleen", "Spleen"), 2: ("right kidney", "Kidney"), 3: ("liver", "Liver")}
    for number in NAMES:
        image = SimpleITK.ReadImage(str(tmp_path / "itk" / f"{number}.nii.gz"))
        back = np.linalg.inv(series.affine) @ affine_of_itk(image)
        found = np.zeros(SHAPE, bool)
        voxels = np.argwhere(SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0))
        places = voxels @ back[:3, :3].T + back[:3, 3]
        assert np.abs(places - np.rint(places)).max() < 1e-3
        found[tuple(np.rint(places).astype(int).T)] = True
        np.testing.assert_array_equal(found, labels == number)


def test_a_seg_of_dcmqi_is_read_where_it_lies(series: DicomSeries, labels: np.ndarray, tmp_path: Path) -> None:
    tool = dcmqi("itkimage2segimage")
    nib.save(nib.Nifti1Image(labels.astype(np.uint8), series.affine), tmp_path / "labels.nii.gz")
    kinds = {1: ("78961009", "Spleen"), 2: ("64033007", "Kidney"), 3: ("10200004", "Liver")}
    segments = [
        {
            "labelID": number,
            "SegmentLabel": NAMES[number],
            "SegmentDescription": meaning,
            "SegmentAlgorithmType": "AUTOMATIC",
            "SegmentAlgorithmName": "another",
            "SegmentedPropertyCategoryCodeSequence": {
                "CodeValue": "91723000",
                "CodingSchemeDesignator": "SCT",
                "CodeMeaning": "Anatomical Structure",
            },
            "SegmentedPropertyTypeCodeSequence": {
                "CodeValue": code,
                "CodingSchemeDesignator": "SCT",
                "CodeMeaning": meaning,
            },
        }
        for number, (code, meaning) in kinds.items()
    ]
    about = {"ContentCreatorName": "Reader1", "SeriesDescription": "x", "SeriesNumber": "300", "InstanceNumber": "1"}
    (tmp_path / "meta.json").write_text(json.dumps(about | {"segmentAttributes": [segments]}))
    options = {
        "--inputImageList": tmp_path / "labels.nii.gz",
        "--inputDICOMDirectory": tmp_path / "ct",
        "--inputMetadata": tmp_path / "meta.json",
        "--outputDICOM": tmp_path / "other.dcm",
    }
    command = [tool, *(str(word) for pair in options.items() for word in pair), "--useLabelIDAsSegmentNumber"]
    subprocess.run(command, check=True, capture_output=True)
    read, names = read_dicom_seg(tmp_path / "other.dcm", series.headers())
    np.testing.assert_array_equal(read, labels)
    assert names == NAMES


def test_overlapping_segments(series: DicomSeries, seg: pydicom.Dataset) -> None:
    seg.PixelData = b"\xff" * len(seg.PixelData)
    with pytest.raises(LabelError, match="a_seg: segments 1 and 2 overlap, which one label volume cannot hold"):
        read_dicom_seg(seg, series.headers(), case="a_seg")


@pytest.mark.parametrize(
    ("keyword", "value", "sentence"),
    [
        ("FrameOfReferenceUID", "2.25.1", "the SEG has another frame of reference"),
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.2", "the file is no DICOM SEG"),
        ("SegmentationType", "FRACTIONAL", "the SEG is not binary"),
        ("NumberOfFrames", 3, "the SEG is damaged"),
        ("PixelData", b"\0\0", "the SEG is damaged"),
        ("SegmentSequence", [], "the SEG is damaged"),
        ("PerFrameFunctionalGroupsSequence", [pydicom.Dataset()], "the SEG is damaged"),
    ],
)
def test_what_is_not_a_seg_of_this_series(
    series: DicomSeries, seg: pydicom.Dataset, keyword: str, value: object, sentence: str
) -> None:
    setattr(seg, keyword, value)
    with pytest.raises(ScanError, match=f"^a_seg: {sentence}"):
        read_dicom_seg(seg, series.headers(), case="a_seg")


def test_another_series_of_the_study(series: DicomSeries, seg: pydicom.Dataset) -> None:
    seg.ReferencedSeriesSequence[0].SeriesInstanceUID = "2.25.1"
    with pytest.raises(ScanError, match="the SEG refers to another series"):
        read_dicom_seg(seg, series.headers())


def test_a_segment_that_nothing_describes(series: DicomSeries, seg: pydicom.Dataset) -> None:
    del seg.SegmentSequence[1]
    with pytest.raises(ScanError, match="the SEG is damaged"):
        read_dicom_seg(seg, series.headers())


def test_frames_elsewhere(series: DicomSeries, seg: pydicom.Dataset) -> None:
    place = seg.PerFrameFunctionalGroupsSequence[4].PlanePositionSequence[0]
    whole = list(place.ImagePositionPatient)
    for shift in (0.5, 400.0):
        place.ImagePositionPatient = [whole[0], whole[1] + shift, whole[2]]
        with pytest.raises(GeometryError, match="a frame lies on no slice"):
            read_dicom_seg(seg, series.headers())
    place.ImagePositionPatient = whole
    shared = seg.SharedFunctionalGroupsSequence[0]
    shared.PixelMeasuresSequence[0].PixelSpacing = [1.3, 0.75]
    with pytest.raises(GeometryError, match="another spacing or orientation"):
        read_dicom_seg(seg, series.headers())
    shared.PixelMeasuresSequence[0].PixelSpacing = [1.25, 0.75]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    with pytest.raises(GeometryError, match="another spacing or orientation"):
        read_dicom_seg(seg, series.headers())
    seg.Rows = 12
    with pytest.raises(GeometryError, match="frames have 13x12 pixels, slices 13x11"):
        read_dicom_seg(seg, series.headers())


def test_files_that_are_no_seg(series: DicomSeries, seg: pydicom.Dataset, tmp_path: Path) -> None:
    (tmp_path / "PLANTED").mkdir()
    path = tmp_path / "PLANTED" / "a_seg.dcm"
    path.write_bytes(b"hello")
    for sentence in ("a_seg: the file is no DICOM that can be read", "a_seg: the SEG is deflated"):
        with pytest.raises(ScanError, match=sentence) as caught:
            read_dicom_seg(path, series.headers())
        assert "PLANTED" not in str(caught.value)
        seg.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        seg.save_as(path)
    with pytest.raises(ScanError, match="none: it cannot be read"):
        read_dicom_seg(tmp_path / "none.dcm", series.headers())
