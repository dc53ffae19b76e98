"""The bundles' trainings with a scan that goes bad under way: named, replaced, and told at the end."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai.bundle import ConfigWorkflow
from PIL import Image

import monai_ext
from monai_ext.base import InputError, RunError, input_error_in
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
}


@pytest.fixture
def phantoms(tmp_path: Path) -> Path:
    counts = {"training": 4, "validation": 1, "test": 1}
    write_phantoms(tmp_path / "scans", counts, seed=5, shape=(61, 43, 53), spacing_mm=(6.0, 6.0, 6.0))
    return tmp_path / "scans"


def begun(bundle: str, names: tuple[str, ...] = ("train",), **settings: Any) -> ConfigWorkflow:
    paths = [f"{monai_ext.bundle_path(bundle)}/configs/{name}.json" for name in names]
    flow = ConfigWorkflow(config_file=paths, workflow_type="train", **settings)
    flow.initialize()
    return flow


def train(bundle: str, **settings: Any) -> None:
    flow = begun(bundle, **settings)
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


@pytest.mark.parametrize("kept", [0.0, 1.0])
def test_fine_tuning_goes_on_without_a_torn_scan(
    kept: float, phantoms: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    (phantoms / "images" / "phantom_training_01.nii.gz").write_bytes(b"torn")
    settings = {**SEGMENT, "cache_rate": kept, "dataset_dir": str(phantoms), "num_workers": 1}
    train("hi_end_mae_ct_segmentation", **settings, output_dir=str(tmp_path / "run"))
    found = listed(tmp_path / "run")
    good = [(name, kind) for name, kind, _ in found] == [("phantom_training_01", "scan")]
    record_property(
        "fault", ["bundles", f"fine-tuning, scan torn, {kept:.0%} kept in memory", "passed" if good else "silent"]
    )
    assert good
    with pytest.raises((RuntimeError, InputError)) as caught:
        train("hi_end_mae_ct_segmentation", **settings, output_dir=str(tmp_path / "strict"), max_skipped=0)
    stopped = input_error_in(caught.value)
    good = stopped is not None and (kept == 1.0 or stopped.code == "run.skipped") and stopped.case is not None
    record_property(
        "fault", ["bundles", f"fine-tuning, max_skipped 0, {kept:.0%} kept in memory", "caught" if good else "silent"]
    )
    assert good


@pytest.fixture
def adaptation(tmp_path: Path) -> dict[str, Any]:
    """Settings of a small AA-CLIP over 12 pictures of noise, half of them with a bright square."""
    folder, generator, rows = tmp_path / "pictures", np.random.default_rng(11), []
    folder.mkdir()
    for n in range(12):
        picture = generator.integers(60, 140, (37, 29, 3), dtype=np.uint8)
        row: dict[str, Any] = {"image_path": f"ct_{n:02}.png", "label": n % 2, "class_name": "liver"}
        if n % 2:
            mask = np.zeros((37, 29), np.uint8)
            mask[n : n + 12, 5:16] = 255
            picture[mask > 0] = 250
            row["mask_path"] = f"ct_{n:02}_mask.png"
            Image.fromarray(mask).save(folder / row["mask_path"])
        Image.fromarray(picture).save(folder / row["image_path"])
        rows.append(row)
    (folder / "full-shot.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    table = {
        "states": {"normal": ["{}"], "abnormal": ["damaged {}"]},
        "templates": ["a photo of a {}."],
        "datasets": {"toy": {"domain": "Medical", "classes": {"liver": "scan of a liver"}}},
    }
    (folder / "prompts.json").write_text(json.dumps(table), encoding="utf-8")
    return {
        "dataset_dir": str(folder),
        "dataset_name": "toy",
        "prompts": str(folder / "prompts.json"),
        "held_out": 0.25,
        "image_size": 28,
        "architecture": {
            "embed_dim": 16,
            "vision_cfg": {"image_size": 28, "layers": 4, "width": 32, "head_width": 16, "patch_size": 7},
            "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 4},
        },
        "text_epochs": 2,
        "epochs": 2,
        "ckpt_interval": 1,
    }


def with_a_torn_picture(settings: dict[str, Any], part: str, output: Path, **more: Any) -> tuple[ConfigWorkflow, str]:
    """Begin a training, and tear a picture of one part of the data after all were looked at; return its case."""
    names = ("train", "tiny", "tiny_train")
    flow = begun("aa_clip_lesion_localization", names, **{**settings, **more, "output_dir": str(output)})
    flow.parser.get_parsed_content("data_record")
    item = flow.parser.get_parsed_content("items")[part][1]
    picture = Path(item["image"])
    picture.write_bytes(picture.read_bytes()[: picture.stat().st_size // 2])
    return flow, str(item["case"])


@pytest.mark.parametrize("workers", [0, 2])
def test_adapting_clip_goes_on_without_a_torn_picture(
    workers: int, adaptation: dict[str, Any], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    flow, case = with_a_torn_picture(adaptation, "training", tmp_path / "run", num_workers=workers)
    flow.run()
    good = (tmp_path / "run" / "models" / "adapters.safetensors").is_file()
    for folder in (tmp_path / "run" / "stage_1", tmp_path / "run"):
        good &= [(name, kind) for name, kind, _ in listed(folder)] == [(case, "scan")]
    record_property("fault", ["bundles", f"AA-CLIP, torn picture, {workers} workers", "passed" if good else "silent"])
    assert good


@pytest.mark.parametrize(("part", "code"), [("training", "run.skipped"), ("validation", "picture.unreadable")])
def test_adapting_clip_stops_in_a_sentence(
    part: str,
    code: str,
    adaptation: dict[str, Any],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """Where nothing may be skipped; and in validation, whose scores over other pictures would not compare."""
    flow, case = with_a_torn_picture(adaptation, part, tmp_path / "run", max_skipped=int(part == "validation"))
    with pytest.raises((RuntimeError, InputError)) as caught:
        flow.run()
    stopped = input_error_in(caught.value)
    good = stopped is not None and stopped.code == code and case in str(stopped)
    good &= not (tmp_path / "run" / "models" / "adapters.safetensors").exists()
    record_property("fault", ["bundles", f"AA-CLIP, torn {part} picture, none skipped", "caught" if good else "silent"])
    assert good, stopped
