"""What a client must not be able to do to the real server: run code, read or write outside its folders."""

import http.client
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("monailabel", reason="needs MONAI Label: pip install 'monai-ext[label]'")
import requests

WAIT_S = 120
OUTSIDE = ["../secret", "..%2fsecret", "/etc/hostname", "ras/../../secret", "..", ".", "", ".lock", "a\x00b", "x" * 300]


def everything(server: Any) -> dict[str, int]:
    """Return every file that the server could have written, beside its log, with its size."""
    root = server.temporary.parent
    return {str(path.relative_to(root)): path.stat().st_size for path in root.rglob("*") if path != server.log}


def refused(answer: requests.Response) -> str:
    """Return the sentence of a refusal; anything else fails, a server error too."""
    assert answer.status_code in (400, 403, 404, 405, 422), (answer.status_code, answer.text[:300])
    assert "Traceback" not in answer.text
    detail = answer.json()["detail"]
    return detail if isinstance(detail, str) else json.dumps(detail)


@pytest.mark.parametrize("name", ["max_epochs", "val_split", "device", "pretrained"])
@pytest.mark.parametrize("sync", ["true", "false"])
def test_training_parameters_are_never_evaluated(server: Any, name: str, sync: str) -> None:
    witness = server.temporary.parent / "evaluated"
    code = f"$__import__('pathlib').Path({str(witness)!r}).touch()"
    url = f"{server.url}/train/ct_segmentation?run_sync={sync}"
    sentence = refused(requests.post(url, json={name: code}, timeout=WAIT_S))
    assert name in sentence
    assert not witness.exists()


@pytest.mark.parametrize("name", ["overlap", "device", "result_extension", "result_dtype", "assume_hu", "label_tag"])
def test_inference_parameters_are_never_evaluated(server: Any, name: str) -> None:
    witness = server.temporary.parent / "evaluated"
    code = f"$__import__('pathlib').Path({str(witness)!r}).touch()"
    url = f"{server.url}/infer/ct_segmentation?image=ras"
    assert refused(requests.post(url, data={"params": json.dumps({name: code})}, timeout=WAIT_S))
    assert not witness.exists()


@pytest.mark.parametrize(
    "name", ["image", "label", "model", "session", "image_path", "weights", "bundle_path", "_kept"]
)
def test_parameters_cannot_stand_for_what_the_server_sets(server: Any, name: str) -> None:
    outside = str(server.temporary.parent / "secret.nii.gz")
    url = f"{server.url}/infer/ct_segmentation?image=ras&output=json"
    told = requests.post(url, data={"params": json.dumps({name: outside})}, timeout=WAIT_S)
    plain = requests.post(url, data={"params": "{}"}, timeout=WAIT_S)
    assert told.ok
    assert told.json()["volumes_ml"] == plain.json()["volumes_ml"]  # that of ras, whatever was sent
    batch = f"{server.url}/batch/infer/ct_segmentation?images=all&run_sync=true"
    got = requests.post(batch, json={name: outside, "max_batch_size": 1}, timeout=WAIT_S)
    assert got.ok
    assert outside not in got.text


@pytest.mark.parametrize("params", ["[]", "{", "1", '"$1"', "null]"])
def test_parameters_are_an_object(server: Any, params: str) -> None:
    url = f"{server.url}/infer/ct_segmentation?image=ras"
    assert "no JSON object" in refused(requests.post(url, data={"params": params}, timeout=WAIT_S))


@pytest.mark.parametrize("image", OUTSIDE)
def test_no_file_outside_is_read(server: Any, image: str) -> None:
    before = everything(server)
    for method, address in [
        ("POST", "infer/ct_segmentation"),
        ("GET", "datastore/image"),
        ("GET", "datastore/image/info"),
        ("GET", "datastore/label?tag=final"),
        ("GET", "datastore/label/info?tag=final"),
    ]:
        key = "label" if "/label" in address else "image"
        answer = requests.request(method, f"{server.url}/{address}", params={key: image}, timeout=WAIT_S)
        assert refused(answer), address
    assert everything(server) == before


