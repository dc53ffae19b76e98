"""DICOM SEG: every voxel, number and name comes back, from our reader, highdicom and pixels decoded by hand."""

import logging
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

from monai_ext.base import GeometryError, LabelError, ScanError, SettingError, WriteError
from monai_ext.outputs import read_dicom_seg, write_dicom_seg, write_heat_map
from monai_ext.outputs.dicom_empty_frames import add_empty_frames
from monai_ext.volumes import open_series, read_labels

highdicom = pytest.importorskip("highdicom", reason="pip install 'monai-ext[dicom]'")

Series = Callable[..., Path]
NAMES = {0: "background", 1: "spleen", 2: "right kidney", 3: "left kidney", 4: "liver", 5: "thing"}
ABOUT = {"algorithm": "Hi-End-MAE", "version": "1.2", "case": "case_7"}
SHAPE = (13, 11, 7)  # 143 pixels a frame: no frame but the first begins at a whole byte
AXES = {
    "axial": (1, 0, 0, 0, 1, 0),
    "oblique": (0.8, 0.6, 0.0, -0.48, 0.64, 0.6),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "prone": (-1, 0, 0, 0, -1, 0),
}


def made_up(seed: int = 3) -> np.ndarray:
    """Return labels of all names; slice 2 holds none, slice 6 one voxel."""
    labels = np.random.default_rng(seed).integers(0, 6, SHAPE)
    labels[:, :, [2, 6]] = 0
    labels[3, 1, 6] = 2
    return labels


def hu() -> np.ndarray:
    return np.random.default_rng(5).integers(-200, 300, SHAPE)


def by_hand(path: Path, affine: np.ndarray) -> np.ndarray:
    """Decode a SEG frame by frame: its pixels where pydicom finds them, its place from its own position."""
    data = pydicom.dcmread(path)
    shared = data.SharedFunctionalGroupsSequence[0]
    axes = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    spacing = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, float)
    labels = np.zeros(SHAPE, int)
    pixels = data.pixel_array.reshape(-1, data.Rows, data.Columns)
    for frame, group in zip(pixels, data.PerFrameFunctionalGroupsSequence, strict=True):
        origin = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        for row, column in zip(*np.nonzero(frame), strict=True):
            lps = origin + column * spacing[1] * axes[:3] + row * spacing[0] * axes[3:]
            index = np.linalg.solve(affine, [-lps[0], -lps[1], lps[2], 1])[:3]
            place = tuple(np.rint(index).astype(int))
            assert np.abs(index - place).max() < 1e-3
            assert labels[place] == 0
            labels[place] = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
    return labels


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("axes", list(AXES))
def test_every_voxel_lies_where_it_did(write_series: Series, tmp_path: Path, axes: str, backwards: bool) -> None:
    series = open_series(write_series(tmp_path / "ct", hu(), AXES[axes], backwards=backwards))
    labels = made_up()
    path = write_dicom_seg(tmp_path / "a_seg.dcm", labels, series.affine, series.headers(), NAMES, **ABOUT)
    read, names = read_dicom_seg(path, series.headers())
    np.testing.assert_array_equal(read, labels)
    assert names == {number: name for number, name in NAMES.items() if number}
    np.testing.assert_array_equal(by_hand(path, series.affine), labels)
    seg = highdicom.seg.segread(path)
    uids = [header.SOPInstanceUID for header in series.headers()]
    found = seg.get_pixels_by_source_instance(uids, combine_segments=True, assert_missing_frames_are_empty=True)
    np.testing.assert_array_equal(found.transpose(2, 1, 0), labels)


def test_the_order_of_headers_means_nothing(write_series: Series, tmp_path: Path) -> None:
    series = open_series(write_series(tmp_path / "ct", hu()))
    headers = [series.headers()[k] for k in (3, 0, 6, 1, 5, 2, 4)]
    path = write_dicom_seg(tmp_path / "a_seg.dcm", made_up(), series.affine, headers, NAMES, **ABOUT)
    np.testing.assert_array_equal(read_dicom_seg(path, headers[::-1])[0], made_up())


