"""The AA-CLIP bundle's training: two stages, resumption, few and broken pictures, several ranks."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from PIL import Image

import monai_ext
from monai_ext.base import InputError
from monai_ext.networks import read_adapters
from monai_ext.networks.clip_anchors import AnchorMaker

BUNDLE = "aa_clip_lesion_localization"
CONFIGS = ["train", "tiny", "tiny_train"]
Run = Callable[..., ConfigWorkflow]
CLASSES = {"candle": "candle", "liver": "scan of a liver"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey noise with bright squares: 4 normal and 4 abnormal pictures of each of 2 classes."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(11)
    rows = []
    for name in CLASSES:
        for label in (0, 1):
            for n in range(4):
                picture = generator.integers(60, 140, (37, 29, 3), dtype=np.uint8)
                row: dict[str, Any] = {"image_path": f"{name}_{label}_{n}.png", "label": label, "class_name": name}
                if label:
                    mask = np.zeros((37, 29), np.uint8)
                    y, x = generator.integers(2, 16, 2)
                    mask[y : y + 12, x : x + 11] = 255
                    picture[mask > 0] = 250
                    row["mask_path"] = f"{name}_{n}_mask.png"
                    Image.fromarray(mask).save(folder / row["mask_path"])
                Image.fromarray(picture).save(folder / row["image_path"])
                rows.append(row)
    (folder / "full-shot.jsonl").write_text("\n".join(map(json.dumps, rows)))
    table = {
        "states": {"normal": ["{}"], "abnormal": ["damaged {}"]},
        "templates": ["a photo of a {}.", "this is a {}."],
        "datasets": {"toy": {"domain": "Medical", "classes": CLASSES}},
    }
    (folder / "prompts.json").write_text(json.dumps(table))
    return folder


@pytest.fixture(scope="module")
def adaptation(pictures: Path) -> dict[str, Any]:
    return {
        "dataset_dir": str(pictures),
        "dataset_name": "toy",
        "prompts": str(pictures / "prompts.json"),
        "image_size": 28,
        "architecture": {
            "embed_dim": 16,
            "vision_cfg": {"image_size": 28, "layers": 4, "width": 32, "head_width": 16, "patch_size": 7},
            "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 4},
        },
        "text_epochs": 2,
        "epochs": 2,
        "ckpt_interval": 1,
        "ckpt_keep": 99,
    }


def run(settings: dict[str, Any], names: list[str] = CONFIGS) -> ConfigWorkflow:
    paths = [str(Path(monai_ext.bundle_path(BUNDLE)) / "configs" / f"{name}.json") for name in names]
    flow = ConfigWorkflow(config_file=paths, workflow_type="train", **settings)
    flow.initialize()
    flow.run()
    flow.finalize()
    return flow


def sentence(caught: pytest.ExceptionInfo[BaseException]) -> str:
    cause: BaseException | None = caught.value
    while cause is not None and not isinstance(cause, InputError):
        cause = cause.__cause__
    return str(cause)


def sha256(folder: Path, name: str = "adapters") -> str:
    return read_adapters(folder / "models" / f"{name}.safetensors")[1].sha256


def history(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(adaptation: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    run({**adaptation, "output_dir": str(folder)})
    return folder


def test_the_zoo_runs_both_stages_and_they_leave_what_the_readme_promises(
    run_flow: Run, adaptation: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    flow = run_flow(BUNDLE, CONFIGS, True, {**adaptation, "output_dir": str(folder)})
    told = capsys.readouterr().out
    for stage, place in ((1, folder / "stage_1"), (2, folder)):
        rows = history(place)
        assert [row["epoch"] for row in rows] == [1, 2]
        assert rows[1]["train_loss"] < rows[0]["train_loss"]
        assert rows[1]["val_loss"] < rows[0]["val_loss"]
        assert {"adapters.safetensors", "last.safetensors", "choice.json"} <= {
            p.name for p in (place / "models").iterdir()
        }
        assert list((place / "tensorboard").iterdir())
        choice = json.loads((place / "models" / "choice.json").read_text())
        assert choice["stage"] == stage
        assert choice["value"] == max(row["val_pixel_ap"] for row in rows)
        assert choice["rule"] in told
    for name in ("adapters.safetensors", "last.safetensors"):
        assert read_adapters(folder / "stage_1" / "models" / name)[1].stage == 1
        assert read_adapters(folder / "models" / name)[1].stage == 2
    record = read_adapters(folder / "models" / "adapters.safetensors")[1]
    assert record.clip == "own configuration/random"
    assert record.prompts is not None
    assert set(record.prompts.datasets["toy"].real_names) == set(CLASSES)
    assert (folder / "models" / "adapters.safetensors").stat().st_size < 100_000  # without the CLIP
    # Every adapter of a stage has moved, and no other: stage 2 keeps the text side that stage 1 chose.
    first, second = (read_adapters(f / "models" / "adapters.safetensors")[0] for f in (folder / "stage_1", folder))
    for name in first:
        assert torch.equal(first[name], second[name]) == name.startswith("text_adapter"), name
    assert not any(parameter.requires_grad for parameter in flow.network_def.clip.model.parameters())


@pytest.mark.parametrize(("stage", "stop"), [(1, 2), (1, 6), (2, 1), (2, 3), (2, 5)])
def test_a_resumed_run_ends_with_the_same_adapters_bit_for_bit(
    adaptation: dict[str, Any], whole: Path, tmp_path: Path, stage: int, stop: int
) -> None:
    place = whole / "stage_1" if stage == 1 else whole
    saved = place / "models" / f"checkpoint_iteration={stop}.pt"
    run({**adaptation, "output_dir": str(tmp_path / "run"), "resume": str(saved)})
    for name in ("adapters", "last"):
        assert sha256(tmp_path / "run", name) == sha256(whole, name)
    assert history(tmp_path / "run")[-1] == history(whole)[-1]
    assert (tmp_path / "run" / "stage_1").exists() == (stage == 1)


def test_better_adapters_than_a_resumed_run_finds_are_kept(
    adaptation: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    content = torch.load(whole / "models" / "checkpoint_iteration=3.pt", weights_only=True)
    content["best"]["best"] = 2.0  # better than any average precision
    torch.save(content, tmp_path / "checkpoint_iteration=3.pt")
    run({**adaptation, "output_dir": str(tmp_path / "run"), "resume": str(tmp_path / "checkpoint_iteration=3.pt")})
    assert json.loads((tmp_path / "run" / "models" / "choice.json").read_text())["epoch"] == 1
    kept = read_adapters(tmp_path / "run" / "models" / "adapters.safetensors")[0]
    assert all(torch.equal(kept[name], tensor) for name, tensor in content["best"]["adapters"].items())
    assert sha256(tmp_path / "run", "last") == sha256(whole, "last")


def test_stages_can_run_alone(adaptation: dict[str, Any], whole: Path, tmp_path: Path) -> None:
    run({**adaptation, "output_dir": str(tmp_path / "one"), "stages": [1]})
    assert sha256(tmp_path / "one" / "stage_1") == sha256(whole / "stage_1")
    assert not (tmp_path / "one" / "models").exists()
    text_adapter = tmp_path / "one" / "stage_1" / "models" / "adapters.safetensors"
    run({**adaptation, "output_dir": str(tmp_path / "two"), "stages": 2, "pretrained": str(text_adapter)})
    assert sha256(tmp_path / "two") == sha256(whole)
    # And an interruption between the stages.
    run({**adaptation, "output_dir": str(tmp_path / "one"), "resume": "true"})
    assert sha256(tmp_path / "one") == sha256(whole)
    with pytest.raises(RuntimeError) as caught:
        run({**adaptation, "output_dir": str(tmp_path / "one")})
    assert "already holds a run at iteration" in sentence(caught)


def test_anchors_are_made_once_for_each_class_in_stage_2(
    adaptation: dict[str, Any], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    features = AnchorMaker.features

    def counted(self: AnchorMaker, *args: Any, **more: Any) -> Any:
        calls.append(args[0])
        return features(self, *args, **more)

    monkeypatch.setattr(AnchorMaker, "features", counted)
    text_adapter = str(whole / "stage_1" / "models" / "adapters.safetensors")
    run({**adaptation, "output_dir": str(tmp_path), "stages": [2], "pretrained": text_adapter})
    assert len(calls) == len(CLASSES)


def test_bfloat16_no_validation_and_several_sets(adaptation: dict[str, Any], pictures: Path, tmp_path: Path) -> None:
    """Without held-out pictures the last epoch is the result; anything a card does differently is in the precision."""
    source = {"list": str(pictures / "full-shot.jsonl"), "dataset": "toy"}
    settings = {"precision": "bf16", "held_out": 0, "text_epochs": 1, "epochs": 1, "accumulate": 2}
    settings["sources"] = [{**source, "classes": ["candle"]}, {**source, "classes": ["liver"]}]
    run({**adaptation, **settings, "output_dir": str(tmp_path)})
    assert sha256(tmp_path) == sha256(tmp_path, "last")
    assert "val_loss" not in history(tmp_path)[0]
    tensors = read_adapters(tmp_path / "models" / "adapters.safetensors")[0]
    assert all(tensor.dtype == torch.float32 and bool(tensor.isfinite().all()) for tensor in tensors.values())


def test_an_all_normal_set_trains_and_keeps_the_last(
    adaptation: dict[str, Any], pictures: Path, tmp_path: Path
) -> None:
    lines = (pictures / "full-shot.jsonl").read_text().splitlines()
    normal = pictures / "normal.jsonl"
    normal.write_text("\n".join(line for line in lines if json.loads(line)["label"] == 0))
    run(
        {
            **adaptation,
            "data_list_file_path": str(normal),
            "output_dir": str(tmp_path),
            "text_epochs": 1,
            "epochs": 1,
        }
    )
    assert math.isnan(history(tmp_path)[0]["val_pixel_ap"])
    assert json.loads((tmp_path / "models" / "choice.json").read_text())["rule"].startswith("the last epoch")


def test_a_sentence_too_long_is_told_before_anything_is_written(
    adaptation: dict[str, Any], pictures: Path, tmp_path: Path
) -> None:
    table = json.loads((pictures / "prompts.json").read_text())
    table["datasets"]["toy"]["classes"] = {**CLASSES, "liver": "very " * 90 + "long liver"}
    (tmp_path / "prompts.json").write_text(json.dumps(table))
    with pytest.raises(RuntimeError) as caught:
        run({**adaptation, "prompts": str(tmp_path / "prompts.json"), "output_dir": str(tmp_path / "run")})
    assert "the CLIP reads 77; shorten the name or the template" in sentence(caught)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"stages": [3]}, "stages: [3]; give [1, 2], [1] or [2]"),
        ({"stages": [2]}, "stages: stage 2 alone needs the text adapter of a stage 1"),
        ({"classes": ["nut"]}, "classes: no source set has 'nut'; choose among candle, liver"),
        ({"dataset_name": "VisA", "prompts": None}, "class 'liver': unknown in VisA"),
        ({"resume": True}, "holds no checkpoint_iteration=N.pt"),
        ({"held_out": 1.5}, "held_out: 1.5 is no share"),
        ({"check_pictures": "perhaps"}, "check_pictures: 'perhaps' is neither true nor false"),
        ({"epochs": 0}, "epochs: 0; give a whole number from 1 on"),
        ({"choose_by": "auc"}, "choose_by: 'auc'; give one of val_pixel_ap"),
        ({"classes": "candle"}, "classes: 'candle'; give a list of names"),
    ],
)
def test_what_the_user_can_mend_is_one_sentence(
    adaptation: dict[str, Any], tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    with pytest.raises(Exception, match=r".") as caught:
        run({**adaptation, "output_dir": str(tmp_path / "run"), **change})
    assert sentence(caught).startswith(expected) or expected in sentence(caught)
    assert not (tmp_path / "run" / "models").exists()
    assert not (tmp_path / "run" / "stage_1" / "models").exists()


def test_the_augmentation_is_the_published_one_and_moves_masks_along(adaptation: dict[str, Any]) -> None:
    parser = ConfigParser()
    configs = Path(monai_ext.bundle_path(BUNDLE)) / "configs"
    parser.read_config([str(configs / "train.json"), str(configs / "tiny.json")])
    chain = parser.get_parsed_content("augmentation")
    turn, shift, across, down = chain.transforms
    assert max(map(abs, turn.rand_rotate.range_x)) == pytest.approx(math.pi / 6)
    assert [float(side) for side in shift.rand_affine.rand_affine_grid.translate_range] == pytest.approx([8.4, 8.4])
    assert [one.prob for one in (turn, shift, across, down)] == [0.5] * 4
    assert [one.flipper.spatial_axis for one in (across, down)] == [1, 0]
    assert not [t for t in parser["stage_1#preprocessing#transforms"] if "Jitter" in str(t)]
    jitter = parser.get_parsed_content("train#preprocessing").transforms[1]
    assert (jitter.strength, jitter.prob) == (0.5, 0.7)
    mask = (torch.rand(1, 56, 56, generator=torch.Generator().manual_seed(3)) > 0.5).to(torch.uint8)
    changed = 0
    for seed in range(12):
        chain.set_random_state(seed)
        out = chain({"image": mask.float().repeat(3, 1, 1), "mask": mask})
        assert torch.equal(out["image"][1], out["mask"][0].float())
        assert set(out["mask"].unique().tolist()) <= {0, 1}
        changed += not torch.equal(out["mask"].as_tensor().to(torch.uint8), mask)
    assert changed >= 8  # one in 16 stays as it was


@pytest.fixture(scope="module")
def ranks(adaptation: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    settings: dict[str, Any] = {**adaptation, "output_dir": "run", "num_workers": 0}
    for section, stage in (("stage_1", 1), ("train", 2)):
        witness = {"_target_": "adaptation_witness.AdaptationWitness", "network": "@network_def"}
        settings[f"+{section}#handlers"] = [{**witness, "folder": "seen", "stage": stage}]
    (folder / "settings.json").write_text(json.dumps(settings))
    names = [f"{monai_ext.bundle_path(BUNDLE)}/configs/{name}.json" for name in (*CONFIGS, "multi_gpu_train")]
    command = [str(Path(sys.executable).parent / "torchrun"), "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "monai.bundle", "run", "--config_file", str([*names, "settings.json"])]
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    environment["CUDA_VISIBLE_DEVICES"] = ""
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=280)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(("stage", "learning"), [(1, "text_adapter"), (2, "image_adapter")])
def test_two_ranks_train_one_model_on_different_pictures(ranks: Path, stage: int, learning: str) -> None:
    one, two = (torch.load(ranks / "seen" / f"stage_{stage}_rank_{n}.pt", weights_only=True) for n in (0, 1))
    assert len(one["steps"]) == len(two["steps"]) == 4  # 12 pictures by fours on two ranks, twice
    for ours, theirs in zip(one["steps"], two["steps"], strict=True):
        assert not torch.equal(ours["image"], theirs["image"])
        moving = [name for name in ours["gradients"] if name.startswith(learning)]
        assert moving
        for name in moving:
            assert torch.equal(ours["gradients"][name], theirs["gradients"][name])
    for name in one["after"]:
        assert torch.equal(one["after"][name], two["after"][name])
        assert torch.equal(one["before"][name], one["after"][name]) != name.startswith(learning)


def test_one_rank_writes_and_every_picture_is_scored(ranks: Path) -> None:
    for place in (ranks / "run" / "stage_1", ranks / "run"):
        assert [row["epoch"] for row in history(place)] == [1, 2]
        choice = json.loads((place / "models" / "choice.json").read_text())
        assert choice["held_out_pictures"] == 4
    last = torch.load(ranks / "seen" / "stage_2_rank_1.pt", weights_only=True)["after"]
    written = read_adapters(ranks / "run" / "models" / "last.safetensors")[0]
    assert all(torch.equal(written[name], last[name]) for name in written)
