"""Which inputs may have DICOM output, told before a network runs."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from monai_ext.base import SettingError
from monai_ext.engines import dicom_items, scan_items

pytest.importorskip("highdicom", reason="pip install 'monai-ext[dicom]'")

Series = Callable[..., Path]


def body() -> np.ndarray:
    voxels = np.full((13, 11, 7), -1000)
    voxels[2:-2, 2:-2] = np.random.default_rng(2).integers(-90, 160, (9, 7, 7))
    return voxels


def test_a_folder_and_a_zip_of_series(write_series: Series, tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "one", body())
    write_series(tmp_path / "two", body(), SeriesInstanceUID="2.25.82")
    shutil.make_archive(str(tmp_path / "in" / "packed"), "zip", tmp_path / "two")
    items = scan_items(str(tmp_path / "in"))
    assert dicom_items(items, False) == items
    found = dicom_items(items, True)
    assert [item["case"] for item in found] == ["one", "packed"]
    assert not [item["problem"] for item in found if "problem" in item]
    assert [item["series"] for item in found] == [item["image"] for item in items]


def test_what_is_known_to_be_unusable_stays_so(write_series: Series, tmp_path: Path) -> None:
    series = write_series(tmp_path / "one", body(), StudyInstanceUID="")
    items = [{"case": "bad", "problem": "bad: why"}, {"case": "one", "image": str(series)}]
    bad, one = dicom_items(items, True)
    assert bad == items[0]
    assert one["problem"].startswith("one: the series has no StudyInstanceUID, by which a DICOM result refers to it")
    assert "series" not in one


def test_what_the_writer_would_refuse_is_known_before(
    write_series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial with the headers of the series; of its pixels, it takes none."""
    items = scan_items(str(write_series(tmp_path / "one", body(), PatientWeight="80")))
    seen: list[tuple[int, ...]] = []

    def refusing(*_: object, pixel_array: np.ndarray, **__: object) -> None:
        seen.append(pixel_array.shape)
        raise ValueError("PLANTED")

    with monkeypatch.context() as patch:
        patch.setattr("highdicom.seg.Segmentation", refusing)
        (one,) = dicom_items(items, True)
    assert seen == [(7, 4, 4)]
    assert one["problem"].startswith("one: a header of the series holds what no DICOM result can be made with")
    assert "PLANTED" not in one["problem"]
    assert "series" in dicom_items(items, True)[0]


def test_other_inputs_are_named(tmp_path: Path) -> None:
    items = [{"case": f"ct_{number}", "image": str(tmp_path / f"ct_{number}.nii.gz")} for number in range(10)]
    with pytest.raises(SettingError, match=r"^dicom_seg: ct_0, ct_1, .*, ct_7 and 2 more: no DICOM series"):
        dicom_items(items, True)


def test_highdicom_is_asked_for_first(write_series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = scan_items(str(write_series(tmp_path / "one", body())))
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(SettingError, match=r"pip install 'monai-ext\[dicom\]'"):
        dicom_items(items, True)