@pytest.mark.parametrize("only", [1, 3, 5, None])
def test_numbers_and_names_stay_where_others_are_absent(write_series: Series, tmp_path: Path, only: int | None) -> None:
    series = open_series(write_series(tmp_path / "ct", hu()))
    labels = np.where(made_up() == only, only or 0, 0)
    path = write_dicom_seg(tmp_path / "a_seg.dcm", labels, series.affine, series.headers(), NAMES, **ABOUT)
    read, names = read_dicom_seg(path, series.headers())
    np.testing.assert_array_equal(read, labels)
    assert names == {number: name for number, name in NAMES.items() if number}
    seg = highdicom.seg.segread(path)
    assert [seg.get_segment_description(n).segment_label for n in range(1, 6)] == list(NAMES.values())[1:]
    frames = pydicom.dcmread(path).PerFrameFunctionalGroupsSequence
    used = [frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber for frame in frames]
    # Without any voxel, one empty frame: OHIF 3.10 shows nothing of a file with a segment that has no frame.
    assert {number: used.count(number) for number in range(1, 6) if number != only} == dict.fromkeys(
        {1, 2, 3, 4, 5} - {only}, 1
    )
    assert all(
        used[index] == frame.FrameContentSequence[0].DimensionIndexValues[0] for index, frame in enumerate(frames)
    )


@pytest.mark.parametrize("present", [True, False])
def test_one_segment_alone(write_series: Series, tmp_path: Path, present: bool) -> None:
    """Some versions of highdicom then say once for all frames which segment they show, others frame by frame."""
    series = open_series(write_series(tmp_path / "ct", hu()))
    labels = np.where(made_up() == 4, 1, 0) * present
    path = write_dicom_seg(tmp_path / "a_seg.dcm", labels, series.affine, series.headers(), {1: "candidate"}, **ABOUT)
    read, names = read_dicom_seg(path, series.headers())
    np.testing.assert_array_equal(read, labels)
    assert names == {1: "candidate"}
    data = pydicom.dcmread(path)
    assert len(data.PerFrameFunctionalGroupsSequence) == data.NumberOfFrames == max(1, np.any(labels, (0, 1)).sum())


