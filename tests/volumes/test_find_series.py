"""Several series in folders and zips: one entry each, what is no slice set aside, none mixed and none lost."""

import json
import logging
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest

from monai_ext.base import ScanError
from monai_ext.engines import localization_items, scan_items
from monai_ext.transforms import ReadScand
from monai_ext.volumes import (
    VolumeStore,
    find_inputs,
    find_scans,
    find_series,
    open_series,
    prepare,
    quiet_pydicom,
    read_scan,
)

REPORT, SEGMENTATION = "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.66.4"
STATE, CAPTURE, DOSE = "1.2.840.10008.5.1.4.1.1.11.1", "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.481.2"
SCOUT = ["ORIGINAL", "PRIMARY", "LOCALIZER"]


@pytest.fixture
def mixed(tmp_path: Path, dicom) -> Path:
    """A folder of series 3 and 12, two localizers, a report, a segmentation and more that is no slice."""
    folder = dicom.series(tmp_path / "mixed", 3)
    dicom.series(folder, 12, count=5)
    dicom.series(folder, 1, count=2, ImageType=SCOUT)
    dicom.other(folder / "a", "SR", REPORT, 90)
    dicom.other(folder / "b", "SEG", SEGMENTATION, 91)
    dicom.other(folder / "c", "PR", STATE, 92)
    dicom.other(folder / "d", "SR", "", 93)  # de-identified: no class, so the modality has to tell
    dicom.other(folder / "e", "CT", CAPTURE, 94)
    dicom.other(folder / "f", "RTDOSE", DOSE, 95)
    dicom.other(folder / "h", "CT", "1.3.12.2.1107.5.9.1", 97)  # a vendor's own
    dicom.other(folder / "g", "", "1.2.840.10008.1.3.10", 96)
    return folder


ACCOUNT = (
    "set aside 1 DICOMDIR, 2 localizers, 1 other object, 1 presentation state, 1 radiotherapy object, 2 reports, "
    "1 screen capture, 1 segmentation"
)


def assert_is_series(scan, dicom, number: int, count: int = 4) -> None:
    np.testing.assert_array_equal(scan.voxels, dicom.voxels(number, count))


def check_entries(found, dicom) -> None:
    assert [(one.number, one.modality, one.slices) for one in found] == [(12, "CT", 5), (3, "CT", 4)]
    for one in found:
        assert re.fullmatch(rf"mixed-{one.number}-[0-9a-f]{{8}}", one.case)
        opened = one.open()
        assert opened.case == one.case
        assert {header.SeriesNumber for header in opened.headers()} == {one.number}
        assert_is_series(opened.read(), dicom, one.number, one.slices)
        scan = read_scan(one.path)
        assert (scan.case, scan.kind, scan.source.name) == (one.case, "dicom", one.path.name)
        assert_is_series(scan, dicom, one.number, one.slices)
        assert "SENTINEL" not in f"{one.case}{opened!r}"
        assert not any(uid in one.case for uid in ("2.25", "8.3"))


def test_mixed_folder(mixed, dicom, caplog):
    found = find_series(mixed)
    assert caplog.messages == [f"mixed: {ACCOUNT}"]
    check_entries(found, dicom)
    assert [one.case for one in find_series(mixed, "p7")] == [one.case.replace("mixed", "p7") for one in found]


def test_mixed_zip_gives_the_same_series(mixed, dicom, tmp_path, no_temporary_left, caplog):
    in_folder = [one.case for one in find_series(mixed)]
    path = dicom.zip(mixed, tmp_path / "mixed.zip")
    shutil.rmtree(mixed)
    found = find_series(path)
    assert caplog.messages == [f"mixed: {ACCOUNT}"] * 2
    assert [one.case for one in found] == in_folder
    check_entries(found, dicom)
    assert no_temporary_left() == []


@pytest.mark.parametrize("packed", [False, True])
def test_reading_several_refuses_and_lists_them(mixed, dicom, packed, tmp_path, no_temporary_left):
    path = dicom.zip(mixed, tmp_path / "mixed.zip") if packed else mixed
    with pytest.raises(ScanError) as caught:
        read_scan(path)
    kind = "zip" if packed else "folder"
    pattern = (
        rf"mixed: the {kind} mixes 2 series \(of 5, 4 files\); sort them into one folder a series, or pick one by "
        r"adding its mark to the path: #3-[0-9a-f]{8} \(4 files\), #12-[0-9a-f]{8} \(5 files\)"
    )
    assert re.fullmatch(pattern, str(caught.value))
    assert caught.value.code == "dicom.series"
    del caught
    assert no_temporary_left() == []
    for pick in ("3", 3):
        assert_is_series(read_scan(path, series=pick), dicom, 3)
    assert_is_series(read_scan(f"{path}#12"), dicom, 12, 5)
    assert read_scan(f"{path}#12", case="mine").case == "mine"
    with pytest.raises(ScanError, match=rf"^mixed: the {kind} has no such series; pick one by adding .*#3-.*#12-"):
        read_scan(path, series="4")


