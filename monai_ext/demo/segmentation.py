"""The first half: prepare made-up patients, pretrain, fine-tune, evaluate, segment, all through the two bundles."""

from pathlib import Path
from typing import Any

from monai_ext.demo.plan import FINETUNE_STEPS, PRETRAIN_STEPS, DemoPlan
from monai_ext.demo.result import DemoResult
from monai_ext.demo.workflow import run_bundle
from monai_ext.volumes import prepare, write_phantoms

PRETRAIN, SEGMENT = "hi_end_mae_ct_pretrain", "hi_end_mae_ct_segmentation"
SHOWN = "phantom_test_00"  # the patient that is segmented for the report
# Coarse enough that an organ fits into the window of the tiny network, and quick.
SHAPE, SPACING_MM = (96, 72, 84), (4.0, 4.0, 4.0)


def demonstrate_segmentation(result: DemoResult, plan: DemoPlan, seed: int, scans: list[Path], assume_hu: bool) -> None:
    """Go from raw CT to segmentations in the result's folder.

    Args:
        result: to be filled.
        plan: how much to train.
        seed: chooses phantoms, weights and every draw.
        scans: of the user, to segment beside a phantom.
        assume_hu: take the user's scans for HU although they do not look so.
    """
    folder = result.folder
    with result.stage("phantoms", "Making patients"):
        datalist = write_phantoms(folder / "phantoms", plan.patients, seed, SHAPE, SPACING_MM)
    with result.stage("store", "Preparing the volume store"):
        prepare(datalist, folder / "store", spacing_mm=SPACING_MM, sections=["training"], workers=2, progress=True)
    with result.stage("pretraining", "Pretraining on the scans alone"):
        run_bundle(PRETRAIN, ["train", "tiny", "tiny_train"], _pretrain_settings(folder, plan, seed), True)
    with result.stage("finetuning", "Fine-tuning on labelled scans"):
        run_bundle(SEGMENT, ["train", "tiny", "tiny_train"], _finetune_settings(folder, plan, seed), True)
    with result.stage("evaluation", "Scoring unseen patients"):
        run_bundle(SEGMENT, ["inference", "evaluate", "tiny"], _evaluate_settings(folder), False)
    with result.stage("segmentation", "Segmenting"):
        for source in [folder / "phantoms" / "images" / f"{SHOWN}.nii.gz", *scans]:
            settings = _segment_settings(folder, source) | {"assume_hu": assume_hu}
            workflow = run_bundle(SEGMENT, ["inference", "tiny"], settings, False)
            result.scans += workflow.parser.get_parsed_content("step").done


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
