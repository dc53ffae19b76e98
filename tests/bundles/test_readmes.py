"""The commands of the bundles' READMEs, as they stand there, in a folder of the user's."""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from fire import Fire
from monai.bundle import scripts
from typer.testing import CliRunner

import monai_ext
from monai_ext.cli.app import app

PRETRAIN, SEGMENT = "hi_end_mae_ct_pretrain", "hi_end_mae_ct_segmentation"
# What MONAI says about any bundle: that a configuration can run code, and that nobody gave the schema's checksum.
pytestmark = [
    pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning"),
    pytest.mark.filterwarnings("ignore:No hash value provided:UserWarning"),
    # MLflow's own database code.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]


def text(bundle: str) -> str:
    """All bash blocks of a bundle's README."""
    readme = (Path(monai_ext.bundle_path(bundle)) / "docs" / "README.md").read_text(encoding="utf-8")
    return "".join(re.findall(r"^```bash\n(.*?)^```", readme, re.MULTILINE | re.DOTALL))


def commands(bundle: str) -> Iterator[list[str]]:
    """Its commands as words; a file's checksum is taken when its command's turn has come."""
    for line in text(bundle).splitlines():
        if line.startswith("CONFIGS="):
            continue
        line = line.replace("$CONFIGS", f"{monai_ext.bundle_path(bundle)}/configs")
        for whole, path in re.findall(r"(\$\(sha256sum (\S+) \| cut -d' ' -f1\))", line):
            content = Path(path).read_bytes() if Path(path).is_file() else b""
            line = line.replace(whole, hashlib.sha256(content).hexdigest())
        assert "$(" not in line, f"a test of this README must learn to expand {line}"
        yield shlex.split(line)


def flags(command: str, settings: dict[str, Any]) -> list[str]:
    """What makes a command small: the sizes of these tests in place of the published ones."""
    if command == "verify_metadata":
        return []
    small = {key: value for key, value in settings.items() if key not in ("dataset_dir", "output_dir")}
    if command == "verify_net_in_out":
        small["_meta_#network_data_format#inputs#image#spatial_shape"] = settings["image_size"]
    return [word for key, value in small.items() for word in (f"--{key}", str(value))]


def walk(bundle: str, settings: dict[str, Any]) -> list[str]:
    """Run all commands but those that start processes of their own; return what was run."""
    done = []
    for words in commands(bundle):
        if words[:3] == ["python", "-m", "monai.bundle"] and words[3] != "verify_metadata":
            Fire(scripts, command=[*words[3:], *flags(words[3], settings)])
        elif words[:3] == ["python", "-m", "monai_ext"]:
            result = CliRunner().invoke(app, words[3:], catch_exceptions=False)
            assert result.exit_code == 0, result.output
        else:
            continue
        done.append(words[3])
    return done


def arrange(folder: Path, phantoms: Path, weights: Path | None = None) -> None:
    """Make what the READMEs take for granted: scans, a data set, and what the demonstration leaves behind."""
    for number in (0, 1):
        name = f"phantom_test_{number:02d}.nii.gz"
        (folder / "SCANS").mkdir(exist_ok=True)
        shutil.copy(phantoms / "images" / name, folder / "SCANS" / name)
    shutil.copytree(phantoms, folder / "DATASET")
    shutil.copytree(phantoms, folder / "monai_ext_demo" / "phantoms")
    for place in ("pretraining", "monai_ext_demo/pretraining"):
        if weights is not None:
            (folder / place / "models").mkdir(parents=True)
            shutil.copy(weights, folder / place / "models" / "model.pt")


def voxels(folder: Path, suffix: str) -> list[np.ndarray]:
    paths = sorted(folder.rglob(f"*_{suffix}.nii.gz"))
    assert len(paths) == 2
    return [np.asarray(nib.load(path).dataobj) for path in paths]


def check_tracking(folder: Path, metric: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/tracked/mlruns.db")
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert run.info.status == "FINISHED"
    losses = client.get_metric_history(run.info.run_id, "train_loss")
    rows = [json.loads(line) for line in (folder / "tracked" / "history.jsonl").read_text().splitlines()]
    assert [loss.step for loss in losses] == list(range(1, rows[-1]["iteration"] + 1))
    found = {point.step: point.value for point in client.get_metric_history(run.info.run_id, metric)}
    assert found == pytest.approx({row["epoch"]: row[metric] for row in rows})
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["config.json"]


def check_pretraining(folder: Path) -> None:
    for one, two in zip(
        voxels(folder / "reconstructions", "reconstruction"),
        voxels(folder / "reconstructions_ts", "reconstruction"),
        strict=True,
    ):
        # HU, rounded: TorchScript may add up in another order.
        assert np.abs(one.astype(int) - two).max() <= 1
    check_tracking(folder, "val_loss")


def check_segmentation(folder: Path) -> None:
    for one, two in zip(
        voxels(folder / "segmentations", "seg"), voxels(folder / "segmentations_ts", "seg"), strict=True
    ):
        np.testing.assert_array_equal(one, two)
    assert (folder / "evaluation" / "scores.csv").is_file()
    check_tracking(folder, "val_mean_dice")


def test_the_commands_of_pretraining(
    tmp_path: Path, phantoms: Path, pretrain: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    arrange(tmp_path, phantoms)
    monkeypatch.chdir(tmp_path)
    done = walk(PRETRAIN, {**pretrain, "spacing_mm": [6.0, 6.0, 6.0]})
    assert done == ["prepare", *["run"] * 4, "ckpt_export", "run", "verify_net_in_out"]
    check_pretraining(tmp_path)


def test_the_commands_of_segmentation(
    tmp_path: Path, phantoms: Path, finetune: dict[str, Any], weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrange(tmp_path, phantoms, weights)
    monkeypatch.chdir(tmp_path)
    done = walk(SEGMENT, finetune)
    assert done == [*["run"] * 5, "ckpt_export", "run", "verify_net_in_out"]
    check_segmentation(tmp_path)


@pytest.mark.parametrize("bundle", [PRETRAIN, SEGMENT])
def test_the_metadata_verify(
    bundle: str,
    shared_facts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shutil.copy(shared_facts / "monai_meta_schema_20240725.json", tmp_path / "meta_schema.json")
    monkeypatch.chdir(tmp_path)
    (words,) = (words for words in commands(bundle) if words[3:4] == ["verify_metadata"])
    Fire(scripts, command=words[3:])
    assert "metadata is verified with no error" in caplog.text


@pytest.mark.full
@pytest.mark.parametrize("bundle", [PRETRAIN, SEGMENT])
def test_the_whole_readme_in_a_shell(
    bundle: str,
    shared_facts: Path,
    tmp_path: Path,
    phantoms: Path,
    pretrain: dict[str, Any],
    finetune: dict[str, Any],
    weights: Path,
) -> None:
    arrange(tmp_path, phantoms, weights if bundle == SEGMENT else None)
    shutil.copy(shared_facts / "monai_meta_schema_20240725.json", tmp_path / "meta_schema.json")
    settings = {**pretrain, "spacing_mm": [6.0, 6.0, 6.0]} if bundle == PRETRAIN else finetune
    lines = ["set -euo pipefail"]
    for command in ("run", "ckpt_export", "verify_net_in_out", "verify_metadata"):
        lines.append(f"{command}=({shlex.join(flags(command, settings))})")
    lines += [
        'python() { if [ "$2" = monai.bundle ]; then declare -n small=$3; set -- "$@" "${small[@]}"; fi',
        'command python "$@"; }',
        # Two processes are enough; their folder is another, for the single one's holds a run by now.
        'torchrun() { command torchrun "${@/#8/2}" "${run[@]}" --output_dir several; }',
        'mlflow() { timeout --signal INT 20 mlflow "$@" --port 0 || [ $? = 124 ]; }',
    ]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-c", "\n".join([*lines, text(bundle)])],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    (check_pretraining if bundle == PRETRAIN else check_segmentation)(tmp_path)