@pytest.mark.parametrize("image", [*OUTSIDE, "no_such"])
def test_nothing_outside_is_written_or_removed(server: Any, scans: Path, image: str) -> None:
    before = everything(server)
    label = (scans / "labels_of" / "ras.nii.gz").read_bytes()
    sent = {"label": ("label.nii.gz", label)}
    url = f"{server.url}/datastore/label"
    assert refused(requests.put(url, params={"image": image, "tag": "final"}, files=sent, timeout=WAIT_S))
    if image not in ("no_such", "..%2fsecret", ""):  # plain names that a new image may have; none: that of the file
        file = {"file": ("ras.nii.gz", (scans / "ras.nii.gz").read_bytes())}
        assert refused(requests.put(f"{server.url}/datastore/", params={"image": image}, files=file, timeout=WAIT_S))
    assert refused(requests.delete(f"{server.url}/datastore/", params={"id": image}, timeout=WAIT_S))
    assert refused(requests.delete(url, params={"id": image, "tag": "final"}, timeout=WAIT_S))
    info = {"info": json.dumps({"a": 1})}
    assert refused(
        requests.put(f"{server.url}/datastore/image/info", params={"image": image}, data=info, timeout=WAIT_S)
    )
    assert everything(server) == before


@pytest.mark.parametrize("tag", ["../../escaped", "/tmp/escaped", "..", "a/b", "a b", "", "x" * 40, "final\n"])
def test_a_tag_names_no_folder_elsewhere(server: Any, scans: Path, tag: str) -> None:
    before = everything(server)
    sent = {"label": ("label.nii.gz", (scans / "labels_of" / "ras.nii.gz").read_bytes())}
    asked = {"image": "ras", "tag": tag}
    if tag:  # none means the final one
        assert refused(requests.put(f"{server.url}/datastore/label", params=asked, files=sent, timeout=WAIT_S))
        params = {"params": json.dumps({"save_label": True, "label_tag": tag})}
        assert refused(requests.post(f"{server.url}/infer/ct_segmentation?image=ras", data=params, timeout=WAIT_S))
    for method, key in (("GET", "label"), ("DELETE", "id")):
        asked = {key: "ras", "tag": tag}
        assert refused(requests.request(method, f"{server.url}/datastore/label", params=asked, timeout=WAIT_S))
    assert everything(server) == before


@pytest.mark.parametrize("name", ["x.py", "x.nii.gz.sh", "../../x.txt", "x", "model.pt"])
def test_uploads_are_volumes(server: Any, name: str) -> None:
    before = everything(server)
    for address, field in [("infer/ct_segmentation", "file"), ("datastore/?image=new", "file")]:
        method = "POST" if address.startswith("infer") else "PUT"
        answer = requests.request(method, f"{server.url}/{address}", files={field: (name, b"x")}, timeout=WAIT_S)
        assert "ends in none of" in refused(answer)
    assert everything(server) == before


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b no gzip", b"not a nifti" * 100], ids=["empty", "damaged", "other"])
def test_a_damaged_upload_is_refused_and_not_kept(server: Any, content: bytes) -> None:
    answer = requests.put(
        f"{server.url}/datastore/?image=damaged", files={"file": ("x.nii.gz", content)}, timeout=WAIT_S
    )
    assert refused(answer)
    listed = requests.get(f"{server.url}/datastore/?output=all", timeout=WAIT_S).json()["objects"]
    assert "damaged" not in listed


def test_a_label_of_another_grid_is_refused(server: Any, scans: Path) -> None:
    sent = {"label": ("label.nii.gz", (scans / "labels_of" / "lps.nii.gz").read_bytes())}
    answer = requests.put(f"{server.url}/datastore/label?image=ras&tag=final", files=sent, timeout=WAIT_S)
    assert "ras" in refused(answer)


def test_a_label_of_halves_is_refused(server: Any, scans: Path, tmp_path: Path) -> None:
    import nibabel as nib

    image = nib.load(scans / "labels_of" / "ras.nii.gz")
    values = np.asanyarray(image.dataobj).astype(np.float32) / 2
    nib.save(nib.Nifti1Image(values, image.affine), tmp_path / "half.nii.gz")
    sent = {"label": ("label.nii.gz", (tmp_path / "half.nii.gz").read_bytes())}
    assert refused(requests.put(f"{server.url}/datastore/label?image=ras&tag=final", files=sent, timeout=WAIT_S))


@pytest.mark.parametrize("session", ["..", "../sessions", "a" * 36, "%2e%2e", "."])
def test_a_session_is_one_that_the_server_made(server: Any, session: str) -> None:
    before = everything(server)
    for method in ("GET", "DELETE"):
        line = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_S)  # sends ".." as it is
        line.request(method, f"/session/{session}")
        assert line.getresponse().status in (400, 404, 405)
        line.close()
    assert refused(requests.post(f"{server.url}/infer/ct_segmentation?session_id={session}", timeout=WAIT_S))
    assert everything(server) == before


def test_a_session_unpacks_no_archive(server: Any) -> None:
    files = {"files": ("x.zip", b"PK")}
    assert refused(requests.put(f"{server.url}/session/?uncompress=true", files=files, timeout=WAIT_S))


