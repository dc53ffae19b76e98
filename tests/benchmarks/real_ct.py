"""Fine-tune the tiny model on a slab of real CT, then segment the slab and an unseen DICOM series.

    python tests/benchmarks/real_ct.py CT_FOLDER OUTPUT [--iterations 600] [--seed 0] [--pretrain 0] [--air 0]

CT_FOLDER holds ``abdomen_slab_3mm.nii.gz`` and the series ``dicom_jpeg2000``, each with its ``_organs.nii.gz`` in
TotalSegmentator's numbers, and for ``--pretrain`` two more scans. Everything runs through the two bundles with
``python -m monai.bundle run``. One scan to learn from says nothing about accuracy: this checks the path.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK

import monai_ext

PRETRAIN, SEGMENT = "hi_end_mae_ct_pretrain", "hi_end_mae_ct_segmentation"
SLAB, SERIES = "abdomen_slab_3mm", "dicom_jpeg2000"
UNLABELLED = ["torso_3mm.nii.gz", "heart_1p5mm.nii.gz", f"{SLAB}.nii.gz"]
# Organs by the numbers of TotalSegmentator's "total" task; the vertebrae become one class.
LABEL_IDS = {
    "liver": 5,
    "spleen": 1,
    "kidney_right": 2,
    "kidney_left": 3,
    "stomach": 6,
    "colon": 20,
    "aorta": 52,
    "vertebrae": [30, 31, 32, 33],
}
LABELS = {str(number): name for number, name in enumerate(["background", *LABEL_IDS])}
STEPS_AN_EPOCH, BATCH = 50, 2
PRETRAIN_STEPS_AN_EPOCH, PRETRAIN_BATCH = 30, 4
# The slab's own 3 mm; a window no taller than its 30 slices, or a third of every crop would be padding.
GEOMETRY = {"spacing_mm": [3.0, 3.0, 3.0], "image_size": [48, 48, 24]}


def run(bundle: str, configs: list[str | Path], settings: dict[str, Any]) -> None:
    """Run a bundle as its README says, from configurations and overrides."""
    folder = Path(monai_ext.bundle_path(bundle)) / "configs"
    files = [str(c) if isinstance(c, Path) else str(folder / f"{c}.json") for c in configs]
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(files)]
    for key, value in settings.items():
        command += [f"--{key}", str(value)]
    subprocess.run(command, check=True)


def pretrain(ct: Path, output: Path, iterations: int, seed: int) -> Path:
    """Pretrain on the scans alone, one of them held out, and return the weights."""
    datalist = output / "scans.json"
    datalist.write_text(json.dumps({"training": [{"image": name} for name in UNLABELLED]}))
    spacing = map(str, GEOMETRY["spacing_mm"])
    prepare = ["prepare", str(datalist), str(output / "store"), "--root", str(ct), "--spacing", *spacing]
    subprocess.run([sys.executable, "-m", "monai_ext", *prepare, "--workers", "0"], check=True)
    epochs = max(2, -(-iterations // PRETRAIN_STEPS_AN_EPOCH))
    settings = {
        "dataset_dir": output / "store",
        "output_dir": output / "pretraining",
        "image_size": GEOMETRY["image_size"],
        "epochs": epochs,
        "warmup_epochs": 1,
        "val_interval": max(1, epochs // 3),
        "batch_size": PRETRAIN_BATCH,
        "crops_per_scan": PRETRAIN_STEPS_AN_EPOCH * PRETRAIN_BATCH // (len(UNLABELLED) - 1),
        "val_crops_per_scan": 16,
        "held_out": 0.01,
        "seed": seed,
    }
    run(PRETRAIN, ["train", "tiny", "tiny_train"], settings)
    return output / "pretraining" / "models" / "model.pt"


def with_air(ct: Path, output: Path, voxels: int) -> Path:
    """Write the slab and its labels with air around the patient, who fills the slab to its edges; return the folder."""
    folder = output / "slab_in_air"
    folder.mkdir(exist_ok=True)
    for name, outside in ((SLAB, -1024), (f"{SLAB}_organs", 0)):
        image = read_itk(ct / f"{name}.nii.gz")
        wide = SimpleITK.ConstantPad(image, [voxels, voxels, 0], [voxels, voxels, 0], outside)
        SimpleITK.WriteImage(wide, str(folder / f"{name}.nii.gz"))
    return folder


def finetune(ct: Path, output: Path, iterations: int, seed: int, pretrained: Path | None) -> Path:
    """Fine-tune on the slab, which validates too, and return the weights."""
    epochs = max(2, -(-iterations // STEPS_AN_EPOCH))
    settings = {
        **GEOMETRY,
        "dataset_dir": ct,
        "data_list_file_path": output / "dataset.json",
        "output_dir": output / "finetuning",
        "epochs": epochs,
        "val_interval": max(1, epochs // 3),
        "batch_size": BATCH,
        "crops_per_scan": STEPS_AN_EPOCH * BATCH,
        "class_weights": [0.2] + [1.0] * len(LABEL_IDS),
        "ckpt_interval": 100_000,
        "seed": seed,
        **({"pretrained": pretrained} if pretrained else {}),
    }
    run(SEGMENT, ["train", "tiny", "tiny_train", output / "organs.json"], settings)
    return output / "finetuning" / "models" / "model.pt"


def segment_and_score(ct: Path, output: Path, weights: Path) -> None:
    """Segment slab and series with ``inference.json``, and score both with ``evaluate.json``."""
    settings = {**GEOMETRY, "weights": weights}
    organs = output / "organs.json"
    for scan in (ct / f"{SLAB}.nii.gz", ct / SERIES):
        place = {"dataset_dir": scan, "output_dir": output / "segmentations", "overlay": True}
        run(SEGMENT, ["inference", "tiny", organs], {**settings, **place})
    place = {"dataset_dir": ct, "data_list_file_path": output / "dataset.json", "output_dir": output / "evaluation"}
    run(SEGMENT, ["inference", "evaluate", "tiny", organs], {**settings, **place})


def write_settings(output: Path) -> None:
    """Write what a user would: the datalist, and the organs with their numbers in the label files."""
    slab = {"image": f"{SLAB}.nii.gz", "label": f"{SLAB}_organs.nii.gz"}
    series = {"image": SERIES, "label": f"{SERIES}_organs.nii.gz"}
    sections = {"training": [slab], "validation": [slab], "test": [slab, series]}
    (output / "dataset.json").write_text(json.dumps(sections, indent=2))
    (output / "organs.json").write_text(json.dumps({"labels": LABELS, "label_ids": LABEL_IDS}, indent=2))


def read_itk(path: Path) -> SimpleITK.Image:
    """Read a file or a DICOM series with SimpleITK, which the package does not read or write NIfTI with."""
    if not path.is_dir():
        return SimpleITK.ReadImage(str(path))
    return SimpleITK.ReadImage(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(path)))


def geometry_error(scan: Path, labels: Path) -> float:
    """Return the largest difference in origin, spacing and direction; infinite where shapes differ."""
    one, two = read_itk(scan), read_itk(labels)
    if one.GetSize() != two.GetSize():
        return float("inf")
    pairs = [(getattr(one, name)(), getattr(two, name)()) for name in ("GetOrigin", "GetSpacing", "GetDirection")]
    return max(float(np.abs(np.subtract(*pair)).max()) for pair in pairs)


def summarise(ct: Path, output: Path) -> dict[str, Any]:
    """Gather Dice and HD95 of the organs that occur in each reference, their mean, and the geometry."""
    rows = list(csv.DictReader((output / "evaluation" / "scores.csv").read_text().splitlines()))
    result: dict[str, Any] = {}
    for case, scan in ((SLAB, ct / f"{SLAB}.nii.gz"), (SERIES, ct / SERIES)):
        present = np.unique(SimpleITK.GetArrayFromImage(read_itk(ct / f"{case}_organs.nii.gz")))
        organs = {name for name, ids in LABEL_IDS.items() if np.isin(ids, present).any()}
        mine = [row for row in rows if row["case"] == case and row["class"] in organs]
        dice = {row["class"]: float(row["dice"]) for row in mine}
        result[case] = {
            "dice": dice,
            "hd95_mm": {row["class"]: float(row["hd95_mm"]) for row in mine},
            "mean_dice": float(np.mean(list(dice.values()))),
            "geometry_error": geometry_error(scan, output / "segmentations" / case / f"{case}_seg.nii.gz"),
        }
    return result


def table(result: dict[str, Any]) -> str:
    """Return the organs as a Markdown table, with a dash where the reference has none."""
    lines = ["| organ | slab, trained on | HD95 mm | DICOM series, unseen | HD95 mm |", "|---|---|---|---|---|"]
    for organ in LABEL_IDS:
        cells = [
            f"{result[case][kind][organ]:.{digits}f}" if organ in result[case]["dice"] else "-"
            for case in (SLAB, SERIES)
            for kind, digits in (("dice", 3), ("hd95_mm", 1))
        ]
        lines.append(f"| {organ} | {' | '.join(cells)} |")
    means = [f"{result[case]['mean_dice']:.3f}" for case in (SLAB, SERIES)]
    return "\n".join([*lines, f"| mean | {means[0]} | | {means[1]} | |"])


def main() -> None:
    """Do the whole, print the table, and leave it in ``real_ct.json`` too."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ct", type=Path, help="folder with the scans and their labels")
    parser.add_argument("output", type=Path, help="folder for everything that is made")
    parser.add_argument("--iterations", type=int, default=600, help="of fine-tuning; rounded up to 50s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pretrain", type=int, default=0, help="iterations of pretraining first, on three scans")
    parser.add_argument(
        "--air", type=int, default=0, help="voxels of air to put around the slab, for scans that show more than it"
    )
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    ct, output = arguments.ct.absolute(), arguments.output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    write_settings(output)
    start = time.monotonic()
    pretrained = pretrain(ct, output, arguments.pretrain, arguments.seed) if arguments.pretrain else None
    slab = with_air(ct, output, arguments.air) if arguments.air else ct
    weights = finetune(slab, output, arguments.iterations, arguments.seed, pretrained)
    segment_and_score(ct, output, weights)
    result = {**summarise(ct, output), "minutes": round((time.monotonic() - start) / 60, 1)}
    (output / "real_ct.json").write_text(json.dumps(result, indent=2))
    print(table(result))
    errors = ", ".join(f"{case} {result[case]['geometry_error']:g}" for case in (SLAB, SERIES))
    print(f"\nlargest difference of origin, spacing and direction: {errors}; {result['minutes']} minutes")


if __name__ == "__main__":
    main()
