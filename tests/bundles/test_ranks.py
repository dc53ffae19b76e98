"""Both bundles on two ranks, as ``torchrun`` starts them: gloo, on the CPU, from a folder of the user's."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow

import monai_ext
from monai_ext.losses import MaskedPatchLoss
from monai_ext.networks import HiEndMAE

HERE = Path(__file__).parent
PRETRAIN, SEGMENT = "hi_end_mae_ct_pretrain", "hi_end_mae_ct_segmentation"


def torchrun(
    folder: Path, bundle: str, configs: Sequence[str], settings: dict[str, Any]
) -> subprocess.CompletedProcess[str]:
    """Run a bundle's training on two ranks; a hang ends the test by its timeout."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(settings))
    names = [f"{monai_ext.bundle_path(bundle)}/configs/{name}.json" for name in (*configs, "multi_gpu_train")]
    command = [str(Path(sys.executable).parent / "torchrun"), "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "monai.bundle", "run", "--config_file", str([*names, "settings.json"])]
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=280)


def watched(settings: dict[str, Any], out: str, validation: bool = True) -> dict[str, Any]:
    witness = {"_target_": "witness.Witness", "network": "@network_def", "folder": f"{out}_seen"}
    settings = {**settings, "output_dir": out, "ckpt_keep": 99, "+train#handlers": [witness]}
    if validation:
        settings["+validate#handlers"] = [{"_target_": "witness.ValidationWitness", "folder": f"{out}_seen"}]
    return settings


def seen(folder: Path, out: str = "run") -> list[dict[str, Any]]:
    return [torch.load(folder / f"{out}_seen" / f"rank_{number}.pt", weights_only=True) for number in (0, 1)]


def history(folder: Path, out: str = "run") -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / out / "history.jsonl").read_text().splitlines()]


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture(scope="module")
def pretraining(store: Path, tmp_path_factory: pytest.TempPathFactory, pretrain: dict[str, Any]) -> Path:
    folder = tmp_path_factory.mktemp("pretraining")
    done = torchrun(folder, PRETRAIN, ["train"], watched({**pretrain, "dataset_dir": str(store)}, "run"))
    assert done.returncode == 0, done.stderr
    assert "Grad strides" not in done.stderr
    return folder


def test_ranks_draw_different_crops_and_masks(pretraining: Path) -> None:
    one, two = seen(pretraining)
    assert len(one["steps"]) == len(two["steps"]) == 4
    for ours, theirs in zip(one["steps"], two["steps"], strict=True):
        for name in ("image", "shuffle"):
            assert not torch.equal(ours[name], theirs[name])


def test_gradients_are_the_mean_over_the_ranks(pretraining: Path, pretrain: dict[str, Any]) -> None:
    ranks = seen(pretraining)
    network = HiEndMAE(
        pretrain["image_size"],
        pretrain["patch_size"],
        mask_ratio=0.75,
        **{k.split("#")[1]: v for k, v in pretrain.items() if k.startswith("network_def#")},
        decoder_self_depth=2,
    )
    network.load_state_dict(ranks[0]["before"])
    for part in ranks:
        output = network(part["steps"][0]["image"], part["steps"][0]["shuffle"])
        (MaskedPatchLoss()(output.prediction, output.target) / 2).backward()
    naive = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    for part in ranks:
        assert part["steps"][0]["gradients"].keys() == naive.keys()
        for name, gradient in part["steps"][0]["gradients"].items():
            # The same products, added up in another order.
            torch.testing.assert_close(gradient, naive[name], rtol=1e-4, atol=1e-7)


def test_both_ranks_end_with_the_same_weights_which_one_rank_alone_does_not_reach(
    pretraining: Path, run_flow: Callable[..., ConfigWorkflow], pretrain_settings: dict[str, Any]
) -> None:
    one, two = seen(pretraining)
    assert same(one["before"], two["before"])
    assert same(one["after"], two["after"])
    # One rank sees half of each joint batch, and twice as many steps.
    alone = run_flow(PRETRAIN, ["train"], True, pretrain_settings).network_def.state_dict()
    assert not same(one["after"], alone)


def test_losses_are_means_over_all_ranks(pretraining: Path) -> None:
    last = history(pretraining)[-1]
    losses = [x for n in (0, 1) for x in torch.load(pretraining / "run_seen" / f"validation_{n}.pt", weights_only=True)]
    assert len(losses) == 2  # one batch a rank
    assert last["val_loss"] == pytest.approx(sum(losses) / 2, rel=1e-6)
    training = [float(step["loss"]) for part in seen(pretraining) for step in part["steps"][2:]]
    assert last["train_loss"] == pytest.approx(sum(training) / len(training), rel=1e-6)


def test_only_the_first_rank_writes(pretraining: Path) -> None:
    run = pretraining / "run"
    assert {p.name for p in run.iterdir()} == {"history.jsonl", "models", "previews", "provenance.json", "tensorboard"}
    assert [row["epoch"] for row in history(pretraining)] == [1, 2]
    assert len(list((run / "tensorboard").iterdir())) == 1  # one process, one file