@pytest.mark.parametrize(
    ("method", "address"),
    [("POST", "reload"), ("PUT", "model/ct_segmentation"), ("DELETE", "model/ct_segmentation")],
)
def test_code_and_weights_are_not_taken(server: Any, method: str, address: str) -> None:
    weights = (server.app / "model" / "segmentation.pt").read_bytes()
    files = {"file": ("model.pt", b"x")}
    assert refused(requests.request(method, f"{server.url}/{address}", files=files, timeout=WAIT_S))
    assert (server.app / "model" / "segmentation.pt").read_bytes() == weights


@pytest.mark.parametrize("address", ["logs/", "logs/gpu", "wsi_infer/", "infer/wsi/ct_segmentation", "static/"])
def test_what_is_not_checked_is_not_served(server: Any, address: str) -> None:
    assert requests.get(f"{server.url}/{address}", timeout=WAIT_S).status_code in (404, 405)


def test_other_sites_get_no_answer(server: Any) -> None:
    answer = requests.get(f"{server.url}/info/", headers={"Origin": "https://elsewhere.example"}, timeout=WAIT_S)
    assert "access-control-allow-origin" not in answer.headers
    preflight = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "PUT"}
    answer = requests.options(f"{server.url}/datastore/", headers=preflight, timeout=WAIT_S)
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "address", ["infer/ct_segmentation?image=ras", "train/ct_segmentation", "batch/infer/ct_segmentation"]
)
def test_pages_of_other_sites_cannot_act(server: Any, address: str) -> None:
    headers = {"Origin": "https://elsewhere.example"}
    assert "other web sites" in refused(requests.post(f"{server.url}/{address}", headers=headers, timeout=WAIT_S))


def test_a_name_that_merely_leads_here_is_not_answered(server: Any) -> None:
    headers = {"Host": f"elsewhere.example:{server.port}"}
    assert "other web sites" in refused(requests.get(f"{server.url}/info/", headers=headers, timeout=WAIT_S))


def test_pages_load_nothing_from_elsewhere(server: Any) -> None:
    page = requests.get(server.url, timeout=WAIT_S)
    assert "research use only" in page.text
    assert "http" not in page.text
    assert requests.get(f"{server.url}/docs", timeout=WAIT_S).status_code == 404


@pytest.mark.parametrize(
    "info",
    ['{"x": "\\ud800"}', '{"a":' * 900 + "1" + "}" * 900, "[" * 2000, '{"x": ' + "9" * 5000 + "}"],
    ids=["surrogate", "deep", "brackets", "digits"],
)
def test_what_a_client_tells_spoils_nothing_for_others(server: Any, info: str) -> None:
    url = f"{server.url}/datastore/image/info?image=ras"
    assert requests.put(url, data={"info": info}, timeout=WAIT_S).status_code in (200, 400)
    assert requests.get(f"{server.url}/datastore/?output=all", timeout=WAIT_S).ok
    assert requests.get(url, timeout=WAIT_S).ok


def test_a_client_does_not_choose_the_next_image(server: Any) -> None:
    url = f"{server.url}/datastore/image/info?image=ras"
    told = {"uncertainty": "abc", "uncertainty_of": 1, "strategy": "x", "mine": 3}
    assert requests.put(url, data={"info": json.dumps(told)}, timeout=WAIT_S).ok
    kept = requests.get(url, timeout=WAIT_S).json()
    assert kept["mine"] == 3
    assert kept.get("uncertainty") != "abc"
    assert kept.get("strategy") != "x"


def test_folders_and_links_are_left_alone(server: Any) -> None:
    studies = server.temporary.parent / "studies"
    (studies / "tree.nii.gz").mkdir()
    (studies / "tree.nii.gz" / "precious.txt").write_text("x", encoding="utf-8")
    (studies / "linked.nii.gz").symlink_to(studies / "lps.nii.gz")
    (studies / "outside.nii.gz").symlink_to(studies.parent / "secret.nii.gz")
    end = time.monotonic() + 30
    while "linked" not in (
        known := requests.get(f"{server.url}/datastore/?output=all", timeout=WAIT_S).json()["objects"]
    ):
        assert time.monotonic() < end, "the folder is watched"
        time.sleep(0.2)
    assert "tree" not in known
    assert "outside" not in known
    for image in ("tree", "linked", "outside"):
        assert refused(requests.delete(f"{server.url}/datastore/?id={image}", timeout=WAIT_S))
    assert (studies / "tree.nii.gz" / "precious.txt").is_file()
    assert (studies / "lps.nii.gz").is_file()
    for name in ("linked", "outside"):
        (studies / f"{name}.nii.gz").unlink()