def test_what_follows_the_last_frame_is_no_part_of_an_empty_one(write_series: Series, tmp_path: Path) -> None:
    """Some versions of highdicom leave bits behind the last frame, where the first of the empty ones begins."""
    series = open_series(write_series(tmp_path / "ct", hu()))
    labels = np.where(made_up() == 1, 1, 0)
    path = write_dicom_seg(tmp_path / "a_seg.dcm", labels, series.affine, series.headers(), {1: "a", 2: "b"}, **ABOUT)
    seg = pydicom.dcmread(path)
    frames, size = seg.NumberOfFrames - 1, SHAPE[0] * SHAPE[1]
    assert frames * size % 8
    seg.PerFrameFunctionalGroupsSequence = seg.PerFrameFunctionalGroupsSequence[:frames]
    pixels = bytearray(seg.PixelData[: -(-frames * size // 8)])
    seg.PixelData = bytes([*pixels[:-1], pixels[-1] | 0xFF << frames * size % 8 & 0xFF])
    add_empty_frames(seg)
    np.testing.assert_array_equal(read_dicom_seg(seg, series.headers())[0], labels)


def test_what_it_says_of_itself(write_series: Series, tmp_path: Path) -> None:
    series = open_series(write_series(tmp_path / "ct", hu(), StudyDescription="Oberbauch über alles"))
    path = write_dicom_seg(tmp_path / "a_seg.dcm", made_up(), series.affine, series.headers(), NAMES, **ABOUT)
    seg, source = pydicom.dcmread(path), series.headers()
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientName", "PatientID", "StudyDescription"):
        assert seg[keyword].value == source[0][keyword].value, keyword
    assert seg.SeriesInstanceUID.startswith("2.25.")
    assert seg.SeriesInstanceUID != source[0].SeriesInstanceUID
    (referred,) = seg.ReferencedSeriesSequence
    assert referred.SeriesInstanceUID == source[0].SeriesInstanceUID
    uids = {header.SOPInstanceUID for header in source}
    assert {item.ReferencedSOPInstanceUID for item in referred.ReferencedInstanceSequence} == uids
    assert "research use only" in seg.SeriesDescription
    assert seg.ContentDescription == "For research use only"
    assert seg.ContentLabel == "RESEARCH_ONLY"
    kidney = seg.SegmentSequence[1]
    assert (kidney.SegmentNumber, kidney.SegmentLabel, kidney.SegmentAlgorithmName) == (2, "right kidney", "Hi-End-MAE")
    assert kidney.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion == "1.2"
    kind = kidney.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("64033007", "SCT")
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == "24028007"
    assert seg.SegmentSequence[4].SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator == "99MONAIEXT"
    spacing = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert (spacing.SliceThickness, spacing.SpacingBetweenSlices) == (4, 2.5)


def test_names_of_patients_in_any_letters_go_where_they_belong_and_nowhere_else(
    write_series: Series, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = "Plänted Näme"  # no caret: what highdicom warns of, quoting it
    # Values that break the standard must neither stop the writing nor reach a log.
    changes = {"PatientBirthDate": "PLANTED-DAY", "PatientSex": "PLANTED", "StudyTime": "PLANTED"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pydicom.config.settings, "reading_validation_mode", 0)
        patch.setattr(pydicom.config.settings, "writing_validation_mode", 0)
        folder = write_series(tmp_path / "ct", hu(), SpecificCharacterSet="ISO_IR 100", PatientName=name, **changes)
    series = open_series(folder)
    with caplog.at_level(logging.DEBUG):
        path = write_dicom_seg(tmp_path / "a_seg.dcm", made_up(), series.affine, series.headers(), NAMES, **ABOUT)
    seg = pydicom.dcmread(path)
    assert str(seg.PatientName) == name
    assert not re.search("PLANTED|Pl.nted|2\\.25", caplog.text)
    del seg.PatientName, seg.PatientID, seg.PatientBirthDate, seg.PatientSex, seg.StudyTime
    assert "PLANTED" not in str(seg)


def plant(headers: list[pydicom.Dataset], keyword: str, value: bytes) -> list[pydicom.Dataset]:
    """Put bytes into headers as a file may hold them, past all checks of pydicom."""
    tag = pydicom.datadict.tag_for_keyword(keyword)
    kind = pydicom.datadict.dictionary_VR(tag)
    for header in headers:
        header[tag] = pydicom.dataelem.RawDataElement(pydicom.tag.Tag(tag), kind, len(value), value, 0, False, True)
    return headers


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientWeight", b"PLANTED "),
        ("PatientWeight", b"80,5"),
        ("PatientWeight", b"80\\81 "),
        ("PatientSize", b"PLANTED "),
        ("PatientSize", b"NaN "),
        ("LossyImageCompressionRatio", b"PLANTED "),
        ("SliceThickness", b"5,0 "),
        ("SliceThickness", b"3\\2 "),
        ("SliceThickness", b"NaN "),
        ("SliceThickness", b"-3"),
    ],
)
def test_numbers_that_cannot_be_parsed_are_left_out(
    write_series: Series, tmp_path: Path, caplog: pytest.LogCaptureFixture, keyword: str, value: bytes
) -> None:
    series = open_series(write_series(tmp_path / "ct", hu()))
    headers = plant(series.headers(), keyword, value)
    with caplog.at_level(logging.DEBUG, logger="monai_ext"):
        path = write_dicom_seg(tmp_path / "a_seg.dcm", made_up(), series.affine, headers, NAMES, **ABOUT)
    assert "PLANTED" not in caplog.text
    seg = pydicom.dcmread(path)
    assert keyword == "SliceThickness" or keyword not in seg
    spacing = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert spacing.SliceThickness == (2.5 if keyword == "SliceThickness" else 4)
    np.testing.assert_array_equal(read_dicom_seg(path, series.headers())[0], made_up())


def test_numbers_that_can_be_parsed_are_kept(write_series: Series, tmp_path: Path) -> None:
    series = open_series(write_series(tmp_path / "ct", hu(), PatientWeight="80.5", LossyImageCompressionRatio=[10, 5]))
    headers = plant(series.headers(), "PatientSize", b"1.7300000000000000000 ")  # more letters than it may have
    path = write_dicom_seg(tmp_path / "a_seg.dcm", made_up(), series.affine, headers, NAMES, **ABOUT)
    seg = pydicom.dcmread(path)
    assert (seg.PatientWeight, seg.LossyImageCompressionRatio, seg.PatientSize) == (80.5, [10, 5], 1.73)


def test_what_the_library_refuses_is_one_sentence_without_its_words(
    write_series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = open_series(write_series(tmp_path / "ct", hu()))

    def refusing(*_: object, **__: object) -> None:
        raise ValueError("PLANTED value")

    monkeypatch.setattr(highdicom.seg, "Segmentation", refusing)
    with pytest.raises(WriteError) as caught:
        write_dicom_seg(tmp_path / "a_seg.dcm", made_up(), series.affine, series.headers(), NAMES, **ABOUT)
    assert str(caught.value) == (
        "case_7: a header of the series holds what no DICOM result can be made with (ValueError); export the series "
        "again, or do without DICOM output"
    )
    assert caught.value.__suppress_context__
    assert [path.name for path in tmp_path.iterdir()] == ["ct"]


@pytest.mark.parametrize("jitter", [1e-6, 3e-4])
@pytest.mark.parametrize("spacing_mm", [(0.75, 1.25, 2.5), (0.15, 0.13, 5.0)])
def test_slices_that_are_read_as_one_grid_are_written_as_one(
    write_series: Series, tmp_path: Path, jitter: float, spacing_mm: tuple[float, float, float]
) -> None:
    """Orientations that differ a little, and positions off the line by less than the reader allows."""
    folder = write_series(tmp_path / "ct", hu(), spacing_mm=spacing_mm, backwards=True)
    off = np.random.default_rng(9)
    for number, path in enumerate(sorted(folder.iterdir())):
        data = pydicom.dcmread(path)
        data.ImageOrientationPatient = [1, round((number % 3) * jitter, 7), 0, 0, 1, 0]
        inner = 0 < number < SHAPE[2] - 1  # the line is drawn from the first to the last
        place = np.array(data.ImagePositionPatient, float) + inner * off.uniform(-0.008, 0.008, 3) * spacing_mm[2]
        data.ImagePositionPatient = [round(float(part), 4) for part in place]
        data.save_as(path)
    series = open_series(folder)
    path = write_dicom_seg(tmp_path / "a_seg.dcm", made_up(), series.affine, series.headers(), NAMES, **ABOUT)
    np.testing.assert_array_equal(read_dicom_seg(path, series.headers()[::-1])[0], made_up())
    odds = made_up().astype(np.float32)
    about = {**ABOUT, "quantity": "anomaly log-odds"}
    write_heat_map(tmp_path / "a_heatmap.dcm", odds, series.affine, series.headers(), **about)  # reads it back
    shared = pydicom.dcmread(path).SharedFunctionalGroupsSequence[0]
    np.testing.assert_allclose(
        shared.PlaneOrientationSequence[0].ImageOrientationPatient, [1, jitter, 0, 0, 1, 0], atol=1e-7
    )


def test_another_grid_is_refused(write_series: Series, tmp_path: Path) -> None:
    series = open_series(write_series(tmp_path / "ct", hu()))
    flipped = series.affine @ np.diag([-1, 1, 1, 1.0])
    flipped[:3, 3] = series.affine[:3] @ [SHAPE[0] - 1, 0, 0, 1]
    for labels, affine in (
        (made_up()[::-1], flipped),
        (made_up()[:-1], series.affine),
        (made_up(), series.affine + np.eye(4, k=3) * 0.02),
        (made_up(), np.full((4, 4), np.nan)),
    ):
        with pytest.raises(GeometryError, match=r"case_7: .* are not on the grid of the DICOM series"):
            write_dicom_seg(tmp_path / "a_seg.dcm", labels, affine, series.headers(), NAMES, **ABOUT)
    assert not (tmp_path / "a_seg.dcm").exists()


@pytest.mark.parametrize(
    "keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"]
)
@pytest.mark.parametrize("how", ["absent", "empty"])
def test_what_cannot_be_referred_to_is_named(write_series: Series, tmp_path: Path, keyword: str, how: str) -> None:
    series = open_series(write_series(tmp_path / "ct", hu()))
    headers = series.headers()
    if how == "absent":
        del headers[4][keyword]
    else:
        setattr(headers[4], keyword, "")
    with pytest.raises(ScanError, match=f"case_7: the series has no {keyword}, by which") as caught:
        write_dicom_seg(tmp_path / "a_seg.dcm", made_up(), series.affine, headers, NAMES, **ABOUT)
    assert "2.25" not in str(caught.value)


def test_the_real_series_is_refused_by_name(shared_ct: Path, tmp_path: Path) -> None:
    series = open_series(shared_ct / "dicom_jpeg2000")
    labels = np.zeros(series.shape, int)
    with pytest.raises(ScanError) as caught:
        write_dicom_seg(tmp_path / "a_seg.dcm", labels, series.affine, series.headers(), NAMES, **ABOUT)
    assert "has no SOPClassUID, SOPInstanceUID, StudyInstanceUID, SeriesInstanceUID, by which" in str(caught.value)


def test_mixed_and_doubled_slices_are_refused(write_series: Series, tmp_path: Path) -> None:
    series = open_series(write_series(tmp_path / "ct", hu()))
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        headers = series.headers()
        setattr(headers[2], keyword, "2.25.99")
        with pytest.raises(ScanError, match=f"the slices differ in {keyword}"):
            write_dicom_seg(tmp_path / "a_seg.dcm", made_up(), series.affine, headers, NAMES, **ABOUT)
    headers = series.headers()
    headers[2].SOPInstanceUID = headers[3].SOPInstanceUID
    with pytest.raises(ScanError, match="slices share a SOPInstanceUID"):
        write_dicom_seg(tmp_path / "a_seg.dcm", made_up(), series.affine, headers, NAMES, **ABOUT)
    with pytest.raises(GeometryError, match="1 slice is missing"):
        write_dicom_seg(
            tmp_path / "a_seg.dcm", made_up(), series.affine, [*headers[:2], *series.headers()[3:]], NAMES, **ABOUT
        )
    with pytest.raises(ScanError, match="there are no slices"):
        write_dicom_seg(tmp_path / "a_seg.dcm", made_up(), series.affine, [], NAMES, **ABOUT)


@pytest.mark.parametrize("uid", ["2.25.012", "2.25." + "7" * 60, "PLANTED", "2.25.7."])
@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"])
def test_uids_that_are_none_are_named(write_series: Series, tmp_path: Path, keyword: str, uid: str) -> None:
    series = open_series(write_series(tmp_path / "ct", hu()))
    headers = plant(series.headers()[:1], keyword, uid.encode() + b" " * (len(uid) % 2)) + series.headers()[1:]
    with pytest.raises(ScanError) as caught:
        write_dicom_seg(tmp_path / "a_seg.dcm", made_up(), series.affine, headers, NAMES, **ABOUT)
    assert str(caught.value).startswith(f"case_7: the series has a {keyword} that is no valid UID, by which")
    assert uid not in str(caught.value)


def test_slices_of_two_patients_are_refused_without_their_names(write_series: Series, tmp_path: Path) -> None:
    series = open_series(write_series(tmp_path / "ct", hu()))
    for value in ("PLANTED-4712", ""):
        headers = series.headers()
        headers[3].PatientID = value
        with pytest.raises(ScanError, match=r"^case_7: the slices are of several patients; give the") as caught:
            write_dicom_seg(tmp_path / "a_seg.dcm", made_up(), series.affine, headers, NAMES, **ABOUT)
        assert "PLANTED" not in str(caught.value)


@pytest.mark.parametrize("method", [None, "by hand"])
def test_what_removed_the_identity_is_told_with_it_or_not_at_all(
    write_series: Series, tmp_path: Path, method: str | None
) -> None:
    changes = {"PatientIdentityRemoved": "YES", "DeidentificationMethod": method, "Laterality": "L"}
    series = open_series(write_series(tmp_path / "ct", hu(), **changes))
    seg = pydicom.dcmread(
        write_dicom_seg(tmp_path / "a_seg.dcm", made_up(), series.affine, series.headers(), NAMES, **ABOUT)
    )
    told = (seg.get("PatientIdentityRemoved"), seg.get("DeidentificationMethod"))
    assert told == (("YES", method) if method else (None, None))
    assert "Laterality" not in seg


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ({0: "background", 1: "a", 3: "b"}, "the named ids are 1, 3, but"),
        ({2: "b"}, "the named ids are 2, but"),
        ({0: "background"}, "the named ids are none, but"),
        ({1: "a", 2: "b" * 65, 3: "c", 4: "d", 5: "e"}, "the name of id 2 does not fit"),
        ({1: "a", 2: "b", 3: "c\\d", 4: "d", 5: "e"}, "the name of id 3 does not fit"),
        ({1: "a", 2: "b", 3: "c", 4: "d\ne", 5: "e"}, "the name of id 4 does not fit"),
        ({1: "a", 2: "b", 3: "c", 4: "d"}, "labels hold 5, which have no name"),
    ],
)
def test_names_that_a_seg_cannot_hold(
    write_series: Series, tmp_path: Path, names: dict[int, str], sentence: str
) -> None:
    series = open_series(write_series(tmp_path / "ct", hu()))
    with pytest.raises(LabelError, match=re.escape(sentence)):
        write_dicom_seg(tmp_path / "a_seg.dcm", made_up(), series.affine, series.headers(), names, **ABOUT)
    assert [path.name for path in tmp_path.iterdir()] == ["ct"]


