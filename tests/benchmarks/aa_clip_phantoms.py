"""AA-CLIP on phantoms: lesions of organs whose lesions were seen in training, and of organs never seen with one.

    python tests/benchmarks/aa_clip_phantoms.py OUT [--seeds 0 1 2] [--epochs N] [--test-patients 5] [--volumes 4]
        [--set JSON]

Each seed makes its own patients, adapts the small CLIP through the bundle as the demonstration does, and scores
crops of other patients by pixel AUROC, within the organ and within the body, beside what needs no training. With
``--volumes`` it then calibrates on nineteen normal volumes, localizes lesions of 10 mm in others, and counts how
many are found against false candidates. Prints one JSON line a seed, then the means; whatever they say is the result.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from monai_ext.base import SettingError, derive_seed
from monai_ext.demo.adaptation import LOCALIZE, SMALLEST_VOXELS, training_settings, volume_settings
from monai_ext.demo.lesion_crops import CROP_PX, SEEN, UNSEEN
from monai_ext.demo.lesion_lists import write_crops
from monai_ext.demo.lesion_scores import PLACES, SCORERS, LesionScores, score_crops
from monai_ext.demo.lesion_volumes import operating_curve, operating_point, write_normal, write_planted
from monai_ext.demo.localization import learning_crops, scored_crops
from monai_ext.demo.parallel import in_order
from monai_ext.demo.plan import plan_demo
from monai_ext.demo.small_clip import PROMPTS, load_small_clip
from monai_ext.demo.workflow import run_bundle
from monai_ext.metrics import read_calibration
from monai_ext.networks import PromptTable, adapted_clip

NORMAL = 19  # as many as a rate of 0.05 needs


def adapt(folder: Path, seed: int, epochs: int, changes: dict[str, Any]) -> Path:
    """Train both stages, and return the adapters.

    Raises:
        SettingError: the folder holds an earlier run.
    """
    if folder.exists():
        raise SettingError(f"{folder.name}: holds an earlier run; give another folder", code="setting.output")
    listed = write_crops(folder, learning_crops(seed))
    run_bundle(LOCALIZE, ["train"], training_settings(listed, folder / "adaptation", epochs, seed) | changes, True)
    return folder / "adaptation" / "models" / "adapters.safetensors"


def localize(folder: Path, adapters: Path, seed: int, volumes: int) -> dict[str, Any]:
    """Calibrate, localize, and return the operating points."""
    normal = [
        (folder / "normal" / f"normal_{n:02d}.nii.gz", derive_seed(seed, "lesions", "normal", n)) for n in range(NORMAL)
    ]
    in_order(write_normal, normal, "Normal volumes")
    cases = [
        (folder / "volumes" / f"planted_{n}.nii.gz", folder / "truth", derive_seed(seed, "lesions", "planted", n))
        for n in range(volumes)
    ]
    in_order(write_planted, cases, "Volumes with lesions")
    settings = volume_settings(folder / "normal", adapters, folder / "calibration") | {"false_positive_rate": 0.05}
    run_bundle(LOCALIZE, ["inference", "calibrate"], settings, False)
    run_bundle(LOCALIZE, ["inference"], volume_settings(folder / "volumes", adapters, folder / "localizations"), False)
    maps = []
    for path, truth, _ in cases:
        name = path.name.removesuffix(".nii.gz")
        odds = np.asarray(nib.load(folder / "localizations" / name / f"{name}_anomaly.nii.gz").dataobj)
        maps.append((odds, np.asarray(nib.load(truth / f"{name}_lesions.nii.gz").dataobj)))
    threshold = read_calibration(folder / "calibration" / "calibration.json").threshold
    return {
        "calibrated": operating_point(maps, threshold, SMALLEST_VOXELS)._asdict(),
        "curve": [point._asdict() for point in operating_curve(maps, SMALLEST_VOXELS, 12)],
    }


def mean_table(runs: list[LesionScores]) -> list[str]:
    """Return a Markdown table: mean over the seeds, and each seed's figure."""
    lines = ["| scorer | place | seen organs | unseen organs |", "|---|---|---|---|"]
    for scorer in SCORERS:
        for place in PLACES:
            cells = []
            for organs in (SEEN, UNSEEN):
                values = [run.mean(scorer, place, organs) for run in runs]
                cells.append(f"{np.mean(values):.3f} ({', '.join(f'{value:.3f}' for value in values)})")
            lines.append(f"| {scorer} | {place} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Run every seed and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=plan_demo(10).adaptation_epochs, help="of stage 2")
    parser.add_argument("--test-patients", type=int, default=5)
    parser.add_argument("--volumes", type=int, default=0, help="with planted lesions, for each seed")
    parser.add_argument("--set", type=json.loads, default={}, help="JSON of settings of the bundle to change")
    args = parser.parse_args()
    prompts, runs = PromptTable.read(PROMPTS), []
    for seed in args.seeds:
        folder = args.out / f"seed_{seed}"
        adapters = adapt(folder, seed, args.epochs, args.set)
        model, _ = adapted_clip(load_small_clip(CROP_PX), adapters)
        scores = score_crops(model, prompts, scored_crops(seed, args.test_patients))
        runs.append(scores)
        row: dict[str, Any] = {"seed": seed, "auroc": scores.table()}
        if args.volumes:
            row["volumes"] = localize(folder, adapters, seed, args.volumes)
        print(json.dumps(row), flush=True)
    print("\n".join(mean_table(runs)))


if __name__ == "__main__":
    main()
