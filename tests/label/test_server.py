"""The real server, driven by the client that Slicer uses: what comes back is what the bundles write."""

import json
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

pytest.importorskip("monailabel", reason="needs MONAI Label: pip install 'monai-ext[label]'")
import requests
from monailabel.client import MONAILabelClient
from monailabel.client.client import MONAILabelClientException

from monai_ext.volumes import affine_of_itk, largest_shift_mm, read_scan

# MONAI Label's client leaves files and connections for the garbage collector to close.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning"),
]

NAMES = ("ras", "lps", "oblique")
WAIT_S = 300


@pytest.fixture(scope="module")
def client(server: Any, tmp_path_factory: pytest.TempPathFactory) -> MONAILabelClient:
    return MONAILabelClient(server.url, tmpdir=str(tmp_path_factory.mktemp("client")))


@pytest.fixture(scope="module")
def written(models: Path, scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the bundle writes for the same scans."""
    from monai_ext.demo.workflow import run_bundle

    folder = tmp_path_factory.mktemp("written")
    for name in NAMES:
        settings = {
            "dataset_dir": str(scans / f"{name}.nii.gz"),
            "output_dir": str(folder),
            "weights": str(models / "model.pt"),
        }
        run_bundle("hi_end_mae_ct_segmentation", ["inference", "tiny"], settings, False)
    return folder


def test_info_tells_models_and_what_they_are_for(client: MONAILabelClient) -> None:
    told = client.info()
    assert list(told["models"]) == [
        "ct_segmentation",
        "lesion_localization",
        "lesion_heatmap",
        "lesion_candidates",
        "histogram_scribbles",
    ]
    for model in told["models"].values():
        assert "For research use only" in model["description"]
        assert model["dimension"] == 3
    assert told["models"]["ct_segmentation"]["labels"]["kidney_right"] == 3
    assert told["models"]["lesion_localization"]["config"]["class_name"] == ["organ", "liver"]
    assert set(told["strategies"]) == {"first", "random", "uncertainty"}
    assert set(told["scoring"]) == {"dice", "uncertainty"}
    assert list(told["trainers"]) == ["ct_segmentation"]


@pytest.mark.parametrize("name", NAMES)
def test_segmentation_is_what_the_bundle_writes(
    client: MONAILabelClient, written: Path, scans: Path, name: str
) -> None:
    path, told = client.infer("ct_segmentation", name, {})
    got, expected = nib.load(path), nib.load(written / name / f"{name}_seg.nii.gz")
    assert got.get_data_dtype() == expected.get_data_dtype() == np.uint8
    labels = np.asanyarray(expected.dataobj)
    beside = json.loads((written / name / f"{name}_provenance.json").read_text())
    same = ("format", "state", "settings_sha256", "weights_sha256", "inputs", "versions")
    assert {key: told["provenance"][key] for key in same} == {key: beside[key] for key in same}
    assert beside.keys() - told["provenance"].keys() == {"case"}
    assert len(np.unique(labels)) > 2, "random weights that give one label alone would prove nothing"
    assert np.array_equal(np.asanyarray(got.dataobj), labels)
    assert np.array_equal(got.affine, nib.load(scans / f"{name}.nii.gz").affine)
    volumes = json.loads((written / name / f"{name}_seg.json").read_text(encoding="utf-8"))["labels"]
    assert told["volumes_ml"] == {row["name"]: row["volume_ml"] for row in volumes}
    for number, *centre in told["centroids"].values():
        where = np.argwhere(labels == int(number))
        assert np.array_equal(np.round(where.mean(axis=0)).astype(int), [int(value) for value in centre])


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_nrrd_for_viewers_has_the_same_voxels_in_file_order(
    client: MONAILabelClient, written: Path, scans: Path, dtype: str
) -> None:
    asked = {"result_extension": ".nrrd", "result_dtype": dtype, "result_compress": False}
    path, _ = client.infer("ct_segmentation", "oblique", asked)
    image = SimpleITK.ReadImage(path)
    expected = nib.load(written / "oblique" / "oblique_seg.nii.gz")
    assert np.array_equal(SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0), np.asanyarray(expected.dataobj))
    assert largest_shift_mm(expected.shape, affine_of_itk(image), read_scan(scans / "oblique.nii.gz").affine) < 1e-3
    # OHIF reads the bytes after the header as they are.
    raw = Path(path).read_bytes().partition(b"\n\n")[2]
    assert raw == np.asanyarray(expected.dataobj).astype(f"<{dtype[0]}{int(dtype[4:]) // 8}").tobytes(order="F")


def test_an_upload_is_segmented_like_the_same_scan_in_the_folder(server: Any, scans: Path, written: Path) -> None:
    with (scans / "lps.nii.gz").open("rb") as file:
        got = requests.post(f"{server.url}/infer/ct_segmentation?output=image", files={"file": file}, timeout=WAIT_S)
    assert got.ok, got.text
    path = server.temporary.parent / "got.nii.gz"
    path.write_bytes(got.content)
    expected = nib.load(written / "lps" / "lps_seg.nii.gz")
    assert np.array_equal(np.asanyarray(nib.load(path).dataobj), np.asanyarray(expected.dataobj))
    end = time.monotonic() + 20
    while left := list(server.temporary.glob("*.nii.gz")):  # uploads and results go after the answer has gone
        assert time.monotonic() < end, left
        time.sleep(0.1)


def test_a_session_holds_an_image_for_several_requests(
    client: MONAILabelClient, server: Any, scans: Path, written: Path
) -> None:
    session = client.create_session(str(scans / "ras.nii.gz"))["session_id"]
    path, _ = client.infer("ct_segmentation", "", {}, session_id=session)
    expected = nib.load(written / "ras" / "ras_seg.nii.gz")
    assert np.array_equal(np.asanyarray(nib.load(path).dataobj), np.asanyarray(expected.dataobj))
    assert "path" not in client.get_session(session)
    client.remove_session(session)
    with pytest.raises(MONAILabelClientException, match="404"):
        client.get_session(session)


def test_lesion_mask_map_and_candidates_agree(client: MONAILabelClient, server: Any) -> None:
    path, told = client.infer("lesion_localization", "oblique", {"class_name": "liver", "min_volume_mm3": 200})
    mask = np.asanyarray(nib.load(path).dataobj)
    heat = requests.get(f"{server.url}/datastore/label?label=oblique&tag=heatmap", timeout=60)
    assert told["heatmap_tag"] == "heatmap"
    assert heat.ok
    file = server.temporary.parent / "heat.nii.gz"
    file.write_bytes(heat.content)
    odds = np.asanyarray(nib.load(file).dataobj)
    assert odds.shape == mask.shape
    assert np.array_equal(nib.load(file).affine, nib.load(path).affine)
    assert told["class"] == "liver"
    assert told["candidates"], "random adapters find something"
    assert (odds[mask == 1] > told["threshold_log_odds"]).all()
    assert sum(row["voxels"] for row in told["candidates"]) == mask.sum()
    assert "uncalibrated" in told["calibration"]
    assert min(row["volume_mm3"] for row in told["candidates"]) >= 200


def test_candidates_come_as_boxes_in_lps(client: MONAILabelClient) -> None:
    mask_path, _ = client.infer("lesion_localization", "oblique", {})
    path, told = client.infer("lesion_candidates", "oblique", {})
    boxes = json.loads(Path(path).read_text(encoding="utf-8"))["markups"]
    image = nib.load(mask_path)
    where = np.argwhere(np.asanyarray(image.dataobj))
    places = (np.c_[where, np.ones(len(where))] @ image.affine.T)[:, :3] * [-1, -1, 1]
    assert len(boxes) == len(told["candidates"]) > 0
    inside = np.zeros(len(places), bool)
    for box in boxes:
        assert box["coordinateSystem"] == "LPS"
        low, high = (np.add(box["center"], np.multiply(sign / 2, box["size"])) for sign in (-1, 1))
        inside |= ((places >= low) & (places <= high)).all(axis=1)
    assert inside.all()


def test_bands_of_the_map_are_those_of_its_score(client: MONAILabelClient, server: Any) -> None:
    path, told = client.infer("lesion_heatmap", "lps", {})
    heat = requests.get(f"{server.url}/datastore/label?label=lps&tag=heatmap", timeout=60)
    file = server.temporary.parent / "heat.nii.gz"
    file.write_bytes(heat.content)
    scores = 1 / (1 + np.exp(-np.asanyarray(nib.load(file).dataobj, np.float64)))
    bands = np.asanyarray(nib.load(path).dataobj)
    assert bands.any()
    for name, number in told["label_names"].items():
        level = int(name.removeprefix("score over ").partition("%")[0]) / 100
        assert np.array_equal(bands >= number, scores > level), name


def test_labels_come_back_as_they_were_saved(client: MONAILabelClient, server: Any, scans: Path) -> None:
    told = [{"name": "liver", "idx": 1}, {"name": "spleen"}, {"name": "kidney_right", "idx": 3}]
    for name in NAMES:
        source = scans / "labels_of" / f"{name}.nii.gz"
        assert client.save_label(name, str(source), "final", {"label_info": told})["label"] == name
        got = requests.get(f"{server.url}/datastore/label?label={name}&tag=final", timeout=60)
        assert got.content == source.read_bytes()
        image = requests.get(f"{server.url}/datastore/image?image={name}", timeout=60)
        assert image.content == (scans / f"{name}.nii.gz").read_bytes()


def test_an_image_can_be_added_once_and_removed(client: MONAILabelClient, server: Any, scans: Path) -> None:
    assert client.upload_image(str(scans / "ras.nii.gz"), "another")["image"] == "another"
    with pytest.raises(MONAILabelClientException, match="there is an image of this id"):
        client.upload_image(str(scans / "ras.nii.gz"), "another")
    assert requests.delete(f"{server.url}/datastore/?id=another", timeout=60).ok
    assert "another" not in requests.get(f"{server.url}/datastore/?output=all", timeout=60).json()["objects"]


@pytest.fixture(scope="module")
def scored(client: MONAILabelClient, server: Any, scans: Path) -> dict[str, Any]:
    """Final and original labels of which the Dice is known: the original lacks one class, and half of another."""
    image = nib.load(scans / "labels_of" / "oblique.nii.gz")
    final = np.asanyarray(image.dataobj)
    proposed = final.copy()
    proposed[final == 3] = 0
    ones = np.argwhere(final == 1)
    half = ones[: len(ones) // 2]
    proposed[tuple(half.T)] = 2
    path = server.temporary.parent / "proposed.nii.gz"
    nib.save(nib.Nifti1Image(proposed, image.affine, image.header), path)
    client.save_label("oblique", str(scans / "labels_of" / "oblique.nii.gz"), "final", {})
    client.save_label("oblique", str(path), "original", {})
    got = requests.post(f"{server.url}/scoring/dice?run_sync=true", json={}, timeout=WAIT_S).json()
    return {"got": got["oblique"], "ones": len(ones), "half": len(half), "twos": int((final == 2).sum())}


@pytest.mark.parametrize(
    ("model", "params", "sentence"),
    [
        ("ct_segmentation", {"save_label": True, "label_tag": "final"}, "none until somebody submits it"),
        ("ct_segmentation", {"store_seg": True}, "images in a DICOMweb archive"),
    ],
)
def test_what_cannot_be_kept_is_said_before_the_model_runs(
    client: MONAILabelClient, model: str, params: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(MONAILabelClientException, match=sentence):
        client.infer(model, "ras", params)


def test_dice_is_that_of_each_class_by_closed_form(scored: dict[str, Any]) -> None:
    rest = scored["ones"] - scored["half"]
    expected = {
        "liver": 2 * rest / (scored["ones"] + rest),
        "spleen": 2 * scored["twos"] / (2 * scored["twos"] + scored["half"]),
        "kidney_right": 0.0,
    }
    got = dict(scored["got"])
    mean = got.pop("mean")
    assert got == pytest.approx(expected, abs=1e-12)  # ratios of counts
    assert mean == pytest.approx(sum(expected.values()) / 3, abs=1e-12)


def test_batch_segments_what_has_no_label(client: MONAILabelClient, server: Any, scans: Path, written: Path) -> None:
    client.upload_image(str(scans / "ras.nii.gz"), "fresh")
    for name in NAMES:
        client.save_label(name, str(scans / "labels_of" / f"{name}.nii.gz"), "final", {})
    asked = {"device": "cpu", "multi_gpu": False}
    url = f"{server.url}/batch/infer/ct_segmentation?images=unlabeled&run_sync=true"
    got = requests.post(url, json=asked, timeout=WAIT_S).json()
    assert list(got) == ["fresh"]
    assert got["fresh"]["tag"] == "original"
    label = requests.get(f"{server.url}/datastore/label?label=fresh&tag=original", timeout=60)
    path = server.temporary.parent / "label.nii.gz"
    path.write_bytes(label.content)
    expected = nib.load(written / "ras" / "ras_seg.nii.gz")
    assert np.array_equal(np.asanyarray(nib.load(path).dataobj), np.asanyarray(expected.dataobj))


def test_next_image_is_one_without_a_label(client: MONAILabelClient, server: Any, scans: Path) -> None:
    names = set(requests.get(f"{server.url}/datastore/?output=all", timeout=60).json()["objects"])
    for name in ("first_of_all", "uncertain"):
        if name not in names:
            client.upload_image(str(scans / ("lps.nii.gz" if name == "uncertain" else "ras.nii.gz")), name)
    for name in NAMES:
        client.save_label(name, str(scans / "labels_of" / f"{name}.nii.gz"), "final", {})
    if "fresh" in names:
        requests.delete(f"{server.url}/datastore/?id=fresh", timeout=60)
    first = client.next_sample("first", {})
    assert first["id"] == "first_of_all"
    assert not Path(first["path"]).is_absolute()
    assert client.next_sample("random", {})["id"] in ("first_of_all", "uncertain")
    scores = requests.post(f"{server.url}/scoring/uncertainty?run_sync=true", json={}, timeout=WAIT_S).json()
    assert set(scores) == {"first_of_all", "uncertain"}, scores
    chosen = client.next_sample("uncertainty", {})
    assert chosen["id"] == max(scores, key=scores.__getitem__)
    assert chosen["uncertainty"] == max(scores.values())
    assert all(0 < value < np.log(9) for value in scores.values())  # nats of nine classes


def test_training_replaces_the_weights_and_keeps_those_before(
    client: MONAILabelClient, server: Any, scans: Path
) -> None:
    for name in NAMES:
        client.save_label(name, str(scans / "labels_of" / f"{name}.nii.gz"), "final", {})
    weights = server.app / "model" / "segmentation.pt"
    before = weights.read_bytes()
    labels, _ = client.infer("ct_segmentation", "ras", {})
    url = f"{server.url}/train/ct_segmentation"
    got = requests.post(f"{url}?run_sync=true", json={"max_epochs": 1, "device": "cpu"}, timeout=WAIT_S)
    assert got.ok, got.text
    assert got.json() == {"scans": 3, "epochs": 1, "pretrained": True, "best_val_mean_dice": pytest.approx(0.0, abs=1)}
    assert weights.read_bytes() != before
    assert (server.app / "model" / "segmentation_before.pt").read_bytes() == before
    again, _ = client.infer("ct_segmentation", "ras", {})
    assert not np.array_equal(nib.load(labels).dataobj, nib.load(again).dataobj), "the new weights are used at once"
    trained = weights.read_bytes()
    task = requests.post(url, json={"max_epochs": 1, "device": "cpu", "pretrained": False}, timeout=60).json()
    assert task["status"] in ("SUBMITTED", "RUNNING")
    end = time.monotonic() + WAIT_S
    while (state := requests.get(f"{server.url}/train/", timeout=60).json())["status"] in ("SUBMITTED", "RUNNING"):
        assert time.monotonic() < end, state
        time.sleep(0.5)
    assert state["status"] == "DONE", state
    assert weights.read_bytes() != trained
    assert client.info()["train_stats"]["ct_segmentation"]["pretrained"] is False


def test_scribbles_grow_to_what_they_mark(client: MONAILabelClient, server: Any) -> None:
    shape, affine = (31, 29, 23), np.diag([2.5, 2.5, 5.0, 1.0])
    grid = np.indices(shape) * np.array([2.5, 2.5, 5.0])[:, None, None, None]
    ball = np.linalg.norm(grid - np.array([37.5, 35.0, 55.0])[:, None, None, None], axis=0) < 22
    hu = np.where(ball, 150, -20).astype(np.int16) + np.random.default_rng(3).integers(-9, 9, shape, dtype=np.int16)
    scribbles = np.zeros(shape, np.uint8)
    scribbles[13:18, 12:17, 11] = 3
    scribbles[2, 2:27, :] = 2
    folder = server.temporary.parent
    nib.save(nib.Nifti1Image(hu, affine), folder / "ball.nii.gz")
    nib.save(nib.Nifti1Image(scribbles, affine), folder / "scribbles.nii.gz")
    client.upload_image(str(folder / "ball.nii.gz"), "ball")
    with (folder / "scribbles.nii.gz").open("rb") as file:
        url = f"{server.url}/infer/histogram_scribbles?image=ball&output=image"
        got = requests.post(url, files={"label": file}, timeout=WAIT_S)
    assert got.ok, got.text
    (folder / "grown.nii.gz").write_bytes(got.content)
    grown = nib.load(folder / "grown.nii.gz")
    assert largest_shift_mm(shape, grown.affine, affine) < 1e-3
    assert np.mean((np.asanyarray(grown.dataobj) > 0) == ball) > 0.99  # the edge is a matter of the graph cut
    requests.delete(f"{server.url}/datastore/?id=ball", timeout=60)
