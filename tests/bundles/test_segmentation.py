"""The segmentation bundle: fine-tune, evaluate, infer, with weights of every kind."""

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from monai.bundle import ConfigWorkflow
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from monai.transforms import Invertd

from monai_ext.base import InputError

BUNDLE = "hi_end_mae_ct_segmentation"
Run = Callable[..., ConfigWorkflow]
LABELS = {str(n): f"organ {n}" if n else "background" for n in range(9)}


@pytest.fixture
def model(run_flow: Run, segment_settings: dict[str, Any], tmp_path: Path) -> tuple[Path, torch.nn.Module]:
    """Weights that were never trained: geometry and plumbing need none."""
    flow = ConfigWorkflow(
        config_file=_configs(["inference", "tiny"]), workflow_type="infer", **segment_settings, labels=LABELS
    )
    flow.initialize()
    network = flow.network_def
    path = tmp_path / "model.pt"
    torch.save(network.state_dict(), path)
    return path, network


def _configs(names: list[str]) -> list[str]:
    import monai_ext

    return [str(Path(monai_ext.bundle_path(BUNDLE)) / "configs" / f"{name}.json") for name in names]


def test_train_evaluate_and_infer(
    run_flow: Run, finetune_settings: dict[str, Any], segment_settings: dict[str, Any], tmp_path: Path
) -> None:
    run_flow(BUNDLE, ["train", "tiny"], True, finetune_settings)
    best = Path(finetune_settings["output_dir"]) / "models" / "model.pt"
    told = json.loads((Path(finetune_settings["output_dir"]) / "provenance.json").read_text())
    datalist = (Path(finetune_settings["dataset_dir"]) / "dataset.json").read_bytes()
    assert told["state"] == "completed"
    assert told["inputs"] == {"datalist_sha256": hashlib.sha256(datalist).hexdigest()}
    common = {**segment_settings, "weights": str(best)}
    data = finetune_settings["dataset_dir"]
    run_flow(
        BUNDLE,
        ["inference", "evaluate", "tiny"],
        False,
        {**common, "dataset_dir": data, "output_dir": str(tmp_path / "scores")},
    )
    rows = list(csv.DictReader((tmp_path / "scores" / "scores.csv").read_text().splitlines()))
    assert {row["case"] for row in rows} == {"phantom_test_00", "phantom_test_01", "mean"}
    assert {row["class"] for row in rows} >= {"liver", "kidney_left"}
    told = json.loads((tmp_path / "scores" / "scores_provenance.json").read_text())
    assert (told["state"], told["cases_done"], told["cases_failed"]) == ("completed", 2, {})
    assert told["weights_sha256"] == {"weights": hashlib.sha256(best.read_bytes()).hexdigest()}
    source = Path(data) / "images" / "phantom_test_00.nii.gz"
    run_flow(
        BUNDLE,
        ["inference", "tiny"],
        False,
        {**common, "dataset_dir": str(source), "output_dir": str(tmp_path / "seg"), "overlay": True},
    )
    folder = tmp_path / "seg" / "phantom_test_00"
    assert {p.name for p in folder.iterdir()} >= {"phantom_test_00_seg.nii.gz", "phantom_test_00_seg.json"}
    labels = nib.load(folder / "phantom_test_00_seg.nii.gz")
    predicted, reference = (
        np.asarray(labels.dataobj),
        np.asarray(nib.load(Path(data) / "labels" / "phantom_test_00.nii.gz").dataobj),
    )
    # The evaluation's Dice is that of the file written, on the scan's own grid.
    for row in rows:
        if row["case"] == "phantom_test_00" and row["dice"] != "nan":
            one, two = predicted == int(row["class_id"]), reference == int(row["class_id"])
            assert float(row["dice"]) == pytest.approx(2 * (one & two).sum() / (one.sum() + two.sum()), abs=1e-5)


