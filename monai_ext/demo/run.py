"""The whole way on made-up patients: prepare, pretrain, fine-tune, evaluate, segment, report."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from monai_ext.base import ManifestError, ScanError, SettingError, check_output, replacing
from monai_ext.demo.plan import FINETUNE_STEPS, PRETRAIN_STEPS, DemoPlan, plan_demo
from monai_ext.demo.report import write_report
from monai_ext.demo.workflow import run_bundle
from monai_ext.volumes import find_scans, prepare, read_scan, write_phantoms

PRETRAIN, SEGMENT = "hi_end_mae_ct_pretrain", "hi_end_mae_ct_segmentation"
SHOWN = "phantom_test_00"  # the patient that is segmented for the report
# Coarse enough that an organ fits into the window of the tiny network, and quick.
SHAPE, SPACING_MM = (96, 72, 84), (4.0, 4.0, 4.0)
# Nine classes of float32 logits on the scan's own grid; this many voxels need about 9 GB of memory.
LARGEST_VOXELS = 80_000_000
# Its parts are overwritten by a new demonstration; anything else in the folder is left alone.
_OURS = (
    "phantoms",
    "store",
    "pretraining",
    "finetuning",
    "evaluation",
    "segmentations",
    "demo.json",
    "index.html",
)


@dataclass
class DemoResult:
    """What the report tells.

    Attributes:
        folder: the demonstration's folder.
        minutes: asked for.
        seconds: spent, by stage.
        scans: segmented, by case: phantom or the user's.
        notes: what the user should know, such as a scan left out.
    """

    folder: Path
    minutes: float
    seconds: dict[str, float] = field(default_factory=dict)
    scans: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def run_demo(
    output: str | Path, scan: str | Path | None = None, minutes: float = 5, seed: int = 0, assume_hu: bool = False
) -> DemoResult:
    """Run the demonstration and write ``index.html``.

    Args:
        output: its folder; an earlier demonstration there is replaced, another folder's content refused.
        scan: a CT scan of the user's to segment too, a file or a DICOM series folder.
        minutes: for everything, on two CPU cores; training is scaled to it.
        seed: chooses phantoms, weights and every draw.
        assume_hu: take the user's scan for HU although it does not look so.

    Raises:
        SettingError: too little time, or the folder holds something else, such as the scan.
        ScanError: the scan cannot be used.
        WriteError: the folder cannot be written.
    """
    folder = Path(output).absolute()
    plan = plan_demo(minutes)
    result = DemoResult(folder, minutes)
    check_output(folder)
    chosen = _check_scan(scan, result, assume_hu)
    _make_room(folder)
    with _stage(result, "phantoms", "Making patients"):
        datalist = write_phantoms(folder / "phantoms", plan.patients, seed, SHAPE, SPACING_MM)
    with _stage(result, "store", "Preparing the volume store"):
        prepare(datalist, folder / "store", spacing_mm=SPACING_MM, sections=["training"], workers=2, progress=True)
    with _stage(result, "pretraining", "Pretraining on the scans alone"):
        run_bundle(PRETRAIN, ["train", "tiny", "tiny_train"], _pretrain_settings(folder, plan, seed), True)
    with _stage(result, "finetuning", "Fine-tuning on labelled scans"):
        run_bundle(SEGMENT, ["train", "tiny", "tiny_train"], _finetune_settings(folder, plan, seed), True)
    with _stage(result, "evaluation", "Scoring unseen patients"):
        run_bundle(SEGMENT, ["inference", "evaluate", "tiny"], _evaluate_settings(folder), False)
    with _stage(result, "segmentation", "Segmenting"):
        for source in [folder / "phantoms" / "images" / f"{SHOWN}.nii.gz", *chosen]:
            settings = _segment_settings(folder, source) | {"assume_hu": assume_hu}
            workflow = run_bundle(SEGMENT, ["inference", "tiny"], settings, False)
            result.scans += workflow.parser.get_parsed_content("step").done
    (folder / "demo.json").write_text(json.dumps({"minutes": minutes, "seconds": result.seconds}), encoding="utf-8")
    write_report(result, plan)
    return result


def _pretrain_settings(folder: Path, plan: DemoPlan, seed: int) -> dict[str, Any]:
    scans = plan.patients["training"] - 1  # one is held out
    return {
        "dataset_dir": str(folder / "store"),
        "output_dir": str(folder / "pretraining"),
        "epochs": plan.pretrain_epochs,
        "warmup_epochs": 1,
        "held_out": 0.01,
        "crops_per_scan": -(-PRETRAIN_STEPS * 4 // scans),
        "val_crops_per_scan": 16,
        "val_interval": max(1, plan.pretrain_epochs // 4),
        "preview_interval": 1,
        "ckpt_interval": 100_000,
        "seed": seed,
    }


def _finetune_settings(folder: Path, plan: DemoPlan, seed: int) -> dict[str, Any]:
    return {
        "dataset_dir": str(folder / "phantoms"),
        "output_dir": str(folder / "finetuning"),
        "pretrained": str(folder / "pretraining" / "models" / "model.pt"),
        "epochs": plan.finetune_epochs,
        "crops_per_scan": -(-FINETUNE_STEPS * 2 // plan.patients["training"]),
        "val_interval": max(1, plan.finetune_epochs // 2),
        "ckpt_interval": 100_000,
        "seed": seed,
    }


def _evaluate_settings(folder: Path) -> dict[str, Any]:
    return {
        "dataset_dir": str(folder / "phantoms"),
        "output_dir": str(folder / "evaluation"),
        "weights": str(folder / "finetuning" / "models" / "model.pt"),
    }


def _segment_settings(folder: Path, scan: Path) -> dict[str, Any]:
    return {
        "dataset_dir": str(scan),
        "output_dir": str(folder / "segmentations"),
        "weights": str(folder / "finetuning" / "models" / "model.pt"),
        "overlay": True,
    }


def _check_scan(scan: str | Path | None, result: DemoResult, assume_hu: bool) -> list[Path]:
    """Read the user's scan before minutes are spent, and set aside one that the demonstration cannot hold."""
    if scan is None:
        return []
    found = find_scans(scan)
    if len(found) != 1:
        raise ScanError(
            f"{Path(scan).name}: holds {len(found)} scans and the demo takes one; name one of them",
            code="scan.several",
        )
    path, case = found[0].image, found[0].case
    if found[0].problem:
        raise ManifestError(found[0].problem, code="manifest.entry", case=case)
    if case == SHOWN:
        raise ScanError(f"{case}: a patient of the demo has that name; rename the scan", code="scan.name", case=case)
    if path.resolve().is_relative_to(result.folder.resolve()):
        raise SettingError(
            f"{case}: lies inside the output folder, which a new demo clears; choose another --output",
            code="setting.output",
        )
    voxels = read_scan(path, case=case, assume_hu=assume_hu).voxels.size
    if voxels > LARGEST_VOXELS:
        result.notes.append(
            f"{case} has {voxels / 1e6:.0f} million voxels, more than the {LARGEST_VOXELS / 1e6:.0f} million that "
            "this demonstration segments in memory; it was left out. Crop it, or resample it to 1.5 mm."
        )
        Console(stderr=True).print(result.notes[-1], style="yellow", markup=False)
        return []
    return [path]


def _make_room(folder: Path) -> None:
    """Clear what an earlier demonstration left, also one that was interrupted; nothing else is touched."""
    mark = folder / "demo.json"
    if folder.exists():
        there = sorted(path.name for path in folder.iterdir())
        if there and not mark.exists():
            raise SettingError(
                f"output: {folder.name!r} already holds {there[0]!r}; choose an empty or a new folder",
                code="setting.output",
            )
        for name in _OURS:
            path = folder / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    with replacing(mark) as temporary:
        temporary.write_text("{}", encoding="utf-8")


@contextmanager
def _stage(result: DemoResult, name: str, title: str) -> Iterator[None]:
    Console(stderr=True).rule(title, align="left")
    start = time.monotonic()
    yield
    result.seconds[name] = round(time.monotonic() - start, 1)