def test_one_series_beside_what_is_none_is_read(tmp_path, dicom, caplog):
    folder = dicom.series(tmp_path / "a", 3)
    dicom.series(folder, 1, count=1, ImageType=SCOUT)
    dicom.other(folder / "report", "SR", REPORT)
    assert_is_series(read_scan(folder), dicom, 3)
    assert_is_series(read_scan(dicom.zip(folder, tmp_path / "b.zip")), dicom, 3)
    assert caplog.messages == [f"{case}: set aside 1 localizer, 1 report" for case in ("a", "b")]
    assert [(scan.case, scan.image) for scan in find_scans(folder)] == [("a", folder)]  # named as ever


def test_nothing_but_localizers_and_reports(tmp_path, dicom):
    folder = dicom.series(tmp_path / "a", 1, ImageType=SCOUT)
    with pytest.raises(
        ScanError, match=r"^a: the folder holds no slices of a volume, only 4 localizers; give"
    ) as caught:
        read_scan(folder)
    assert caught.value.code == "dicom.localizer"
    dicom.other(folder / "report", "SR", REPORT)
    with pytest.raises(ScanError, match=r"only 4 localizers, 1 report; give the folder"):
        read_scan(folder)
    with pytest.raises(ScanError, match=r"^a: no DICOM series was found beside 4 localizers, 1 report; give"):
        find_series(folder)
    with pytest.raises(ScanError, match=r"^a: the folder holds no scan"):
        find_scans(folder)


def test_localizer_among_slices_is_not_passed_over(tmp_path, dicom):
    folder = dicom.series(tmp_path / "a", 3)
    dicom.save(dicom.slice(3, 0, ImageType=SCOUT), folder / "SENTINEL-3-00")
    dicom.series(folder, 12)
    one, _ = sorted(find_series(folder), key=lambda one: one.number)
    with pytest.raises(ScanError, match=r"^a-3-[0-9a-f]{8}: file 1 of 4 is a localizer"):
        one.open()


@pytest.mark.parametrize("packed", [False, True])
def test_nested_folders(tmp_path, dicom, packed):
    top = tmp_path / "export"
    dicom.series(top / "study 1" / "ct", 3)
    dicom.series(top / "study 1" / "ct2", 5)
    dicom.series(top / "study 2" / "ct", 6, SeriesInstanceUID="", SOPInstanceUID="")
    dicom.series(top / "study 3", 6, SeriesInstanceUID="", SOPInstanceUID="")  # of another patient, perhaps
    dicom.series(top / ".hidden", 7)
    (top / "viewer.exe").write_bytes(b"x" * 200)
    (top / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    found = find_series(dicom.zip(top, tmp_path / "all.zip") if packed else top)
    assert sorted(one.number for one in found) == [3, 5, 6, 6]
    assert len({one.case for one in found}) == len({one.path for one in found}) == 4
    for one in found:
        assert_is_series(one.open().read(), dicom, one.number)
        assert_is_series(read_scan(one.path), dicom, one.number)
    if not packed:
        assert {one.path.name for one in found} == {"ct", "ct2", "study 3"}
        assert_is_series(read_scan(top, series=5), dicom, 5)
        with pytest.raises(ScanError, match=r"^export: the folder has 2 series of that number; pick one"):
            read_scan(top, series=6)


@pytest.mark.parametrize("packed", [False, True])
def test_series_in_parts_is_one_and_copies_are_several(tmp_path, dicom, packed):
    top = tmp_path / "export"
    dicom.series(top / "IM00", 3, count=9, only=range(4))
    dicom.series(top / "IM01", 3, count=9, only=range(4, 9))
    dicom.series(top / "copies" / "a", 5)
    dicom.series(top / "copies" / "b", 5)
    source = dicom.zip(top, tmp_path / "export.zip") if packed else top
    found = find_series(source)
    assert sorted((one.number, one.slices) for one in found) == [(3, 9), (5, 4), (5, 4)]
    for one in found:
        assert_is_series(one.open().read(), dicom, one.number, one.slices)
    scans = find_scans(source)
    assert {scan.image for scan in scans} == {one.path for one in found}
    for scan in scans:
        assert read_scan(scan.image).voxels.shape[2] in (4, 9)


def test_slices_beside_a_folder_can_be_opened_by_their_mark(tmp_path, dicom):
    top = dicom.series(tmp_path / "a", 3)
    dicom.series(top / "b", 5)
    assert {one.path.name.split("-")[0] for one in find_series(top)} == {"a#3", "b"}
    for one in find_series(top):
        assert_is_series(read_scan(one.path), dicom, one.number)


def test_damaged_file_is_named_and_nothing_is_taken_from_beside_it(mixed, dicom, tmp_path):
    path = mixed / "SENTINEL-3-03"  # without it, series 3 would merely be one slice shorter
    path.write_bytes(path.read_bytes()[:420])
    number = sorted(file.name for file in mixed.iterdir()).index(path.name) + 1
    sentence = rf"file {number} of {len(list(mixed.iterdir()))} ends before its pixels; copy or export the series again"
    (found,) = find_series(mixed, "p7")
    assert found.problem == f"p7: {sentence}"
    for source in (mixed, f"{mixed}#12", dicom.zip(mixed, tmp_path / "p7.zip")):
        with pytest.raises(ScanError, match=rf"^p7: {sentence}$"):
            open_series(source, "p7")
    with pytest.raises(ScanError, match=rf"^p7: {sentence}$"):
        find_series(tmp_path / "p7.zip")


@pytest.mark.parametrize("length", range(140, 700, 7))
def test_cut_anywhere_in_the_header_is_never_another_series(tmp_path, dicom, length):
    folder = dicom.series(tmp_path / "a", 3)
    path = folder / "SENTINEL-3-03"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ScanError, match=r"^a: file 4 of 4 ") as caught:
        read_scan(folder)
    assert "SENTINEL" not in str(caught.value)


