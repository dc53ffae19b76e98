"""How well maps find the lesions of crops, beside what needs no training: pixel AUROC within organ and body."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_curve
from torch.nn import functional as F

from monai_ext.demo.lesion_crops import BODY_HU, GENERIC, SEEN, SMALLEST_PX, UNSEEN, LesionCrop
from monai_ext.metrics import auroc
from monai_ext.networks import AAClip, AnomalyMaps, PromptTable
from monai_ext.networks.clip_image_side import level_tokens
from monai_ext.transforms import ClipPicture

Map = npt.NDArray[np.floating]
BLUR = (3, 0.6)  # in patches of 8 mm; the published 1.5 patches of a sigma would be 12 mm and erase lesions
SMOOTH_PX = 2.0  # 4 mm: what the coarse maps average away by their patches, averaged away for plain HU too
ADAPTED, GENERIC_ADAPTED = "AA-CLIP, the organ's name", "AA-CLIP, the word “organ”"
PLAIN = "same CLIP without adapters"
BASELINES = (
    PLAIN,
    "bright (HU)",
    "dark (-HU)",
    "difference from the organ's mean",
    "the same, smoothed by 4 mm",
    "the organ's mask",
)
SCORERS = (ADAPTED, GENERIC_ADAPTED, *BASELINES)
PLACES = ("organ", "body")


RATES = np.linspace(0, 1, 101)  # false positive rates at which ROC curves are averaged


@dataclass
class LesionScores:
    """Pixel AUROC of every crop with a lesion.

    Attributes:
        values: by scorer, place and organ, one number a crop.
        curves: by scorer and organ, sensitivity within the organ at `RATES`, one row a crop.
    """

    values: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    curves: dict[str, dict[str, list[Map]]] = field(default_factory=dict)

    def add(self, scorer: str, place: str, organ: str, value: float) -> None:
        """Add one crop's AUROC."""
        self.values.setdefault(scorer, {}).setdefault(place, {}).setdefault(organ, []).append(value)

    def add_curve(self, scorer: str, organ: str, lesion: npt.NDArray[np.bool_], values: Map) -> None:
        """Add one crop's ROC curve."""
        false, true, _ = roc_curve(lesion, values)
        self.curves.setdefault(scorer, {}).setdefault(organ, []).append(np.interp(RATES, false, true))

    def mean_curve(self, scorer: str, organs: Iterable[str]) -> Map:
        """Return the sensitivity at `RATES`, mean over organs of the mean over crops."""
        rows = self.curves[scorer]
        return np.asarray(np.mean([np.mean(rows[organ], axis=0) for organ in organs if organ in rows], axis=0))

    def mean(self, scorer: str, place: str, organs: Iterable[str]) -> float:
        """Return the mean over organs of the mean over crops."""
        table = self.values[scorer][place]
        return float(np.mean([np.mean(table[organ]) for organ in organs if organ in table]))

    def count(self, organs: Iterable[str]) -> int:
        """Return how many crops were scored."""
        return sum(len(self.values[ADAPTED]["organ"].get(organ, ())) for organ in organs)

    def margin(self, scorer: str, place: str, organs: tuple[str, ...], baselines: tuple[str, ...] = BASELINES) -> float:
        """Return how far a scorer lies above the best baseline."""
        return self.mean(scorer, place, organs) - max(self.mean(other, place, organs) for other in baselines)

    def table(self) -> dict[str, dict[str, dict[str, float]]]:
        """Return means by scorer, place, and each organ, all seen and all unseen ones."""
        groups = {organ: (organ,) for organ in (*SEEN, *UNSEEN)} | {"seen": SEEN, "unseen": UNSEEN}
        return {
            scorer: {
                place: {name: round(self.mean(scorer, place, organs), 3) for name, organs in groups.items()}
                for place in PLACES
            }
            for scorer in self.values
        }


