"""AA-CLIP on phantoms: trained on lesions of some organs, scored on those organs and on organs it never saw.

    python tests/benchmarks/aa_clip_phantoms.py OUT [--seeds 0 1 2] [--patients 10] [--test-patients 5]

Each seed makes its own patients, trains both stages through the bundle on crops of the liver, the kidneys and the
heart, and scores crops of other patients: those organs, and the spleen and the lungs, whose lesions neither the
adapters nor the small CLIP saw. Pixel AUROC is the mean over the pictures that hold a lesion: within the organ
(lesion against the rest of the same organ) and within the body. Prints one JSON line a seed, then the means;
whatever they say is the result.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from monai_ext.base import derive_seed
from monai_ext.demo import small_clip
from monai_ext.demo.lesion_crops import SEEN, UNSEEN, Crop, cut_crops, lesion_phantom
from monai_ext.demo.workflow import run_bundle
from monai_ext.metrics import auroc
from monai_ext.networks import AAClip, AnomalyMaps, PromptTable, adapted_clip
from monai_ext.networks.clip_image_side import level_tokens
from monai_ext.transforms import ClipPicture

BUNDLE = "aa_clip_lesion_localization"
MAPS = AnomalyMaps(blur=(3, 0.6))  # the published blur is as wide as a lesion here
SETTINGS: dict[str, Any] = {
    "activation": "gelu",
    "image_size": [112, 112],
    "levels": [1, 2, 3, 4],
    "image_adapt_until": 4,
    "image_adapt_weight": 0.3,
    "text_epochs": 2,
    "text_batch_size": 16,
    "text_learning_rate": 1e-3,
    "epochs": 6,
    "batch_size": 16,
    "learning_rate": 2e-3,
    "betas": [0.9, 0.999],
    "milestones": [120, 180],
    "jitter": 0.3,
    "rotate_prob": 0.0,
    "shift_prob": 0.0,
    "held_out": 0.1,
    "num_workers": 0,
    "score_size": 56,
    "check_pictures": False,
    "ckpt_interval": 100_000,
}


def draw(seed: int, section: str, patients: int, organs: tuple[str, ...], count: int) -> list[tuple[str, Crop]]:
    """Crops of patients of their own, with the patient's name."""
    crops = []
    for patient in range(patients):
        phantom = lesion_phantom(derive_seed(seed, section, patient), organs)
        for organ in organs:
            cut = cut_crops(phantom, organ, count, derive_seed(seed, section, "crops", patient))
            crops += [(f"{section}_{patient}", crop) for crop in cut]
    return crops