def oblique(phantoms: Path, target: Path, codes: str) -> Path:
    """Write a phantom as an oblique, anisotropic scan in another orientation."""
    image = nib.load(phantoms / "images" / "phantom_test_00.nii.gz")
    voxels = np.asarray(image.dataobj)[::1, ::1, ::2]
    turn = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]])
    affine = image.affine @ np.diag([1, 1, 2, 1])
    affine[:3, :3] = turn @ affine[:3, :3]
    plain = nib.Nifti1Image(voxels, affine)
    transform = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes)
    )
    turned = plain.as_reoriented(transform)
    turned.set_qform(turned.affine, code=1)
    turned.set_sform(turned.affine, code=1)
    nib.save(turned, target)
    return target


def whole_then_inverted(flow: ConfigWorkflow, scan: Path) -> np.ndarray:
    """Do what the bundle does with all logits at once, by MONAI's inferer and inverse."""
    content = flow.parser.get_parsed_content
    data = content("preprocessing")({"image": str(scan)})
    inferer = SlidingWindowInferer(content("image_size"), 4, content("overlap"), mode="gaussian")
    with torch.inference_mode():
        data["pred"] = MetaTensor(inferer(data["image"].as_tensor()[None], content("network").eval())[0])
        back = Invertd("pred", content("preprocessing"), orig_keys="image", nearest_interp=False)(data)["pred"]
    return back.argmax(dim=0).numpy()


@pytest.mark.parametrize("skip", [False, pytest.param(True, marks=pytest.mark.full)])
def test_uncertainty_is_told_when_asked_for(
    run_flow: Run,
    model: tuple[Path, torch.nn.Module],
    segment_settings: dict[str, Any],
    phantoms: Path,
    tmp_path: Path,
    skip: bool,
) -> None:
    scan = phantoms / "images" / "phantom_test_01.nii.gz"
    settings = {**segment_settings, "labels": LABELS, "weights": str(model[0]), "output_dir": str(tmp_path / "out")}
    settings |= {"dataset_dir": str(scan), "entropy": True, "skip_air": skip}
    flow = run_flow(BUNDLE, ["inference", "tiny"], False, settings)
    output = flow.parser.get_parsed_content("evaluator").state.output
    assert 0 < float((output[0] if isinstance(output, list) else output)["entropy"]) <= np.log(len(LABELS))


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SAL"])
def test_results_lie_on_the_scans_own_grid(
    run_flow: Run,
    model: tuple[Path, torch.nn.Module],
    segment_settings: dict[str, Any],
    phantoms: Path,
    tmp_path: Path,
    codes: str,
) -> None:
    scan = oblique(phantoms, tmp_path / "scan.nii.gz", codes)
    settings = {**segment_settings, "labels": LABELS, "weights": str(model[0]), "output_dir": str(tmp_path / "out")}
    flow = run_flow(BUNDLE, ["inference", "tiny"], False, {**settings, "dataset_dir": str(scan)})
    found = np.asarray(nib.load(tmp_path / "out" / "scan" / "scan_seg.nii.gz").dataobj)
    expected = whole_then_inverted(flow, scan)
    assert len(np.unique(expected)) > 2
    assert np.mean(found != expected) <= 5e-5  # float32 sums in another order, and places within 1e-4 of a voxel
    source, result = (SimpleITK.ReadImage(str(path)) for path in (scan, tmp_path / "out" / "scan" / "scan_seg.nii.gz"))
    assert result.GetSize() == source.GetSize()
    for name in ("GetOrigin", "GetSpacing", "GetDirection"):
        np.testing.assert_allclose(getattr(result, name)(), getattr(source, name)(), atol=1e-4)  # float32 header


def test_torchscript_and_eager_weights_give_the_same_labels(
    run_flow: Run,
    model: tuple[Path, torch.nn.Module],
    segment_settings: dict[str, Any],
    phantoms: Path,
    tmp_path: Path,
) -> None:
    script = tmp_path / "model.ts"
    torch.jit.script(model[1]).save(str(script))
    digest = hashlib.sha256(script.read_bytes()).hexdigest()
    scan = phantoms / "images" / "phantom_test_01.nii.gz"
    found = []
    for name, extra in (("eager", {"weights": str(model[0])}), ("script", {"weights": str(script)})):
        if name == "script":
            extra["weights_sha256"] = digest
        settings = {**segment_settings, "labels": LABELS, **extra, "dataset_dir": str(scan)}
        run_flow(BUNDLE, ["inference", "tiny"], False, {**settings, "output_dir": str(tmp_path / name)})
        path = tmp_path / name / "phantom_test_01" / "phantom_test_01_seg.nii.gz"
        found.append(np.asarray(nib.load(path).dataobj))
    np.testing.assert_array_equal(*found)


