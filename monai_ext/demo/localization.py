"""The second half: adapt a small CLIP to lesions of some organs, and look for lesions in organs it never saw."""

import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import nibabel as nib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from rich.progress import track

from monai_ext.base import check_picture_whole, derive_seed, replacing
from monai_ext.demo.adaptation import LOCALIZE, SMALLEST_VOXELS, training_settings, volume_settings
from monai_ext.demo.lesion_crops import CROP_PX, SEEN, UNSEEN, LesionCrop, cut_anywhere, cut_crops, lesion_phantom
from monai_ext.demo.lesion_figures import anchor_figure, curve_figure, roc_figure, shown_crops, stage_figure
from monai_ext.demo.lesion_lists import write_crops
from monai_ext.demo.lesion_scores import LesionScores, score_crops
from monai_ext.demo.lesion_volumes import operating_curve, operating_point, write_normal, write_planted
from monai_ext.demo.parallel import in_order
from monai_ext.demo.plan import DemoPlan
from monai_ext.demo.result import DemoResult
from monai_ext.demo.small_clip import PROMPTS, load_small_clip
from monai_ext.demo.workflow import run_bundle
from monai_ext.metrics import read_calibration
from monai_ext.networks import AAClip, PromptTable, adapted_clip

TRAINING_PATIENTS, TEST_PATIENTS, NORMAL_PATIENTS = 10, 4, 9
TRAINING_CROPS, TEST_CROPS = 10, 8  # of each organ and patient
ANYWHERE_CROPS = 12  # of each training patient: bowel, muscle and fat must be learned to be normal too
FALSE_POSITIVE_RATE = 0.1  # of normal volumes; nine of them tell no smaller one
PLANTED = "planted"


def demonstrate_localization(result: DemoResult, plan: DemoPlan, seed: int) -> None:
    """Train both stages on crops, score them on other patients, calibrate, and localize in a volume.

    Everything lies in ``lesions/`` of the result's folder; ``lesions/scores.json`` holds the figures.

    Args:
        result: to be filled.
        plan: how much to train.
        seed: chooses phantoms, adapters and every draw.
    """
    folder = result.folder / "lesions"
    adapters = folder / "adaptation" / "models" / "adapters.safetensors"
    with result.stage("lesion patients", "Making patients with lesions"):
        listed = write_crops(folder, learning_crops(seed))
        shown = scored_crops(seed, TEST_PATIENTS)
        _write_volumes(folder, seed)
    with result.stage("adaptation", "Adapting the small CLIP, texts first, then patches"):
        settings = training_settings(listed, folder / "adaptation", plan.adaptation_epochs, seed)
        run_bundle(LOCALIZE, ["train"], settings, True)
    with result.stage("lesion scores", "Scoring lesions of seen and unseen organs"):
        model, _ = adapted_clip(load_small_clip(CROP_PX), adapters)
        prompts = PromptTable.read(PROMPTS)
        scores = score_crops(model, prompts, track(shown, "Scoring", transient=True))
    with result.stage("calibration", "Calibrating on patients without lesions"):
        settings = volume_settings(folder / "normal", adapters, folder / "calibration")
        settings["false_positive_rate"] = FALSE_POSITIVE_RATE
        run_bundle(LOCALIZE, ["inference", "calibrate"], settings, False)
    with result.stage("localization", "Localizing planted lesions"):
        settings = volume_settings(folder / "volumes", adapters, folder / "localizations")
        settings["calibration_file"] = str(folder / "calibration" / "calibration.json")
        run_bundle(LOCALIZE, ["inference"], settings, False)
    with result.stage("figures", "Drawing figures"):
        _write_figures(folder, model, prompts, scores, shown)


def learning_crops(seed: int) -> list[LesionCrop]:
    """Return crops of patients with lesions in seen organs, around those organs and anywhere in the body."""
    jobs = [(seed, "training", number, SEEN, TRAINING_CROPS, ANYWHERE_CROPS) for number in range(TRAINING_PATIENTS)]
    return list(chain.from_iterable(in_order(_patient_crops, jobs, "Training patients")))


def scored_crops(seed: int, patients: int) -> list[LesionCrop]:
    """Return crops of other patients, with lesions in seen and unseen organs."""
    jobs = [(seed, "test", number, SEEN + UNSEEN, TEST_CROPS, 0) for number in range(patients)]
    return list(chain.from_iterable(in_order(_patient_crops, jobs, "Test patients")))


def _patient_crops(job: tuple[int, str, int, tuple[str, ...], int, int]) -> list[LesionCrop]:
    seed, section, number, organs, count, anywhere = job
    own = derive_seed(seed, "lesions", section, number)  # no patient of the first half
    phantom, patient = lesion_phantom(own, organs), f"{section}_{number:02d}"
    crops = [crop for organ in organs for crop in cut_crops(phantom, organ, count, own, patient)]
    return crops + cut_anywhere(phantom, anywhere, own, patient)


def _write_volumes(folder: Path, seed: int) -> None:
    normal = [
        (folder / "normal" / f"normal_{number:02d}.nii.gz", derive_seed(seed, "lesions", "normal", number))
        for number in range(NORMAL_PATIENTS)
    ]
    in_order(write_normal, normal, "Patients without lesions")
    write_planted((folder / "volumes" / f"{PLANTED}.nii.gz", folder / "truth", derive_seed(seed, "lesions", PLANTED)))


def _write_figures(
    folder: Path, model: AAClip, prompts: PromptTable, scores: LesionScores, crops: Sequence[LesionCrop]
) -> None:
    found = folder / "localizations" / PLANTED
    odds = np.asarray(nib.load(found / f"{PLANTED}_anomaly.nii.gz").dataobj)
    lesions = np.asarray(nib.load(folder / "truth" / f"{PLANTED}_lesions.nii.gz").dataobj)
    calibration = read_calibration(folder / "calibration" / "calibration.json")
    point = operating_point([(odds, lesions)], calibration.threshold, SMALLEST_VOXELS)._asdict()
    curve = [one._asdict() for one in operating_curve([(odds, lesions)], SMALLEST_VOXELS)]
    cosines = anchor_cosines(model, prompts)
    for name, figure in (
        ("anchors", anchor_figure(cosines)),
        ("roc", roc_figure(scores)),
        ("stages", stage_figure(model, prompts, shown_crops(crops))),
        ("candidates", curve_figure(curve, point)),
    ):
        with replacing(folder / "figures" / f"{name}.png", check_picture_whole) as temporary:
            FigureCanvasAgg(figure).print_png(temporary)
    figures = {
        "auroc": scores.table(),
        "threshold": calibration.threshold,
        "sentence": calibration.sentence(),
        "planted": len(np.unique(lesions[lesions > 0])),
        "crops": {"seen": scores.count(SEEN), "unseen": scores.count(UNSEEN)},
        "patients": TEST_PATIENTS,
        "normal": NORMAL_PATIENTS,
        "at_threshold": point,
        "curve": curve,
        "anchor_cosines": cosines,
    }
    with replacing(folder / "scores.json") as temporary:
        temporary.write_text(json.dumps(figures, indent=1), encoding="utf-8")


def anchor_cosines(model: AAClip, prompts: PromptTable) -> dict[str, dict[str, float]]:
    """Return, for each class, how alike its normal and abnormal anchors are before and after stage 1."""
    return {
        name: {
            when: float(anchors[:, 0] @ anchors[:, 1])
            for when, adapted in (("before", False), ("after", True))
            for anchors in [model.anchors([prompts.of_class(name)], adapted)[0].detach()]
        }
        for name in prompts.classes("Phantoms")
    }