def write_pictures(folder: Path, crops: list[tuple[str, Crop]]) -> Path:
    """Write PNGs, masks, and the list that the bundle reads."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, (patient, crop) in enumerate(crops):
        entry = {"image_path": f"{number:04d}.png", "class_name": crop.organ, "group": patient}
        mask = lesion_mask(crop)
        Image.fromarray(crop.picture()).save(folder / entry["image_path"])
        if mask.any():
            Image.fromarray(255 * mask.astype(np.uint8)).save(folder / f"{number:04d}_mask.png")
            entry["mask_path"] = f"{number:04d}_mask.png"
        lines.append(json.dumps(entry | {"label": int(mask.any())}))
    (folder / "list.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "list.jsonl"


def lesion_mask(crop: Crop) -> np.ndarray:
    return (crop.lesions > 0) & crop.of_organ()


def adapt(folder: Path, listed: Path, seed: int, changes: dict[str, Any]) -> AAClip:
    """Train both stages through the bundle."""
    settings = SETTINGS | {
        "dataset_dir": str(listed.parent),
        "data_list_file_path": str(listed),
        "dataset_name": "phantoms",
        "architecture": str(small_clip.CONFIG),
        "clip_weights": str(small_clip.WEIGHTS),
        "prompts_file": str(small_clip.PROMPTS),
        "output_dir": str(folder),
        "device": "cpu",
        "seed": seed,
    }
    run_bundle(BUNDLE, ["train"], settings | changes, True)
    return adapted_clip(small_clip.load_small_clip(), folder / "models" / "adapters.safetensors")[0]


def scorers(model: AAClip) -> dict[str, Callable[[Crop, torch.Tensor], np.ndarray]]:
    """Everything that gives each pixel of a crop a score."""
    prompts = PromptTable.read(small_clip.PROMPTS)

    def adapted(crop: Crop, picture: torch.Tensor) -> np.ndarray:
        anchors = model.anchors([prompts.of_class(crop.organ)])[0]
        return model.localize(picture, anchors, MAPS).anomaly[0, 0].numpy()

    def plain(crop: Crop, picture: torch.Tensor) -> np.ndarray:
        anchors = model.anchors([prompts.of_class(crop.organ)], adapted=False)[0]
        tokens = level_tokens(model.clip.visual, [model.clip.depth], picture)[0] @ model.clip.visual.proj
        odds = torch.nn.functional.normalize(tokens, dim=-1) @ (anchors @ torch.tensor([[-1.0], [1.0]]))
        grid = odds.transpose(1, 2).unflatten(2, model.clip.grid)
        return MAPS(torch.cat([-grid, grid], 1), picture.shape[2:])[0, 0].numpy()

    def values(crop: Crop, picture: torch.Tensor) -> np.ndarray:
        anchors = model.anchors([prompts.of_class(crop.organ)], adapted=False)
        odds = [maps[0, 1] - maps[0, 0] for maps in model.stage1(picture, anchors).maps]
        return torch.stack(odds).sum(0).numpy()

    return {
        "adapted": adapted,
        "CLIP without adapters": plain,
        "CLIP without adapters, value-value": values,
        "bright": lambda crop, picture: crop.hu,
        "dark": lambda crop, picture: -crop.hu,
        "distance from the organ's mean": lambda crop, picture: np.abs(crop.hu - crop.hu[crop.of_organ()].mean()),
        "organ mask": lambda crop, picture: crop.of_organ().astype(np.float32),
    }


@torch.no_grad()
def score(model: AAClip, crops: list[Crop]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean AUROC by scorer, place and organ."""
    show = ClipPicture(112, model.clip.mean, model.clip.std)
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for crop in crops:
        mask = lesion_mask(crop)
        if mask.sum() < 20:
            continue
        picture = show(crop.picture())[None]
        for name, scorer in scorers(model).items():
            values = scorer(crop, picture)
            for place, where in (("organ", crop.of_organ()), ("body", (crop.hu > -400) | crop.of_organ())):
                by_organ = found.setdefault(name, {}).setdefault(place, {})
                by_organ.setdefault(crop.organ, []).append(auroc(mask[where], values[where]))
    return {
        name: {place: {organ: float(np.mean(v)) for organ, v in organs.items()} for place, organs in places.items()}
        for name, places in found.items()
    }


def mean_of(table: dict[str, float], organs: tuple[str, ...]) -> float:
    return round(float(np.mean([table[organ] for organ in organs])), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--patients", type=int, default=10)
    parser.add_argument("--test-patients", type=int, default=5)
    parser.add_argument("--set", type=json.loads, default={}, help="JSON of settings of the bundle to change")
    args = parser.parse_args()
    rows = []
    for seed in args.seeds:
        folder = args.out / f"seed_{seed}"
        listed = folder / "training" / "list.jsonl"
        if not listed.exists():
            write_pictures(listed.parent, draw(seed, "training", args.patients, SEEN, 20))
        model = adapt(folder / "adapted", listed, seed, args.set)
        crops = [crop for _, crop in draw(seed, "test", args.test_patients, SEEN + UNSEEN, 8)]
        scores = score(model, crops)
        rows.append(scores)
        print(json.dumps({"seed": seed} | scores), flush=True)
    for name in rows[0]:
        for place in ("organ", "body"):
            tables = [row[name][place] for row in rows]
            seen, unseen = ([mean_of(table, organs) for table in tables] for organs in (SEEN, UNSEEN))
            print(f"{name:36} {place:6} seen {np.mean(seen):.3f} {seen}  unseen {np.mean(unseen):.3f} {unseen}")


if __name__ == "__main__":
    main()