def test_a_broken_scan_is_named_and_the_others_go_on(
    run_flow: Run,
    model: tuple[Path, torch.nn.Module],
    segment_settings: dict[str, Any],
    phantoms: Path,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "Doe^Jane"
    folder.mkdir()
    whole = (phantoms / "images" / "phantom_test_00.nii.gz").read_bytes()
    (folder / "good.nii.gz").write_bytes(whole)
    (folder / "torn.nii.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.nii.gz").write_bytes(b"")
    settings = {**segment_settings, "labels": LABELS, "weights": str(model[0]), "dataset_dir": str(folder)}
    with pytest.raises(RuntimeError) as caught:
        run_flow(BUNDLE, ["inference", "tiny"], False, {**settings, "output_dir": str(tmp_path / "out")})
    cause: BaseException | None = caught.value
    while cause is not None and not isinstance(cause, InputError):
        cause = cause.__cause__
    assert str(cause).startswith("2 of 3 scans failed: ")
    assert "torn: " in str(cause)
    assert "empty: " in str(cause)
    assert "Doe" not in str(cause)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["good", "provenance.json"]
    run = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert (run["state"], run["cases_done"], sorted(run["cases_failed"])) == ("completed", 1, ["empty", "torn"])
    case = json.loads((tmp_path / "out" / "good" / "good_provenance.json").read_text())
    assert case["inputs"] == {"image_sha256": hashlib.sha256(whole).hexdigest()}
    assert case["weights_sha256"] == {"weights": hashlib.sha256(model[0].read_bytes()).hexdigest()}
    assert case["changed_settings"].keys() >= {"labels", "spacing_mm"}
    assert "Doe" not in json.dumps([run, case])


def test_missing_weights_are_one_sentence(
    run_flow: Run, segment_settings: dict[str, Any], phantoms: Path, tmp_path: Path
) -> None:
    settings = {**segment_settings, "weights": str(tmp_path / "none.pt"), "dataset_dir": str(phantoms / "images")}
    with pytest.raises(Exception, match=r"Failed to evaluate|none") as caught:
        run_flow(BUNDLE, ["inference", "tiny"], False, {**settings, "output_dir": str(tmp_path / "out")})
    cause: BaseException | None = caught.value
    while cause is not None and not isinstance(cause, InputError):
        cause = cause.__cause__
    assert str(cause).startswith("none.pt: ")


def test_an_output_folder_that_cannot_be_is_refused_before_a_scan_is_read(
    run_flow: Run, segment_settings: dict[str, Any], finetune_settings: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for names, settings in ((["inference", "tiny"], segment_settings), (["train", "tiny"], finetune_settings)):
        with pytest.raises(RuntimeError) as caught:
            run_flow(BUNDLE, names, "train" in names, {**settings, "output_dir": str(tmp_path / "file" / "out")})
        assert str(caught.value.__cause__) == "out: file is no folder; choose a writable output folder"


def test_a_test_section_whose_entries_are_misspelt_is_not_replaced_by_another(
    run_flow: Run,
    model: tuple[Path, torch.nn.Module],
    segment_settings: dict[str, Any],
    phantoms: Path,
    tmp_path: Path,
) -> None:
    content = json.loads((phantoms / "dataset.json").read_text())
    content["test"] = [{"img": content["test"][0]["image"]}]
    (tmp_path / "list.json").write_text(json.dumps(content))
    settings = {**segment_settings, "labels": LABELS, "weights": str(model[0]), "dataset_dir": str(phantoms)}
    settings |= {"data_list_file_path": str(tmp_path / "list.json"), "output_dir": str(tmp_path / "scores")}
    with pytest.raises(RuntimeError) as caught:
        run_flow(BUNDLE, ["inference", "evaluate", "tiny"], False, settings)
    assert str(caught.value.__cause__).startswith("1 of 1 scans failed: test[0]: the datalist gives no image")