def score_crops(model: AAClip, prompts: PromptTable, crops: Iterable[LesionCrop]) -> LesionScores:
    """Score every crop that shows a lesion of its organ, by every scorer.

    Args:
        model: with adapters.
        prompts: of the organs.
        crops: pictures of the model's size.
    """
    scores = LesionScores()
    scorers = _scorers(model, prompts)
    show = ClipPicture(model.clip.image_size, model.clip.mean, model.clip.std)
    for crop in crops:
        organ, lesion = crop.of_organ(), crop.lesion & crop.of_organ()
        if lesion.sum() < SMALLEST_PX:
            continue
        picture = show(crop.picture())[None]
        # Lesions of other organs are no healthy pixels.
        body = ((crop.hu > BODY_HU) | (crop.organs > 0)) & (organ | ~crop.lesion)
        places = {"organ": organ, "body": body}
        for name, scorer in scorers.items():
            values = scorer(crop, picture)
            for place, where in places.items():
                scores.add(name, place, crop.organ, auroc(lesion[where], values[where]))
            scores.add_curve(name, crop.organ, lesion[organ], values[organ])
    return scores


def plain_map(model: AAClip, prompts: PromptTable, organ: str, picture: torch.Tensor) -> Map:
    """Return what the unadapted CLIP makes of a picture: its last patches against its own texts, ``(h, w)``."""
    with torch.no_grad():
        anchors = model.anchors([prompts.of_class(organ)], adapted=False)[0]
        tokens = level_tokens(model.clip.visual, [model.clip.depth], picture)[0] @ model.clip.visual.proj
        alike = 100 * F.normalize(tokens, dim=-1) @ anchors
        grid = alike.transpose(1, 2).unflatten(2, model.clip.grid)
        odds: Map = AnomalyMaps(blur=BLUR)(grid, picture.shape[2:])[0, 0].numpy()
    return odds


def stage_1_map(model: AAClip, prompts: PromptTable, organ: str, picture: torch.Tensor) -> Map:
    """Return the log-odds of stage 1, mean over the levels: value-value patches against adapted texts, ``(h, w)``."""
    with torch.no_grad():
        maps = model.stage1(picture, model.anchors([prompts.of_class(organ)])).maps
        odds: Map = torch.stack([level[0, 1].logit(1e-6) for level in maps]).mean(0).numpy()
    return odds


def stage_2_map(model: AAClip, prompts: PromptTable, organ: str, picture: torch.Tensor) -> Map:
    """Return the log-odds of stage 2, mean over the levels, as the bundle's inference does: ``(h, w)``."""
    with torch.no_grad():
        anchors = model.anchors([prompts.of_class(organ)])[0]
        found = model.localize(picture, anchors, AnomalyMaps(blur=BLUR))
        odds: Map = (2 * found.anomaly[0, 0] / len(found.levels) - 1).numpy()
    return odds


def _scorers(model: AAClip, prompts: PromptTable) -> Mapping[str, Callable[[LesionCrop, torch.Tensor], Map]]:
    def from_mean(crop: LesionCrop, picture: torch.Tensor) -> Map:
        hu = crop.hu.astype(np.float32)
        return np.asarray(np.abs(hu - hu[crop.of_organ()].mean()))

    def smooth(crop: LesionCrop, picture: torch.Tensor) -> Map:
        # Averaged within the organ alone, so that its border does not look like a lesion.
        inside = crop.of_organ().astype(np.float32)
        hu = np.where(crop.of_organ(), crop.hu, 0).astype(np.float32)
        mean = gaussian_filter(hu, SMOOTH_PX) / np.maximum(gaussian_filter(inside, SMOOTH_PX), 1e-3)
        return np.asarray(np.abs(mean - crop.hu[crop.of_organ()].mean()))

    ways: tuple[Callable[[LesionCrop, torch.Tensor], Map], ...] = (
        lambda crop, picture: stage_2_map(model, prompts, crop.organ, picture),
        lambda crop, picture: stage_2_map(model, prompts, GENERIC, picture),
        lambda crop, picture: plain_map(model, prompts, crop.organ, picture),
        lambda crop, picture: crop.hu.astype(np.float32),
        lambda crop, picture: -crop.hu.astype(np.float32),
        from_mean,
        smooth,
        lambda crop, picture: crop.of_organ().astype(np.float32),
    )
    return dict(zip(SCORERS, ways, strict=True))
