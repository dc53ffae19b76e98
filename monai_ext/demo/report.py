"""The demonstration's page: what happened, as pictures and tables, and the commands for one's own data."""

import csv
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from matplotlib.figure import Figure

from monai_ext import __version__
from monai_ext.base import replacing
from monai_ext.demo.lesion_report import lesion_context
from monai_ext.demo.pictures import figure_data, png_data
from monai_ext.demo.plan import DemoPlan
from monai_ext.demo.result import DemoResult
from monai_ext.demo.workflow import bundle_command


def write_report(result: DemoResult, plan: DemoPlan) -> Path:
    """Write ``index.html``, one file that needs nothing beside it.

    Args:
        result: the demonstration's result.
        plan: its sizes.

    Returns:
        the page's path.
    """
    folder = result.folder
    pretraining = _history(folder / "pretraining" / "history.jsonl")
    finetuning = _history(folder / "finetuning" / "history.jsonl")
    last = [row for row in pretraining if "val_loss" in row][-1]
    page = (
        Environment(loader=PackageLoader("monai_ext.demo", "."), autoescape=True, trim_blocks=True)
        .get_template("report.html.j2")
        .render(
            version=__version__,
            minutes=result.minutes,
            seconds=result.seconds,
            total=sum(result.seconds.values()),
            plan=plan,
            iterations=(pretraining[-1]["iteration"], finetuning[-1]["iteration"]),
            val_loss=last["val_loss"],
            ratio=last["val_loss"] / last["val_loss_of_patch_mean"],
            curves=_curves(pretraining, finetuning),
            previews=_previews(folder / "pretraining" / "previews"),
            scores=_scores(folder / "evaluation" / "scores.csv"),
            overlays=_overlays(folder / "segmentations", result.scans),
            notes=result.notes,
            commands=_commands(),
            lesions=lesion_context(folder / "lesions") if plan.adaptation_epochs else None,
        )
    )
    with replacing(folder / "index.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    return folder / "index.html"


def _history(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _curves(pretraining: list[dict[str, Any]], finetuning: list[dict[str, Any]]) -> str:
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([r["iteration"] for r in pretraining], [r["train_loss"] for r in pretraining], label="training")
    valid = [r for r in pretraining if "val_loss" in r]
    left.plot([r["iteration"] for r in valid], [r["val_loss"] for r in valid], "o-", label="held-out scan")
    base = valid[-1]["val_loss_of_patch_mean"]
    left.axhline(base, color="grey", linestyle="--", linewidth=1, label="predicting each patch's mean")
    left.set(title="Pretraining: masked reconstruction", xlabel="iteration", ylabel="mean squared error")
    left.legend(fontsize=8)
    right.plot([r["iteration"] for r in finetuning], [r["train_loss"] for r in finetuning], color="tab:green")
    right.set(title="Fine-tuning: cross-entropy + Dice loss", xlabel="iteration", ylabel="loss")
    return figure_data(figure)


def _previews(folder: Path) -> list[str]:
    pictures = sorted(folder.glob("epoch_*.png"))
    return [png_data(path.read_bytes()) for path in dict.fromkeys([pictures[0], pictures[-1]])] if pictures else []


def _scores(path: Path) -> dict[str, Any]:
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    means = [row for row in rows if row["case"] == "mean"]
    return {
        "cases": list(dict.fromkeys(row["case"] for row in rows if row["case"] != "mean")),
        "means": [
            {
                "organ": row["class"].replace("_", " "),
                "dice": float(row["dice"]),
                "hd95": float(row["hd95_mm"]),
                "surface": float(row["surface_dice"]),
                "by_case": [float(r["dice"]) for r in rows if r["class"] == row["class"] and r["case"] != "mean"],
            }
            for row in means
        ],
        "mean": sum(float(row["dice"]) for row in means) / len(means),
    }


def _overlays(folder: Path, cases: list[str]) -> list[dict[str, str]]:
    found = []
    for case in cases:
        picture = folder / case / f"{case}_seg.png"
        found.append(
            {
                "case": case,
                "file": f"segmentations/{case}/{case}_seg.nii.gz",
                "picture": png_data(picture.read_bytes()),
            }
        )
    return found


def _commands() -> list[tuple[str, str]]:
    pretrain = {"dataset_dir": "store", "output_dir": "pretraining"}
    finetune = {
        "dataset_dir": "MY_LABELLED_SCANS",
        "output_dir": "finetuning",
        "pretrained": "pretraining/models/model.pt",
    }
    segment = {
        "dataset_dir": "MY_SCANS",
        "output_dir": "segmentations",
        "weights": "finetuning/models/model.pt",
    }
    adapt = {
        "dataset_dir": "MY_PICTURES",
        "dataset_name": "MY_SET",
        "prompts": "MY_PROMPTS.json",
        "output_dir": "adaptation",
    }
    return [
        (
            "Prepare a folder of CT scans (NIfTI, NRRD, MHA or DICOM series)",
            "python -m monai_ext prepare MY_SCANS store",
        ),
        ("Pretrain on them", bundle_command("hi_end_mae_ct_pretrain", ["train"], pretrain)),
        (
            "Fine-tune on labelled scans (MY_LABELLED_SCANS/dataset.json lists images and labels)",
            bundle_command("hi_end_mae_ct_segmentation", ["train"], finetune),
        ),
        ("Segment", bundle_command("hi_end_mae_ct_segmentation", ["inference"], segment)),
        (
            "Adapt a CLIP to lesions or defects (MY_PICTURES/full-shot.jsonl lists pictures, masks and classes, "
            "MY_PROMPTS.json names the classes of MY_SET; CLIP's weights come from the hub or --clip_weights FILE)",
            bundle_command("aa_clip_lesion_localization", ["train"], adapt),
        ),
        (
            "Find what looks abnormal in pictures or CT scans",
            "python -m monai_ext localize MY_SCANS --class liver --adapters adaptation/models/adapters.safetensors",
        ),
    ]