def test_a_folder_named_with_a_mark_is_that_folder(tmp_path, dicom):
    dicom.series(tmp_path / "a", 3)
    dicom.series(tmp_path / "a#3", 5)
    assert_is_series(read_scan(tmp_path / "a#3"), dicom, 5)


def test_every_list_takes_folders_of_several_series_and_zips(mixed, dicom, tmp_path):
    dicom.zip(dicom.series(tmp_path / "apart" / "x", 7), tmp_path / "one.zip")
    dicom.zip(mixed, tmp_path / "mixed.zip")  # of which the folder was unpacked
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("notes.txt", b"no scan")
    dicom.zip(mixed, tmp_path / "two.zip")
    for find in (find_scans, find_inputs):
        found = find(tmp_path)
        assert sorted(re.sub("-[0-9a-f]{8}", "", one.case) for one in found) == [
            "mixed-12", "mixed-3", "one", "two-12", "two-3", "x",
        ]  # fmt: skip
        for one in found:
            assert one.problem is None
            read_scan(one.image, case=one.case)
        assert [one.image for one in find(tmp_path / "one.zip")] == [tmp_path / "one.zip"]
        (picked,) = find(f"{mixed}#12")
        assert_is_series(read_scan(picked.image), dicom, 12, 5)


def test_what_bundles_run_on(mixed, dicom, tmp_path):
    path = dicom.zip(mixed, tmp_path / "two.zip")
    for source in (mixed, path):
        for listed in (scan_items(str(source)), localization_items(str(source))):
            assert [item["case"] for item in listed] == [one.case for one in find_series(source)]
            for item, number, count in zip(listed, (12, 3), (5, 4), strict=True):
                read = ReadScand("image")({"image": item["image"], "case": item["case"]})
                np.testing.assert_array_equal(read["image"][0].numpy(), dicom.voxels(number, count))
    assert [item["case"] for item in scan_items(f"{path}#12")] == ["two-12"]


def test_prepare_makes_a_volume_of_each_series_and_skips_it_next_time(mixed, dicom, tmp_path):
    dicom.zip(dicom.series(tmp_path / "in" / "x", 7, count=6), tmp_path / "in" / "one.zip")
    shutil.move(mixed, tmp_path / "in" / "mixed")
    shutil.rmtree(tmp_path / "in" / "x")
    first = prepare(tmp_path / "in", tmp_path / "store", workers=0)
    assert first.failed == []
    assert [re.sub("-[0-9a-f]{8}", "", name) for name in first.done] == ["mixed-12", "mixed-3", "one"]
    store = VolumeStore(tmp_path / "store")
    assert [store.record(name).source_shape[2] for name in first.done] == [5, 4, 6]
    assert "SENTINEL" not in "".join(path.read_text() for path in (tmp_path / "store").glob("*.json"))
    # Another series beside it does not make this one new; other slices of its own do.
    dicom.series(tmp_path / "in" / "mixed", 20)
    dicom.series(tmp_path / "in" / "mixed", 12, count=6)
    second = prepare(tmp_path / "in", tmp_path / "store", workers=0)
    assert [re.sub("-[0-9a-f]{8}", "", name) for name in second.done] == ["mixed-12", "mixed-20"]
    assert [re.sub("-[0-9a-f]{8}", "", name) for name in second.skipped] == ["mixed-3", "one"]


