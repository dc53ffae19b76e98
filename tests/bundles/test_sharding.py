"""Pretraining parted among two ranks (FSDP2, gloo, on the CPU) beside the same run copied to each."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import monai_ext

pytestmark = pytest.mark.full

CONFIGS = Path(monai_ext.bundle_path("hi_end_mae_ct_pretrain")) / "configs"


def train(folder: Path, settings: dict[str, Any]) -> None:
    """Run the bundle on two ranks; a hang ends the test by its timeout."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    names = [str(CONFIGS / "train.json"), str(CONFIGS / "multi_gpu_train.json"), "settings.json"]
    command = [str(Path(sys.executable).parent / "torchrun"), "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "monai.bundle", "run", "--config_file", str(names)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=280)
    assert done.returncode == 0, done.stderr


def checkpoint(folder: Path, iteration: int) -> dict[str, Any]:
    return torch.load(folder / "run" / "models" / f"checkpoint_iteration={iteration}.pt", weights_only=True)


@pytest.fixture(scope="module")
def settings(store: Path, pretrain: dict[str, Any]) -> dict[str, Any]:
    more = {"dataset_dir": str(store), "output_dir": "run", "ckpt_keep": 99, "ckpt_interval": 2, "clip_norm": 0.5}
    return {**pretrain, **more, "accumulate": 2}


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, Any]) -> Path:
    folder = tmp_path_factory.mktemp("copied")
    train(folder, settings)
    return folder


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, Any]) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    train(folder, {**settings, "shard": True})
    return folder


def close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert list(ours) == list(theirs)
    for name, value in ours.items():
        # Sums over ranks in another order; AdamW's first steps are the rate times a sign, 1e-4 here.
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=1e-5, msg=name)


def test_it_trains_to_the_same_weights(copied: Path, sharded: Path) -> None:
    close(*(torch.load(one / "run" / "models" / "model.pt", weights_only=True) for one in (sharded, copied)))
    rows = [
        [json.loads(line) for line in (one / "run" / "history.jsonl").read_text().splitlines()]
        for one in (sharded, copied)
    ]
    for ours, theirs in zip(*rows, strict=True):
        assert ours["val_loss"] == pytest.approx(theirs["val_loss"], rel=1e-5)


def test_checkpoints_are_those_of_a_run_that_is_not_parted(copied: Path, sharded: Path) -> None:
    ours, theirs = (checkpoint(one, 4) for one in (sharded, copied))
    assert list(ours) == list(theirs)
    close(ours["model"], theirs["model"])
    one, other = ours["optimizer"], theirs["optimizer"]
    assert one["param_groups"] == other["param_groups"]
    assert list(one["state"]) == list(other["state"])
    for number, values in one["state"].items():
        assert {k: (type(v), v.shape, v.dtype) for k, v in values.items()} == {
            k: (type(v), v.shape, v.dtype) for k, v in other["state"][number].items()
        }


@pytest.mark.parametrize("shard", [True, False])
def test_a_parted_run_resumes_parted_and_copied(
    sharded: Path, settings: dict[str, Any], tmp_path: Path, shard: bool
) -> None:
    middle = sharded / "run" / "models" / "checkpoint_iteration=2.pt"
    train(tmp_path, {**settings, "shard": shard, "resume": str(middle)})
    ours, whole = checkpoint(tmp_path, 4)["model"], checkpoint(sharded, 4)["model"]
    if not shard:
        close(ours, whole)
        return
    assert list(ours) == list(whole)
    assert all(torch.equal(value, whole[name]) for name, value in ours.items())
