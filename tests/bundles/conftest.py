"""Small phantoms, small networks, and workflows the way the model zoo tests them."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

import monai_ext
from monai_ext.volumes import prepare, write_phantoms

SMALL = {"network_def#encoder_width": 24, "network_def#encoder_depth": 3, "network_def#encoder_heads": 3}
PRETRAIN = {
    **SMALL,
    "network_def#decoder_width": 18,
    "network_def#decoder_heads": 3,
    "network_def#taps": [1, 2],
    "image_size": [24, 24, 16],
    "patch_size": [8, 8, 8],
    "num_workers": 0,
    "batch_size": 2,
    "held_out": 0.3,
    "epochs": 2,
    "warmup_epochs": 1,
    "crops_per_scan": 1,
    "val_crops_per_scan": 1,
    "val_interval": 1,
    "preview_interval": 1,
    "ckpt_interval": 1,
}
SEGMENT = {
    **SMALL,
    "network_def#feature_size": 4,
    "network_def#decoder_stride": 1,
    "network_def#taps": [1, 2, 3],
    "image_size": [24, 24, 16],
    "patch_size": [8, 8, 8],
    "spacing_mm": [6.0, 6.0, 6.0],
}
FINETUNE = {
    **SEGMENT,
    "num_workers": 0,
    "batch_size": 2,
    "epochs": 2,
    "warmup_epochs": 1,
    "crops_per_scan": 2,
    "val_interval": 1,
    "ckpt_interval": 1,
}


def configs(bundle: str, names: Sequence[str]) -> list[str]:
    return [str(Path(monai_ext.bundle_path(bundle)) / "configs" / f"{name}.json") for name in names]


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    counts = {"training": 3, "validation": 1, "test": 2}
    write_phantoms(folder, counts, seed=5, shape=(61, 43, 53), spacing_mm=(6.0, 6.0, 6.0))
    return folder


@pytest.fixture(scope="session")
def store(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store") / "store"
    summary = prepare(phantoms / "dataset.json", folder, spacing_mm=(6.0, 6.0, 6.0), workers=0)
    assert not summary.exit_code
    return folder


@pytest.fixture(scope="session")
def pretrain() -> dict[str, Any]:
    return dict(PRETRAIN)


@pytest.fixture(scope="session")
def finetune() -> dict[str, Any]:
    return dict(FINETUNE)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pretraining weights of the size of these tests, never trained."""
    parser = ConfigParser()
    parser.read_config(configs("hi_end_mae_ct_pretrain", ["train"]))
    parser.update(PRETRAIN)
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    torch.save(parser.get_parsed_content("network_def").state_dict(), path)
    return path


@pytest.fixture
def pretrain_settings(store: Path, tmp_path: Path) -> dict[str, Any]:
    return {**PRETRAIN, "dataset_dir": str(store), "output_dir": str(tmp_path / "run")}


@pytest.fixture
def segment_settings() -> dict[str, Any]:
    return dict(SEGMENT)


@pytest.fixture
def finetune_settings(phantoms: Path, tmp_path: Path) -> dict[str, Any]:
    return {**FINETUNE, "dataset_dir": str(phantoms), "output_dir": str(tmp_path / "run")}


@pytest.fixture
def run_flow() -> Callable[..., ConfigWorkflow]:
    """Initialise, check the properties, run and finalise, as the model zoo's own tests do."""

    def run(bundle: str, names: Sequence[str], training: bool, overrides: dict[str, Any]) -> ConfigWorkflow:
        kind = "train" if training else "infer"
        flow = ConfigWorkflow(config_file=configs(bundle, names), workflow_type=kind, **overrides)
        flow.initialize()
        assert not flow.check_properties()
        flow.run()
        flow.finalize()
        assert not [one for one in threading.enumerate() if type(one).__module__.startswith("tensorboard.")]
        return flow

    return run