def test_datalist_may_name_a_zip_and_one_series_of_a_folder(mixed, dicom, tmp_path):
    dicom.zip(dicom.series(tmp_path / "x", 7), tmp_path / "one.zip")
    listed = {"training": [{"image": "one.zip"}, {"image": "mixed#12"}]}
    (tmp_path / "list.json").write_text(json.dumps(listed))
    found = find_scans(tmp_path / "list.json")
    assert [one.case for one in found] == ["one", "mixed_12"]
    assert_is_series(read_scan(found[0].image), dicom, 7)
    assert_is_series(read_scan(found[1].image), dicom, 12, 5)


@pytest.mark.parametrize("packed", [False, True])
def test_the_real_series_beside_another_one(shared_ct, dicom, tmp_path, packed):
    folder = shutil.copytree(shared_ct / "dicom_jpeg2000", tmp_path / "a")
    dicom.series(folder, 999)
    found = find_series(dicom.zip(folder, tmp_path / "a.zip") if packed else folder)
    assert [one.slices for one in found if one.number != 999] == [20]
    (real,) = (one for one in found if one.number != 999)
    whole = read_scan(shared_ct / "dicom_jpeg2000")
    np.testing.assert_array_equal(real.open().read().voxels, whole.voxels)
    np.testing.assert_array_equal(real.open().affine, whole.affine)


def test_no_text_of_a_header_reaches_messages_names_or_logs(tmp_path, dicom, caplog):
    caplog.set_level(logging.DEBUG)
    vrs = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"}
    wanted = [tag for tag, (vr, vm, *_) in pydicom.datadict.DicomDictionary.items() if vr in vrs and vm == "1"]
    planted = [tag for tag in wanted if tag >> 16 not in (0x0000, 0x0002) and tag >> 16 < 0x0100]

    def plant(data: pydicom.Dataset) -> pydicom.Dataset:
        with quiet_pydicom():
            return planting(data)

    def planting(data: pydicom.Dataset) -> pydicom.Dataset:
        for tag in planted:
            if pydicom.datadict.keyword_for_tag(tag) not in ("Modality", "PhotometricInterpretation", "RescaleType"):
                data.add_new(tag, pydicom.datadict.dictionary_VR(tag), "SENTINEL^JANE")
        return data

    assert len(planted) > 500
    folder = tmp_path / "a"
    for number, count in ((3, 4), (12, 2)):
        for index in range(count):
            dicom.save(plant(dicom.slice(number, index)), folder / f"SENTINEL-{number}-{index}")
    said = []

    def refused(**options: object) -> None:
        with pytest.raises(ScanError) as caught:
            read_scan(folder, **options)
        said.append(str(caught.value))

    refused()
    found = find_series(folder)
    said += [repr(one.open()) + one.case for one in found]
    store = tmp_path / "store"
    assert prepare(folder, store, workers=0).exit_code == 0
    said += [path.read_text() + path.name for path in store.glob("*.json")]
    bad_fields = [
        {"Modality": "SENTINEL"},
        {"PhotometricInterpretation": "SENTINEL"},
        {"RescaleType": "SENTINEL"},
        {"SeriesInstanceUID": "SENTINEL"},
        {"ImagePositionPatient": None},
        {"PixelData": b"SENTINEL"},
        {"ImageType": [*SCOUT, "SENTINEL"]},
    ]
    for fields in bad_fields:
        dicom.save(plant(dicom.slice(3, 1)), folder / "SENTINEL-3-1")
        data = plant(dicom.slice(3, 1))
        with quiet_pydicom():
            for keyword, value in fields.items():
                setattr(data, keyword, value) if value is not None else delattr(data, keyword)
        dicom.save(data, folder / "SENTINEL-3-1")
        refused(series=3)
    # A text where a number belongs, past pydicom's own check: the bytes of the file are changed.
    dicom.save(plant(dicom.slice(3, 1, SeriesNumber=12345678)), folder / "SENTINEL-3-1")
    path = folder / "SENTINEL-3-1"
    content = path.read_bytes()
    assert content.count(b"12345678") == 1
    path.write_bytes(content.replace(b"12345678", b"SENTINEL"))
    refused()
    said += [one.case + str(one.problem) for one in find_series(folder)]
    said += [scan.case + str(scan.problem) for scan in find_scans(folder)]
    assert not any("SENTINEL" in sentence for sentence in (*said, caplog.text))
