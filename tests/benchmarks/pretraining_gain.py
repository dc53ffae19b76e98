"""What pretraining gives the tiny network on phantoms, at equal numbers of fine-tuning steps.

    python tests/benchmarks/pretraining_gain.py OUT [--seeds 0 1 2] [--pretrain-epochs 20] [--finetune-epochs 20]

A seed makes its own patients, pretrains on those for training, and fine-tunes twice from there: with the
pretrained encoder and without. Both are scored on patients that no training saw. Everything runs through the
bundles. Prints one JSON line a seed, then the means; whatever they say is the result.
"""

import argparse
import csv
import json
import statistics
from pathlib import Path

from monai_ext.demo.workflow import run_bundle
from monai_ext.volumes import prepare, write_phantoms

PRETRAIN, SEGMENT = "hi_end_mae_ct_pretrain", "hi_end_mae_ct_segmentation"
PATIENTS = {"training": 16, "validation": 1, "test": 3}
SHAPE, SPACING_MM = (96, 72, 84), (4.0, 4.0, 4.0)


def pretrain(folder: Path, seed: int, epochs: int) -> float:
    """Pretrain, and return the best validation loss over that of predicting each patch's mean."""
    datalist = write_phantoms(folder / "phantoms", PATIENTS, seed, SHAPE, SPACING_MM)
    prepare(datalist, folder / "store", spacing_mm=SPACING_MM, sections=["training"], workers=1)
    settings = {
        "dataset_dir": str(folder / "store"),
        "output_dir": str(folder / "pretraining"),
        "epochs": epochs,
        "held_out": 0.01,
        "val_crops_per_scan": 16,
        "val_interval": max(1, epochs // 4),
        "preview_interval": epochs,
        "seed": seed,
    }
    run_bundle(PRETRAIN, ["train", "tiny", "tiny_train"], settings, True)
    lines = (folder / "pretraining" / "history.jsonl").read_text(encoding="utf-8").splitlines()
    checks = [line for line in map(json.loads, lines) if "val_loss" in line]
    return min(line["val_loss"] / line["val_loss_of_patch_mean"] for line in checks)


def fine_tune(folder: Path, seed: int, epochs: int, pretrained: Path | None) -> float:
    """Fine-tune, and return the mean Dice over organs and unseen patients."""
    name = "with" if pretrained else "without"
    settings = {
        "dataset_dir": str(folder / "phantoms"),
        "output_dir": str(folder / name),
        "pretrained": str(pretrained) if pretrained else None,
        "epochs": epochs,
        "val_interval": max(1, epochs // 2),
        "seed": seed,
    }
    run_bundle(SEGMENT, ["train", "tiny", "tiny_train"], settings, True)
    scoring = {
        "dataset_dir": str(folder / "phantoms"),
        "output_dir": str(folder / f"{name}_scores"),
        "weights": str(folder / name / "models" / "model.pt"),
    }
    run_bundle(SEGMENT, ["inference", "evaluate", "tiny"], scoring, False)
    with (folder / f"{name}_scores" / "scores.csv").open(encoding="utf-8") as lines:
        means = [row for row in csv.DictReader(lines) if row["case"] == "mean"]  # one a class, over the cases
    return statistics.fmean(float(row["dice"]) for row in means)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--pretrain-epochs", type=int, default=20)
    parser.add_argument("--finetune-epochs", type=int, default=20)
    options = parser.parse_args()
    rows = []
    for seed in options.seeds:
        folder = options.output / f"seed{seed}"
        ratio = pretrain(folder, seed, options.pretrain_epochs)
        weights = folder / "pretraining" / "models" / "model.pt"
        row = {
            "seed": seed,
            "reconstruction_ratio": round(ratio, 4),
            "dice_without": round(fine_tune(folder, seed, options.finetune_epochs, None), 4),
            "dice_with": round(fine_tune(folder, seed, options.finetune_epochs, weights), 4),
        }
        rows.append(row)
        print(json.dumps(row), flush=True)
    means = {key: round(statistics.fmean(row[key] for row in rows), 4) for key in rows[0] if key != "seed"}
    gains = [row["dice_with"] - row["dice_without"] for row in rows]
    print(json.dumps({"seeds": len(rows), **means, "gain": [round(gain, 4) for gain in gains]}))


if __name__ == "__main__":
    main()
