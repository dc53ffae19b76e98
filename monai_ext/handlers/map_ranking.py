"""How well a validation's maps rank abnormal pixels above normal ones: what chooses the epoch."""

import math
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from torch.nn import functional as F

from monai_ext.base import gather
from monai_ext.metrics import PixelScores, auroc

VALIDATION_METRICS = ("val_pixel_ap", "val_pixel_auroc", "val_image_auroc", "val_loss")


class MapRanking:
    """Score the maps of an evaluator of AA-CLIP, class by class; the means go to ``state.metrics``.

    ``val_pixel_ap`` and ``val_pixel_auroc`` rank pixels by the probability of anomaly, averaged over the levels;
    ``val_image_auroc`` ranks pictures by their largest one. Each is the mean over the classes where it is defined,
    NaN where none is; ``val_loss`` is the mean over pictures. Ranks share their pictures first.

    Args:
        size: pixels of the longer side that maps and masks are scored at, so that all of them fit in memory.
    """

    def __init__(self, size: int = 128) -> None:
        self.size = size
        self._rows: list[tuple[str, int, np.ndarray, np.ndarray, float]] = []

    def attach(self, engine: Engine) -> None:
        """Attach to the evaluator, before what reads the metrics."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish)

    def _reset(self) -> None:
        self._rows = []

    def _add(self, engine: Engine) -> None:
        output: dict[str, Any] = engine.state.output
        label, loss = output["label"], float(output["val_loss"])
        maps = torch.stack([level[:, 1].float() for level in output["pred"].maps]).mean(dim=0)[:, None]
        masks = label["mask"]
        longer = max(maps.shape[2:])
        if longer > self.size:
            small = [max(round(side * self.size / longer), 1) for side in maps.shape[2:]]
            maps = F.interpolate(maps, small, mode="area")
            masks = F.interpolate(masks, small, mode="nearest-exact")
        scores, truth = maps[:, 0].cpu().numpy(), masks[:, 0].cpu().numpy().astype(bool)
        for name, kind, one, mask in zip(label["class_name"], label["label"].tolist(), scores, truth, strict=True):
            self._rows.append((name, int(kind), one, mask, loss))

    def _finish(self, engine: Engine) -> None:
        parts = gather(self._rows)
        # Fewer pictures than ranks: each rank scored all of them.
        same = len(self._rows) == len(engine.state.dataloader.dataset)
        rows = parts[0] if same else [row for part in parts for row in part]
        found: dict[str, list[float]] = {name: [] for name in VALIDATION_METRICS[:-1]}
        for name in sorted({row[0] for row in rows}):
            members = [row for row in rows if row[0] == name]
            pixels = PixelScores()
            for _, _, scores, mask, _ in members:
                pixels.update(scores[None], mask[None])
            result = pixels.compute()
            found["val_pixel_ap"].append(result.average_precision.value)
            found["val_pixel_auroc"].append(result.auroc.value)
            labels, largest = [row[1] for row in members], [row[2].max() for row in members]
            found["val_image_auroc"].append(auroc(labels, largest))
        engine.state.metrics |= {name: _mean(values) for name, values in found.items()}
        engine.state.metrics["val_loss"] = _mean([row[4] for row in rows])


def _mean(values: list[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan
