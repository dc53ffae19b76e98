"""The real server on a real PACS: series in, SEG out, and a final label that keeps the models' ids and names."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest

pytest.importorskip("monailabel", reason="needs MONAI Label: pip install 'monai-ext[label]'")
import requests

from monai_ext.outputs.dicom_seg import read_dicom_seg
from monai_ext.volumes import open_series

pytestmark = [pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")]
WAIT_S = 300
NAMES = {
    1: "liver",
    2: "spleen",
    3: "kidney_right",
    4: "kidney_left",
    5: "lungs",
    6: "spine",
    7: "aorta",
    8: "heart",
}


@pytest.fixture(autouse=True)
def _without_results(orthanc: Any, stored_series: Any) -> Iterator[None]:
    """Leave the archive as it was: the series alone."""
    yield
    for uid in _segs(orthanc):
        orthanc.forget(uid)


def _segs(orthanc: Any) -> list[str]:
    with orthanc.client() as client:
        return [row["0020000E"]["Value"][0] for row in client.search_for_series(search_filters={"Modality": "SEG"})]


def _only_seg(orthanc: Any, stored: Any) -> pydicom.Dataset:
    (series,) = _segs(orthanc)
    with orthanc.client() as client:
        (found,) = client.retrieve_series(stored.study, series, media_types=(("application/dicom", "*"),))
    return found


def _infer(server: Any, series: str, params: dict[str, Any], output: str = "image") -> requests.Response:
    url = f"{server.url}/infer/ct_segmentation"
    asked = {"image": series, "output": output}
    answer = requests.post(url, params=asked, data={"params": json.dumps(params)}, timeout=WAIT_S)
    assert answer.ok, answer.text
    return answer


def _volume(content: bytes, path: Path) -> nib.Nifti1Image:
    path.write_bytes(content)
    return nib.load(path)


def test_series_are_listed_and_come_as_they_are_read(dicomweb_server: Any, stored_series: Any, tmp_path: Path) -> None:
    assert requests.get(f"{dicomweb_server.url}/datastore/", timeout=WAIT_S).json()["total"] == 1
    answer = requests.get(f"{dicomweb_server.url}/datastore/image?image={stored_series.series}", timeout=WAIT_S)
    got, scan = _volume(answer.content, tmp_path / "ct.nii.gz"), open_series(stored_series.folder).read()
    assert np.array_equal(np.asanyarray(got.dataobj), scan.voxels)
    assert np.allclose(got.affine, scan.affine, rtol=1e-6, atol=1e-4)  # NIfTI keeps float32


def test_inference_writes_seg_into_the_archive(
    dicomweb_server: Any, orthanc: Any, stored_series: Any, tmp_path: Path
) -> None:
    answer = _infer(dicomweb_server, stored_series.series, {"store_seg": True})
    labels = np.asanyarray(_volume(answer.content, tmp_path / "labels.nii.gz").dataobj)
    seg = _only_seg(orthanc, stored_series)
    voxels, names = read_dicom_seg(seg, open_series(stored_series.folder).headers())
    assert names == NAMES
    assert len(np.unique(labels)) > 2
    assert np.array_equal(voxels, labels)
    assert {item.SegmentAlgorithmType for item in seg.SegmentSequence} == {"AUTOMATIC"}
    referenced = seg.ReferencedSeriesSequence[0]
    assert referenced.SeriesInstanceUID == stored_series.series
    told = {item.ReferencedSOPInstanceUID for item in referenced.ReferencedInstanceSequence}
    assert told == {item.SOPInstanceUID for item in stored_series.datasets}
    assert "research" in seg.ContentDescription.lower()
    # A proposal that nobody looked at does not count as labelled.
    assert requests.get(f"{dicomweb_server.url}/datastore/", timeout=WAIT_S).json()["completed"] == 0
    first = requests.post(f"{dicomweb_server.url}/activelearning/first", json={}, timeout=WAIT_S).json()
    assert first["id"] == stored_series.series


def test_seg_can_be_had_without_storing_it(
    dicomweb_server: Any, orthanc: Any, stored_series: Any, tmp_path: Path
) -> None:
    answer = _infer(dicomweb_server, stored_series.series, {}, "dicom_seg")
    (tmp_path / "seg.dcm").write_bytes(answer.content)
    voxels, names = read_dicom_seg(pydicom.dcmread(tmp_path / "seg.dcm"), open_series(stored_series.folder).headers())
    assert names == NAMES
    assert voxels.any()
    assert _segs(orthanc) == []


@pytest.mark.parametrize(
    "info", [None, [{"name": "spleen"}], [{"name": "spleen", "idx": 2}]], ids=["nothing", "name", "name and id"]
)
def test_a_final_label_keeps_its_class_where_others_are_missing(
    dicomweb_server: Any, orthanc: Any, stored_series: Any, tmp_path: Path, info: Any
) -> None:
    """MONAI Label's own writer names what is present by place: a spleen alone would become the first name told."""
    series = open_series(stored_series.folder)
    spleen = np.zeros(series.shape, np.uint8)
    spleen[101:150, 203:260, 7:13] = 2
    nib.save(nib.Nifti1Image(spleen, series.affine), tmp_path / "spleen.nii.gz")
    with (tmp_path / "spleen.nii.gz").open("rb") as file:
        answer = requests.put(
            f"{dicomweb_server.url}/datastore/label",
            params={"image": stored_series.series, "tag": "final"},
            data={"params": json.dumps({"label_info": info})},
            files={"label": file},
            timeout=WAIT_S,
        )
    assert answer.ok, answer.text
    seg = _only_seg(orthanc, stored_series)
    voxels, names = read_dicom_seg(seg, series.headers())
    assert names == NAMES
    assert np.array_equal(voxels, spleen)
    assert {item.SegmentAlgorithmType for item in seg.SegmentSequence} == {"SEMIAUTOMATIC"}
    told = requests.get(f"{dicomweb_server.url}/datastore/", timeout=WAIT_S).json()
    assert told["completed"] == 1
    back = requests.get(f"{dicomweb_server.url}/datastore/label?label={stored_series.series}&tag=final", timeout=WAIT_S)
    got = _volume(back.content, tmp_path / "back.nii.gz")
    assert np.array_equal(np.asanyarray(got.dataobj), spleen)
    assert np.allclose(got.affine, series.affine, rtol=1e-6, atol=1e-4)


def test_another_tools_numbering_becomes_the_models(
    dicomweb_server: Any, orthanc: Any, stored_series: Any, tmp_path: Path
) -> None:
    """A SEG with one segment, number 1, called Spleen: read back it is label 2, as the models have it."""
    from monai_ext.outputs.dicom_seg import write_dicom_seg

    series = open_series(stored_series.folder)
    mask = np.zeros(series.shape, np.uint8)
    mask[11:53, 301:350, 3:9] = 1
    write_dicom_seg(
        tmp_path / "other.dcm",
        mask,
        series.affine,
        series.headers(),
        {1: "Spleen"},
        algorithm="another tool",
        version="1",
        automatic=False,
    )
    with orthanc.client() as client:
        client.store_instances([pydicom.dcmread(tmp_path / "other.dcm")])
    back = requests.get(f"{dicomweb_server.url}/datastore/label?label={stored_series.series}&tag=final", timeout=WAIT_S)
    assert back.ok, back.text
    got = _volume(back.content, tmp_path / "back.nii.gz")
    assert np.array_equal(np.asanyarray(got.dataobj), mask * 2)


def test_a_seg_that_contradicts_the_models_is_refused(
    dicomweb_server: Any, orthanc: Any, stored_series: Any, tmp_path: Path
) -> None:
    from monai_ext.outputs.dicom_seg import write_dicom_seg

    series = open_series(stored_series.folder)
    mask = np.zeros(series.shape, np.uint8)
    mask[11:53, 301:350, 3:9] = 1
    about = {"algorithm": "another tool", "version": "1", "automatic": False}
    write_dicom_seg(tmp_path / "o.dcm", mask, series.affine, series.headers(), {1: "Metastasis"}, **about)
    with orthanc.client() as client:
        client.store_instances([pydicom.dcmread(tmp_path / "o.dcm")])
    url = f"{dicomweb_server.url}/datastore/label?label={stored_series.series}&tag=final"
    back = requests.get(url, timeout=WAIT_S)
    assert back.status_code == 400
    assert "segment 1 of its SEG is none of the models' labels, of which liver has that number" in back.json()["detail"]


def test_an_unknown_name_is_refused_not_guessed(
    dicomweb_server: Any, orthanc: Any, stored_series: Any, tmp_path: Path
) -> None:
    series = open_series(stored_series.folder)
    mask = np.zeros(series.shape, np.uint8)
    mask[11:53, 301:350, 3:9] = 9
    nib.save(nib.Nifti1Image(mask, series.affine), tmp_path / "nine.nii.gz")
    for info, part in [
        (None, "ids 9 have no name"),
        ([{"name": "liver", "idx": 2}], "liver is told as id 2, but is 1 here"),
        ([{"name": "gallbladder", "idx": 2}], "id 2 is told as another label than spleen"),
        ([{"name": "lesion candidate"}], "lesion candidate is none of the models' labels"),
    ]:
        answer = requests.put(
            f"{dicomweb_server.url}/datastore/label",
            params={"image": stored_series.series, "tag": "final"},
            data={"params": json.dumps({"label_info": info})},
            files={"label": ("nine.nii.gz", (tmp_path / "nine.nii.gz").read_bytes())},
            timeout=WAIT_S,
        )
        assert answer.status_code == 400
        assert part in answer.json()["detail"]
    assert _segs(orthanc) == []


def test_the_map_stays_on_the_server_under_its_tag(dicomweb_server: Any, stored_series: Any, tmp_path: Path) -> None:
    url = f"{dicomweb_server.url}/infer/lesion_localization?image={stored_series.series}&output=image"
    answer = requests.post(url, timeout=WAIT_S)
    assert answer.ok, answer.text
    heat = requests.get(
        f"{dicomweb_server.url}/datastore/label?label={stored_series.series}&tag=heatmap", timeout=WAIT_S
    )
    mask, odds = _volume(answer.content, tmp_path / "m.nii.gz"), _volume(heat.content, tmp_path / "h.nii.gz")
    assert mask.shape == odds.shape == open_series(stored_series.folder).shape
    assert np.asanyarray(odds.dataobj)[np.asanyarray(mask.dataobj) == 1].min() > 0


@pytest.mark.parametrize("image", ["../../x", "1.2.3/../..", "1.2.3.4.5.6.7.8.9", "*", "", "1" * 65, "ras"])
def test_only_series_of_the_archive_are_images(dicomweb_server: Any, image: str) -> None:
    for method, address, key in [
        ("POST", "infer/ct_segmentation", "image"),
        ("GET", "datastore/image", "image"),
        ("GET", "datastore/label?tag=final", "label"),
    ]:
        answer = requests.request(method, f"{dicomweb_server.url}/{address}", params={key: image}, timeout=WAIT_S)
        assert answer.status_code in (400, 404), (address, answer.text)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "%2e%2e/patients"),
        ("GET", "wado/%2e%2e/system"),
        ("POST", "%2e%2e/tools/lookup"),
        ("GET", "qido/..%2f..%2fsystem"),
        ("GET", "qido/studies%3f..%2f"),
        ("POST", "wado/studies"),
        ("POST", "stow/%2e%2e/instances"),
        ("GET", "qido//system"),
        ("GET", "servers"),
        ("GET", "info"),
    ],
)
def test_the_proxy_reaches_dicomweb_alone(dicomweb_server: Any, orthanc: Any, method: str, path: str) -> None:
    answer = requests.request(method, f"{dicomweb_server.url}/proxy/dicom/{path}", data=b"x", timeout=WAIT_S)
    assert answer.status_code in (400, 403, 404)
    assert "detail" in answer.json()