@pytest.mark.full
@pytest.mark.parametrize("stop", [1, pytest.param(2, marks=pytest.mark.full)])
def test_resumed_ranks_end_with_the_weights_of_the_uninterrupted_run(
    pretraining: Path, store: Path, pretrain: dict[str, Any], stop: int
) -> None:
    saved = pretraining / "run" / "models" / f"checkpoint_iteration={stop}.pt"
    settings = {**pretrain, "dataset_dir": str(store), "resume": str(saved)}
    done = torchrun(pretraining, PRETRAIN, ["train"], watched(settings, f"resumed_{stop}"))
    assert done.returncode == 0, done.stderr
    assert same(seen(pretraining, f"resumed_{stop}")[1]["after"], seen(pretraining)[1]["after"])
    for ours, whole in zip(history(pretraining, f"resumed_{stop}")[::-1], history(pretraining)[::-1], strict=False):
        assert ours == pytest.approx(whole, rel=1e-6)  # the mean of an interrupted epoch is that of all of it


@pytest.mark.full
def test_an_error_on_one_rank_ends_both_with_one_sentence(
    tmp_path: Path, store: Path, pretrain: dict[str, Any]
) -> None:
    settings = {**pretrain, "dataset_dir": str(store), "output_dir": "run"}
    settings["+train#handlers"] = [{"_target_": "witness.Trouble"}]
    done = torchrun(tmp_path, PRETRAIN, ["train"], settings)
    assert done.returncode == 1
    assert done.stderr.count("error: ct_007: is torn; copy it again") == 1
    before, _, report = done.stderr.partition("Sending process")  # what torchrun does and says itself follows
    assert "Traceback" not in before
    assert "traceback : ct_007: is torn; copy it again" in report.partition("Root Cause")[2]


@pytest.fixture(scope="module")
def finetuning(phantoms: Path, tmp_path_factory: pytest.TempPathFactory, finetune: dict[str, Any]) -> Path:
    folder = tmp_path_factory.mktemp("finetuning")
    lists = json.loads((phantoms / "dataset.json").read_text())
    three = lists["validation"] + lists["test"]  # for two ranks: one has more to do than the other
    (folder / "dataset.json").write_text(json.dumps({**lists, "validation": three}))
    settings = {**finetune, "dataset_dir": str(phantoms), "data_list_file_path": "dataset.json", "epochs": 1}
    settings["warmup_epochs"] = 0
    done = torchrun(folder, SEGMENT, ["train", "tiny"], watched(settings, "run", validation=False))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.full
def test_ranks_fine_tune_one_model_on_different_crops(finetuning: Path) -> None:
    one, two = seen(finetuning)
    assert same(one["after"], two["after"])
    assert not same(one["before"], one["after"])
    for ours, theirs in zip(one["steps"], two["steps"], strict=True):
        assert not torch.equal(ours["image"], theirs["image"])
        assert same(ours["gradients"], theirs["gradients"])


@pytest.mark.full
def test_validation_scores_every_ranks_cases_as_one_rank_does(
    finetuning: Path, phantoms: Path, finetune: dict[str, Any], tmp_path: Path
) -> None:
    rows = list(csv.DictReader((finetuning / "run" / "validation_scores.csv").read_text().splitlines()))
    assert len(rows) == (3 + 1) * 8
    assert {row["case"] for row in rows} == {"phantom_validation_00", "phantom_test_00", "phantom_test_01", "mean"}
    flow = ConfigWorkflow(
        config_file=[f"{monai_ext.bundle_path(SEGMENT)}/configs/{name}.json" for name in ("train", "tiny")],
        workflow_type="train",
        **{**finetune, "dataset_dir": str(phantoms), "output_dir": str(tmp_path)},
        data_list_file_path=str(finetuning / "dataset.json"),
        pretrained=str(finetuning / "run" / "models" / "model.pt"),
    )
    flow.initialize()
    evaluator = flow.parser.get_parsed_content("validate#evaluator")
    evaluator.run()
    (last,) = history(finetuning)
    for name, value in evaluator.state.metrics.items():
        assert last[name] == pytest.approx(value, rel=1e-6)  # means added up in another order


@pytest.mark.full
def test_fine_tuning_resumes_on_two_ranks(finetuning: Path, phantoms: Path, finetune: dict[str, Any]) -> None:
    saved = finetuning / "run" / "models" / "checkpoint_iteration=1.pt"
    settings = {**finetune, "dataset_dir": str(phantoms), "data_list_file_path": "dataset.json", "epochs": 1}
    settings |= {"warmup_epochs": 0, "resume": str(saved)}
    done = torchrun(finetuning, SEGMENT, ["train", "tiny"], watched(settings, "resumed", validation=False))
    assert done.returncode == 0, done.stderr
    assert same(seen(finetuning, "resumed")[0]["after"], seen(finetuning)[0]["after"])
