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
    assert "FSDP2-wrapped" not in done.stderr


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


def flat(state: dict[int, dict[str, torch.Tensor]]) -> torch.Tensor:
    return torch.cat([value.flatten() for number in sorted(state) for value in state[number].values()])


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


@pytest.mark.parametrize(("first", "then"), [(True, True), (True, False), (False, True)])
def test_a_run_resumes_parted_or_copied_whichever_it_was(
    copied: Path, sharded: Path, settings: dict[str, Any], tmp_path: Path, first: bool, then: bool
) -> None:
    begun, never_stopped = (sharded if first else copied), (sharded if then else copied)
    middle = begun / "run" / "models" / "checkpoint_iteration=2.pt"
    train(tmp_path, {**settings, "shard": then, "resume": str(middle)})
    ours, theirs = (checkpoint(folder, 4) for folder in (tmp_path, never_stopped))
    assert ours["optimizer"]["param_groups"] == theirs["optimizer"]["param_groups"]
    averages = [flat(one["optimizer"]["state"]) for one in (ours, theirs)]
    if first != then:
        close(ours["model"], theirs["model"])
        # Running averages of gradients clipped to a norm of 0.5 together.
        torch.testing.assert_close(*averages, rtol=1e-3, atol=1e-5)
        return
    assert list(ours["model"]) == list(theirs["model"])
    assert all(torch.equal(value, theirs["model"][name]) for name, value in ours["model"].items())
    assert torch.equal(*averages)


def test_it_trains_without_validation(settings: dict[str, Any], tmp_path: Path) -> None:
    for name, shard in (("parted", True), ("copied", False)):
        train(tmp_path / name, {**settings, "held_out": 0, "shard": shard})
    ours, theirs = (checkpoint(tmp_path / name, 4) for name in ("parted", "copied"))
    close(ours["model"], theirs["model"])
    assert not (tmp_path / "parted" / "run" / "previews").exists()
    rows = [json.loads(line) for line in (tmp_path / "parted" / "run" / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert all("val_loss" not in row for row in rows)