def test_texts_that_are_too_long(write_series: Series, tmp_path: Path) -> None:
    series = open_series(write_series(tmp_path / "ct", hu()))
    for wrong in ({"series_description": "x" * 60}, {"algorithm": "x" * 65}, {"version": ""}, {"algorithm": "a\\b"}):
        with pytest.raises(SettingError, match=f"{next(iter(wrong))}: .* does not fit a DICOM file"):
            write_dicom_seg(
                tmp_path / "a_seg.dcm", made_up(), series.affine, series.headers(), NAMES, **{**ABOUT, **wrong}
            )


def test_a_file_that_reads_back_otherwise_is_not_kept(
    write_series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = open_series(write_series(tmp_path / "ct", hu()))

    def spoilt(self: pydicom.Dataset, path: Path) -> None:
        self.PixelData = bytes([self.PixelData[0] ^ 1]) + self.PixelData[1:]
        pydicom.Dataset.save_as(self, path)

    monkeypatch.setattr(highdicom.seg.Segmentation, "save_as", spoilt, raising=False)
    labels = np.where(made_up() == 1, 1, 0)  # another segment would overlap
    with pytest.raises(WriteError, match="case_7: the DICOM SEG reads back as other voxels, so it was not kept"):
        write_dicom_seg(tmp_path / "a_seg.dcm", labels, series.affine, series.headers(), NAMES, **ABOUT)
    assert [path.name for path in tmp_path.iterdir()] == ["ct"]


def test_without_highdicom_the_extra_is_named(
    write_series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = open_series(write_series(tmp_path / "ct", hu()))
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(SettingError, match=r"pip install 'monai-ext\[dicom\]'"):
        write_dicom_seg(tmp_path / "a_seg.dcm", made_up(), series.affine, series.headers(), NAMES, **ABOUT)


def test_the_other_outputs_need_no_highdicom() -> None:
    code = "import sys; sys.modules['highdicom'] = None; import monai_ext.outputs, monai_ext.engines"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_dciodvfy_finds_no_error(repaired_series: Path, shared_ct: Path, dciodvfy: str, tmp_path: Path) -> None:
    series = open_series(repaired_series)
    organs = read_labels(shared_ct / "dicom_jpeg2000_organs.nii.gz", like=series.read()).voxels
    names = {**NAMES, 6: "stomach", 7: "pancreas", 8: "right adrenal gland"}
    labels = np.where(organs <= 8, organs, 0)
    for name, written in (("organs", labels), ("spleen", np.where(labels == 1, 1, 0)), ("none", labels * 0)):
        path = tmp_path / f"{name}_seg.dcm"
        write_dicom_seg(path, written, series.affine, series.headers(), names, **ABOUT)
        np.testing.assert_array_equal(read_dicom_seg(path, series.headers())[0], written)
        assert errors(dciodvfy, path) <= errors(dciodvfy, series.files[0]), name


def errors(dciodvfy: str, path: Path) -> set[str]:
    found = subprocess.run([dciodvfy, str(path)], capture_output=True, encoding="utf-8")
    lines = (found.stdout + found.stderr).splitlines()
    assert any(line in ("Segmentation", "CTImage") for line in lines), lines
    return {line for line in lines if line.startswith(("Error", "Abort"))}