def test_the_proxy_passes_filters_on(dicomweb_server: Any, stored_series: Any) -> None:
    url = f"{dicomweb_server.url}/proxy/dicom/qido/studies"
    assert len(requests.get(url, params={"StudyInstanceUID": stored_series.study}, timeout=WAIT_S).json()) == 1
    assert requests.get(url, params={"StudyInstanceUID": "1.2.3"}, timeout=WAIT_S).json() == []


def test_nothing_beside_the_archive_names_the_patient(dicomweb_server: Any, stored_series: Any) -> None:
    """The DICOM files in the cache are the patient's; names of files, records and logs are not."""
    _infer(dicomweb_server, stored_series.series, {"save_label": True})
    first = stored_series.datasets[0]
    told = [str(first.PatientName), str(first.PatientID), "PLANTED"]
    root = dicomweb_server.temporary.parent
    for path in root.rglob("*"):
        assert not any(word in path.name for word in told), path.name
        if path.is_file() and path.suffix != ".dcm":
            content = path.read_bytes()
            assert not any(word.encode() in content for word in told), path.name
    for address in ("datastore/?output=all", "info/", f"datastore/image/info?image={stored_series.series}"):
        answer = requests.get(f"{dicomweb_server.url}/{address}", timeout=WAIT_S)
        assert answer.ok
        assert not any(word in answer.text for word in told)


def test_final_labels_train_the_model(dicomweb_server: Any, stored_series: Any, tmp_path: Path) -> None:
    series = open_series(stored_series.folder)
    labels = np.zeros(series.shape, np.uint8)
    labels[101:250, 203:360, 3:17] = 1
    labels[301:350, 203:260, 3:17] = 2
    nib.save(nib.Nifti1Image(labels, series.affine), tmp_path / "two.nii.gz")
    sent = {"label": ("two.nii.gz", (tmp_path / "two.nii.gz").read_bytes())}
    asked = {"image": stored_series.series, "tag": "final"}
    assert requests.put(f"{dicomweb_server.url}/datastore/label", params=asked, files=sent, timeout=WAIT_S).ok
    url = f"{dicomweb_server.url}/train/ct_segmentation?run_sync=true"
    got = requests.post(url, json={"max_epochs": 1, "device": "cpu"}, timeout=WAIT_S)
    assert got.ok, got.text
    assert got.json()["scans"] == 1


def test_a_series_that_was_mended_is_read_anew(dicomweb_server: Any, orthanc: Any, stored_series: Any) -> None:
    """A slice is missing at first; then the archive gets it."""
    copies = []
    for number, dataset in enumerate(stored_series.datasets[:5]):
        copy = pydicom.dcmread(dataset.filename)
        copy.SeriesInstanceUID, copy.SOPInstanceUID = "2.25.9001", f"2.25.9002{number}"
        copy.file_meta.MediaStorageSOPInstanceUID = copy.SOPInstanceUID
        copies.append(copy)
    url = f"{dicomweb_server.url}/infer/ct_segmentation?image=2.25.9001&output=json"
    try:
        with orthanc.client() as client:
            client.store_instances([*copies[:2], *copies[3:]])
            first = requests.post(url, timeout=WAIT_S)
            client.store_instances([copies[2]])
            second = requests.post(url, timeout=WAIT_S)
    finally:
        orthanc.forget("2.25.9001")
    assert first.status_code == 400
    assert "missing" in first.json()["detail"]
    assert second.ok, second.text


def test_an_archive_that_is_down_is_one_sentence(app_folder: Path, start_server: Any, tmp_path: Path) -> None:
    shutil.copytree(app_folder, tmp_path / "app")
    with start_server(tmp_path, tmp_path / "app", "http://127.0.0.1:9/dicom-web", {}, answers=400) as server:
        answer = requests.get(f"{server.url}/info/", timeout=WAIT_S)
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("archive: does not answer; check that it runs")