@pytest.mark.parametrize("tag", ["final", "other"])
def test_a_label_is_read_whatever_its_tag(server: Any, tag: str) -> None:
    sent = {"label": ("label.nii.gz", b"<html>")}
    assert refused(requests.put(f"{server.url}/datastore/label?image=ras&tag={tag}", files=sent, timeout=WAIT_S))


def test_the_models_own_tag_is_not_for_clients(server: Any, scans: Path) -> None:
    sent = {"label": ("label.nii.gz", (scans / "labels_of" / "ras.nii.gz").read_bytes())}
    answer = requests.put(f"{server.url}/datastore/label?image=ras&tag=heatmap", files=sent, timeout=WAIT_S)
    assert "kept by the models" in refused(answer)


@pytest.mark.parametrize(
    ("number", "info", "sentence"),
    [(77, None, "ids 77 have no name"), (1, [{"name": "spleen", "idx": 1}], "spleen is told as id 1, but is 2 here")],
)
def test_a_final_label_holds_what_the_models_know(
    server: Any, scans: Path, tmp_path: Path, number: int, info: Any, sentence: str
) -> None:
    import nibabel as nib

    image = nib.load(scans / "labels_of" / "ras.nii.gz")
    values = (np.asanyarray(image.dataobj) > 0).astype(np.uint8) * number
    nib.save(nib.Nifti1Image(values, image.affine, image.header), tmp_path / "n.nii.gz")
    sent = {"label": ("n.nii.gz", (tmp_path / "n.nii.gz").read_bytes())}
    url = f"{server.url}/datastore/label?image=ras&tag=final"
    assert sentence in refused(
        requests.put(url, files=sent, data={"params": json.dumps({"label_info": info})}, timeout=WAIT_S)
    )


@pytest.mark.parametrize("path", ["%00", "x" * 300, "%f0%9f%98%80" * 100])
def test_ohif_answers_names_that_no_file_has(server: Any, path: str) -> None:
    assert requests.get(f"{server.url}/ohif/{path}", timeout=WAIT_S).ok


def test_only_this_machine_is_answered(server: Any) -> None:
    with open("/proc/net/tcp", encoding="ascii") as table:
        places = [line.split()[1] for line in table.readlines()[1:] if line.split()[3] == "0A"]
    own = [place.partition(":")[0] for place in places if int(place.partition(":")[2], 16) == server.port]
    assert own == ["0100007F"]  # 127.0.0.1, little endian


def test_a_folder_has_no_archive_behind_it(server: Any) -> None:
    assert "no archive" in refused(requests.get(f"{server.url}/proxy/dicom/qido/studies", timeout=WAIT_S))


def test_ohif_comes_without_the_rest_of_the_disk(server: Any) -> None:
    page = requests.get(f"{server.url}/ohif/", timeout=WAIT_S)
    assert "'self'" in page.headers["content-security-policy"]
    for path in ("..%2f..%2f..%2fconfig.py", "%2e%2e/%2e%2e/app.py", "..%2f..%2f..%2f..%2f..%2f..%2fetc%2fhostname"):
        assert requests.get(f"{server.url}/ohif/{path}", timeout=WAIT_S).content == page.content


def test_answers_say_nothing_of_where_files_lie(server: Any) -> None:
    root = str(server.temporary.parent)
    for address in (
        "info/",
        "datastore/",
        "datastore/?output=all",
        "datastore/?output=train",
        "datastore/image/info?image=ras",
    ):
        assert root not in requests.get(f"{server.url}/{address}", timeout=WAIT_S).text, address
    told = requests.post(f"{server.url}/infer/ct_segmentation?image=ras&output=json", timeout=WAIT_S).text
    assert root not in told
    assert root not in requests.post(f"{server.url}/activelearning/first", json={}, timeout=WAIT_S).text


def test_a_failure_inside_tells_no_more_than_that(server: Any, scans: Path) -> None:
    weights = server.app / "model" / "segmentation.pt"
    kept = weights.read_bytes()
    try:
        weights.write_bytes(b"damaged")
        sentence = refused(requests.post(f"{server.url}/infer/ct_segmentation?image=ras", timeout=WAIT_S))
        assert str(server.app) not in sentence
        assert "segmentation.pt" in sentence
    finally:
        weights.write_bytes(kept)
    assert requests.post(f"{server.url}/infer/ct_segmentation?image=ras&output=json", timeout=WAIT_S).ok
