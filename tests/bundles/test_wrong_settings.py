"""Values that the command line lets through and no run can use: one sentence each, and nothing is written."""

from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigWorkflow

import monai_ext
from monai_ext.base import SettingError

PRETRAIN, SEGMENT = "hi_end_mae_ct_pretrain", "hi_end_mae_ct_segmentation"


def sentence_of(bundle: str, names: list[str], settings: dict[str, Any]) -> str:
    """Initialise and run; return what the typed error at the bottom of MONAI's wrapping says."""
    folder = Path(monai_ext.bundle_path(bundle)) / "configs"
    files = [str(folder / f"{name}.json") for name in names]
    error: BaseException | None
    try:
        flow = ConfigWorkflow(config_file=files, workflow_type="infer", **settings)
        flow.initialize()
        flow.run()
    except Exception as raised:
        error = raised
    while error is not None and not isinstance(error, SettingError):
        error = error.__cause__
    return str(error)


@pytest.mark.parametrize(
    ("bundle", "names", "name", "value"),
    [
        (PRETRAIN, ["train", "tiny"], "batch_size", 0),
        (PRETRAIN, ["train", "tiny"], "val_interval", 0),
        (PRETRAIN, ["train", "tiny"], "epochs", 1.5),
        (PRETRAIN, ["train", "tiny"], "dataset_dir", 202401),
        (PRETRAIN, ["train", "tiny"], "device", "gpu"),
        (PRETRAIN, ["inference", "tiny"], "mask_seed", "x"),
        (SEGMENT, ["train", "tiny"], "num_workers", -1),
        (SEGMENT, ["train", "tiny"], "seed", "x"),
        (SEGMENT, ["train", "tiny"], "output_dir", 7),
        (SEGMENT, ["inference", "tiny"], "weights", None),
        (SEGMENT, ["inference", "evaluate", "tiny"], "dataset_dir", 202401),
    ],
)
def test_refused_by_name(bundle: str, names: list[str], name: str, value: Any, tmp_path: Path) -> None:
    settings = {"dataset_dir": str(tmp_path / "none"), "output_dir": str(tmp_path / "out"), name: value}
    assert sentence_of(bundle, names, settings).startswith(f"{name}: {value!r}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bundle", [PRETRAIN, SEGMENT])
@pytest.mark.parametrize("names", [["train", "tiny"], ["inference", "tiny"]])
def test_a_precision_that_the_device_lacks(bundle: str, names: list[str], tmp_path: Path) -> None:
    settings = {"output_dir": str(tmp_path / "out"), "device": "cpu", "precision": "fp16"}
    settings |= {"dataset_dir": str(tmp_path / "none"), "weights": "none.pt"}
    assert sentence_of(bundle, names, settings).startswith("precision: fp16 needs a CUDA card and the device is cpu; ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("shard", "sentence"),
    [("true", "shard: true parts the network among ranks"), ("maybe", "shard: 'maybe' is neither")],
)
def test_parting_a_network_without_ranks(
    shard: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    settings = {"dataset_dir": str(tmp_path / "none"), "output_dir": str(tmp_path / "out"), "shard": shard}
    assert sentence_of(PRETRAIN, ["train", "tiny"], settings).startswith(sentence)
    assert not list(tmp_path.iterdir())
