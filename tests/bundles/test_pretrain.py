"""The pretraining bundle, run the way users and the model zoo run it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow

from monai_ext import bundle_path
from monai_ext.base import SettingError, StoreError, input_error_in

BUNDLE = "hi_end_mae_ct_pretrain"
Run = Callable[..., ConfigWorkflow]


def saved_weights(folder: str, iteration: int) -> dict[str, torch.Tensor]:
    path = Path(folder) / "models" / f"checkpoint_iteration={iteration}.pt"
    content: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["model"]
    return content


def test_training_leaves_what_its_readme_promises(run_flow: Run, pretrain_settings: dict[str, Any]) -> None:
    run_flow(BUNDLE, ["train"], True, pretrain_settings)
    folder = Path(pretrain_settings["output_dir"])
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert all(0 < row["val_loss"] < 5 for row in rows)
    assert (folder / "models" / "model.pt").exists()
    assert sorted(p.name for p in (folder / "previews").iterdir()) == ["epoch_0001.png", "epoch_0002.png"]
    assert list((folder / "tensorboard").iterdir())
    assert len(list((folder / "models").glob("checkpoint_*.pt"))) == 2  # the newest two are kept


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5])
def test_a_resumed_run_ends_with_the_same_weights_bit_for_bit(
    run_flow: Run, pretrain_settings: dict[str, Any], tmp_path: Path, stop: int
) -> None:
    whole = {**pretrain_settings, "output_dir": str(tmp_path / "whole"), "ckpt_keep": 99}
    run_flow(BUNDLE, ["train"], True, whole)
    last = 6  # two epochs of three iterations
    expected = saved_weights(whole["output_dir"], last)
    saved = tmp_path / "whole" / "models" / f"checkpoint_iteration={stop}.pt"
    resumed = {**pretrain_settings, "output_dir": str(tmp_path / "resumed"), "resume": str(saved)}
    run_flow(BUNDLE, ["train"], True, resumed)
    ours = saved_weights(resumed["output_dir"], last)
    assert ours.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(ours[name], tensor), name


def test_training_without_held_out_scans(run_flow: Run, pretrain_settings: dict[str, Any]) -> None:
    run_flow(BUNDLE, ["train"], True, {**pretrain_settings, "held_out": 0})
    rows = (Path(pretrain_settings["output_dir"]) / "history.jsonl").read_text().splitlines()
    assert ["val_loss" in json.loads(row) for row in rows] == [False, False]


def test_shares_of_data_sets_reach_the_plan(run_flow: Run, pretrain_settings: dict[str, Any], tmp_path: Path) -> None:
    run_flow(BUNDLE, ["train"], True, pretrain_settings)
    weighted = {**pretrain_settings, "output_dir": str(tmp_path / "weighted"), "dataset_weights": {"": 7}}
    run_flow(BUNDLE, ["train"], True, weighted)  # one share for all is no share at all
    one, two = (saved_weights(str(settings["output_dir"]), 6) for settings in (pretrain_settings, weighted))
    assert all(torch.equal(one[name], two[name]) for name in one)
    with pytest.raises(RuntimeError) as caught:
        run_flow(BUNDLE, ["train"], True, {**weighted, "output_dir": str(tmp_path / "c"), "dataset_weights": {"a": 1}})
    assert "dataset_weights: no share for ''" in str(input_error_in(caught.value))


def test_the_best_model_survives_a_resume(run_flow: Run, pretrain_settings: dict[str, Any], tmp_path: Path) -> None:
    run_flow(BUNDLE, ["train"], True, pretrain_settings)
    best = Path(pretrain_settings["output_dir"]) / "models" / "model.pt"
    before = best.read_bytes()
    flow = run_flow(
        BUNDLE,
        ["train"],
        True,
        # Learning this fast makes the model worse.
        {**pretrain_settings, "resume": True, "epochs": 3, "learning_rate": 1e-4, "lr_scheduler#epochs": 2},
    )
    keeper = flow.parser.get_parsed_content("best_model")
    rows = [
        json.loads(line) for line in (Path(pretrain_settings["output_dir"]) / "history.jsonl").read_text().splitlines()
    ]
    assert keeper.best == min(row["val_loss"] for row in rows)
    if keeper.epoch <= 2:
        assert best.read_bytes() == before


def test_a_folder_with_a_run_is_not_overwritten(run_flow: Run, pretrain_settings: dict[str, Any]) -> None:
    run_flow(BUNDLE, ["train"], True, pretrain_settings)
    with pytest.raises(RuntimeError) as caught:
        run_flow(BUNDLE, ["train"], True, pretrain_settings)
    cause: BaseException | None = caught.value
    while cause is not None and not isinstance(cause, SettingError):
        cause = cause.__cause__
    assert "already holds a run at iteration 6; pass --resume true" in str(cause)
    with pytest.raises(RuntimeError) as caught:
        run_flow(BUNDLE, ["train"], True, {**pretrain_settings, "resume": True, "learning_rate": 0.5, "spread": 3})
    told = str(input_error_in(caught.value))
    assert "checkpoint_iteration=6.pt: spread was 16 and is now 3; learning_rate was 0.0001 and is now 0.5; " in told


def test_a_volume_prepared_anew_is_noticed_when_the_run_goes_on(
    run_flow: Run, pretrain_settings: dict[str, Any], tmp_path: Path, phantoms: Path, store: Path
) -> None:
    from monai_ext.volumes import prepare

    settings = {**pretrain_settings, "dataset_dir": str(tmp_path / "store")}
    shutil.copytree(store, tmp_path / "store")
    run_flow(BUNDLE, ["train"], True, settings)
    for path in (tmp_path / "store").glob("phantom_training_00*"):
        path.unlink()
    folder = tmp_path / "scans"
    shutil.copytree(phantoms, folder)
    (folder / "images" / "phantom_training_01.nii.gz").replace(folder / "images" / "phantom_training_00.nii.gz")
    assert not prepare(
        folder / "images" / "phantom_training_00.nii.gz", tmp_path / "store", spacing_mm=(6.0, 6.0, 6.0), workers=0
    ).exit_code
    with pytest.raises(RuntimeError) as caught:
        run_flow(BUNDLE, ["train"], True, {**settings, "resume": "auto"})
    told = str(input_error_in(caught.value))
    assert "training data are not those of the run: phantom_training_00 is replaced; put them back" in told


def test_a_store_of_one_scan_cannot_hold_any_out(tmp_path: Path, store: Path) -> None:
    from monai_ext.engines import store_items

    one = tmp_path / "one"
    one.mkdir()
    for path in store.glob("phantom_training_00*"):
        (one / path.name).write_bytes(path.read_bytes())
    with pytest.raises(StoreError, match=r"holds 1 scan\(s\), too few"):
        store_items(str(one), "train", 0.5)
    with pytest.raises(SettingError, match="held_out is half; use"):
        store_items(str(one), "train", "half")  # type: ignore[arg-type]
    assert store_items(str(one), "train", 0) == [{"image": "phantom_training_00"}]


def test_parts_of_a_store_are_disjoint_and_stable(store: Path) -> None:
    from monai_ext.engines import store_items

    parts = [{item["image"] for item in store_items(str(store), part, 0.3)} for part in ("train", "validation")]
    assert not parts[0] & parts[1]
    assert len(parts[0] | parts[1]) == 6
    assert parts[1]


def test_pretraining_begins_from_earlier_weights(pretrain_settings: dict[str, Any], weights: Path) -> None:
    flow = ConfigWorkflow(
        config_file=f"{bundle_path(BUNDLE)}/configs/train.json",
        workflow_type="train",
        **pretrain_settings,
        pretrained=str(weights),
    )
    flow.initialize()
    ours, theirs = flow.parser.get_parsed_content("network").state_dict(), torch.load(weights, weights_only=True)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_inference_reconstructs_on_the_scans_own_grid(
    run_flow: Run, pretrain_settings: dict[str, Any], phantoms: Path, tmp_path: Path
) -> None:
    run_flow(BUNDLE, ["train"], True, pretrain_settings)
    network = {k: v for k, v in pretrain_settings.items() if "network_def" in k or k.endswith("_size")}
    network.pop("batch_size")
    scan = phantoms / "images" / "phantom_test_00.nii.gz"
    run_flow(
        BUNDLE,
        ["inference"],
        False,
        {
            **network,
            "dataset_dir": str(scan),
            "output_dir": str(tmp_path / "out"),
            "weights": str(Path(pretrain_settings["output_dir"]) / "models" / "model.pt"),
            "spacing_mm": [6.0, 6.0, 6.0],
        },
    )
    written = nib.load(tmp_path / "out" / "phantom_test_00" / "phantom_test_00_reconstruction.nii.gz")
    source = nib.load(scan)
    np.testing.assert_allclose(written.affine, source.affine, atol=1e-5)
    hu, ours = np.clip(source.get_fdata(), -175, 250), written.get_fdata()
    # A quarter of the patches is shown as given; rounding to whole HU is all that may differ there.
    assert (np.abs(ours - hu) <= 1).mean() > 0.2
    assert ours.shape == hu.shape
