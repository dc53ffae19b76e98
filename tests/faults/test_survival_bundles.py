"""The bundles' trainings with a scan that goes bad under way: named, replaced, and told at the end."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigWorkflow

import monai_ext
from monai_ext.base import RunError, input_error_in
from monai_ext.volumes import prepare, write_phantoms

pytestmark = pytest.mark.full

SMALL = {
    "network_def#encoder_width": 24,
    "network_def#encoder_depth": 3,
    "network_def#encoder_heads": 3,
    "network_def#taps": [1, 2],
    "image_size": [24, 24, 16],
    "patch_size": [8, 8, 8],
    "batch_size": 2,
    "epochs": 2,
    "warmup_epochs": 1,
    "val_interval": 1,
    "ckpt_interval": 1,
}
PRETRAIN = {
    **SMALL,
    "network_def#decoder_width": 18,
    "network_def#decoder_heads": 3,
    "held_out": 0.3,
    "crops_per_scan": 2,
    "val_crops_per_scan": 1,
}
SEGMENT = {
    **SMALL,
    "network_def#feature_size": 4,
    "network_def#decoder_stride": 1,
    "network_def#taps": [1, 2, 3],
    "spacing_mm": [6.0, 6.0, 6.0],
    "crops_per_scan": 2,
    "cache_rate": 0.0,
}


@pytest.fixture
def phantoms(tmp_path: Path) -> Path:
    counts = {"training": 4, "validation": 1, "test": 1}
    write_phantoms(tmp_path / "scans", counts, seed=5, shape=(61, 43, 53), spacing_mm=(6.0, 6.0, 6.0))
    return tmp_path / "scans"


def train(bundle: str, **settings: Any) -> None:
    path = f"{monai_ext.bundle_path(bundle)}/configs/train.json"
    flow = ConfigWorkflow(config_file=path, workflow_type="train", **settings)
    flow.initialize()
    flow.run()
    flow.finalize()


def listed(folder: Path) -> list[tuple[str, str, str]]:
    rows = [json.loads(line) for line in (folder / "quarantine.jsonl").read_text().splitlines()]
    return [(row["id"], row["kind"], row["code"]) for row in rows]


@pytest.mark.parametrize("workers", [0, 2])
def test_pretraining_goes_on_without_a_torn_volume(
    workers: int,
    phantoms: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = tmp_path / "store"
    assert not prepare(phantoms / "dataset.json", store, spacing_mm=(6.0, 6.0, 6.0), workers=0).exit_code
    torn = sorted(store.glob("phantom_train*.b2nd"))[:2]
    assert len(torn) == 2
    for volume in torn:
        volume.write_bytes(volume.read_bytes()[: volume.stat().st_size // 2])
    settings = {**PRETRAIN, "dataset_dir": str(store), "num_workers": workers}
    train("hi_end_mae_ct_pretrain", **settings, output_dir=str(tmp_path / "run"))
    found = listed(tmp_path / "run")
    good = 0 < len(found) <= 2 and {(kind, code) for _, kind, code in found} == {("scan", "store.altered")}
    record_property(
        "fault", ["bundles", f"pretraining, torn volumes, {workers} workers", "passed" if good else "silent"]
    )
    assert good
    assert f"passed over: {len(found)} scans, see" in capsys.readouterr().out
    with pytest.raises(RuntimeError) as caught:
        train("hi_end_mae_ct_pretrain", **settings, output_dir=str(tmp_path / "strict"), max_skipped=0)
    stopped = input_error_in(caught.value)
    good = isinstance(stopped, RunError) and stopped.code == "run.skipped"
    record_property(
        "fault", ["bundles", f"pretraining, max_skipped 0, {workers} workers", "caught" if good else "silent"]
    )
    assert good


def test_fine_tuning_goes_on_without_a_scan_that_vanished(
    phantoms: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    (phantoms / "images" / "phantom_training_01.nii.gz").write_bytes(b"torn")
    train(
        "hi_end_mae_ct_segmentation",
        **SEGMENT,
        dataset_dir=str(phantoms),
        output_dir=str(tmp_path / "run"),
        num_workers=1,
    )
    found = listed(tmp_path / "run")
    good = [(name, kind) for name, kind, _ in found] == [("phantom_training_01", "scan")]
    record_property(
        "fault", ["bundles", "fine-tuning, scan torn and not kept in memory", "passed" if good else "silent"]
    )
    assert good
