"""Orthanc as the tests use it: shut to others, and giving back exactly what was stored."""

from typing import Any

import numpy as np
import pydicom
import pytest

requests = pytest.importorskip("requests")
pytest.importorskip("dicomweb_client", reason="needs MONAI Label: pip install 'monai-ext[label]'")

AS_STORED = (("application/dicom", "*"),)  # Orthanc 1.10 cannot turn JPEG 2000 into anything else


@pytest.mark.parametrize("login", [None, ("tests", "wrong")])
def test_orthanc_answers_nobody_without_the_password(orthanc: Any, login: tuple[str, str] | None) -> None:
    for path in ("/system", "/dicom-web/studies", "/wado"):
        assert requests.get(orthanc.root + path, auth=login, timeout=10).status_code == 401


def test_the_password_is_not_in_what_pytest_would_print(orthanc: Any) -> None:
    assert orthanc.password not in repr(orthanc)


def test_the_series_is_found(orthanc: Any, stored_series: Any) -> None:
    with orthanc.client() as client:
        (found,) = client.search_for_series(search_filters={"Modality": "CT"})
    assert found["0020000D"]["Value"] == [stored_series.study]
    assert found["0020000E"]["Value"] == [stored_series.series]
    assert found["00201209"]["Value"] == [len(stored_series.datasets)]


def test_jpeg_2000_comes_back_as_it_was_stored(orthanc: Any, stored_series: Any) -> None:
    with orthanc.client() as client:
        back = client.retrieve_series(stored_series.study, stored_series.series, media_types=AS_STORED)
    assert len(back) == len(stored_series.datasets)
    by_instance = {item.SOPInstanceUID: item for item in back}
    for sent in stored_series.datasets:
        got = by_instance[sent.SOPInstanceUID]
        assert got.file_meta.TransferSyntaxUID == sent.file_meta.TransferSyntaxUID == pydicom.uid.JPEG2000Lossless
        assert got == sent


def test_an_uncompressed_copy_comes_back_without_asking(orthanc: Any, stored_series: Any) -> None:
    """What MONAI Label asks for by default: enough for a PACS that stores uncompressed."""
    copy = pydicom.dcmread(stored_series.folder / "slice_01.dcm")
    copy.decompress()
    copy.SeriesInstanceUID, copy.SOPInstanceUID = "2.25.303", "2.25.304"
    copy.file_meta.MediaStorageSOPInstanceUID = copy.SOPInstanceUID
    try:
        with orthanc.client() as client:
            client.store_instances([copy])
            (back,) = client.retrieve_series(stored_series.study, "2.25.303")
    finally:
        orthanc.forget("2.25.303")
    assert back.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    assert np.array_equal(back.pixel_array, stored_series.datasets[0].pixel_array)
