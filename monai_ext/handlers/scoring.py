"""Scoring an evaluator's segmentations, case by case."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from monai.data.utils import affine_to_spacing

from monai_ext.base import SettingError, gather, is_number, rank
from monai_ext.metrics import ClassScore, case_scores, mean_dice, mean_scores, write_scores


class CaseScoring:
    """Score each case after postprocessing; the mean Dice goes to ``state.metrics``, all of it to a CSV.

    Attach it to an evaluator whose output is decollated: ``pred`` and ``label`` hold label ids,
    ``(1, x, y, z)``, with the label's affine. Ranks share their cases before the means are formed.

    Args:
        names: class names by id; 0, the background, is not scored.
        path: the CSV file, or ``None`` for none.
        tolerance_mm: of the surface Dice.
        surfaces: whether HD95 and surface Dice are measured too.

    Raises:
        SettingError: the tolerance is no length.
    """

    def __init__(
        self,
        names: Mapping[int | str, str],
        path: str | None = None,
        tolerance_mm: float = 2.0,
        surfaces: bool = True,
    ) -> None:
        if not is_number(tolerance_mm, 0):
            raise SettingError(
                f"tolerance_mm: {tolerance_mm!r}; give mm from 0 up, for example 2.0", code="setting.tolerance"
            )
        self.names = {int(number): name for number, name in names.items() if int(number)}
        self.path, self.tolerance_mm, self.surfaces = path, tolerance_mm, surfaces
        self.scores: list[ClassScore] = []
        self._scans = 0

    def attach(self, engine: Engine) -> None:
        """Start anew with each epoch of the evaluator, score each iteration, sum up at the end."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish)

    def _reset(self, engine: Engine) -> None:
        self.scores, self._scans = [], 0

    def _add(self, engine: Engine) -> None:
        self._scans += len(engine.state.batch)
        for item, output in zip(engine.state.batch, engine.state.output or (), strict=False):
            if not isinstance(output, Mapping):
                return  # a scan that could not be read; the guarded step has noted it
            label = output["label"]
            spacing = affine_to_spacing(label.affine) if hasattr(label, "affine") else (1.0, 1.0, 1.0)
            self.scores += case_scores(
                str(item["case"]),
                _ids(output["pred"]),
                _ids(label),
                list(self.names),
                [float(edge) for edge in spacing],
                self.tolerance_mm,
                self.surfaces,
            )

    def _finish(self, engine: Engine) -> None:
        parts = gather(self.scores)
        # Fewer cases than ranks: each rank scored all of them.
        same = self._scans == len(engine.state.dataloader.dataset)
        self.scores = parts[0] if same else [score for part in parts for score in part]
        engine.state.metrics["val_mean_dice"] = mean_dice(self.scores)
        for number, score in mean_scores(self.scores).items():
            # MLflow refuses a run whose metrics are named with any other character.
            engine.state.metrics["dice_" + re.sub(r"[^\w./ -]", "_", self.names[number])] = score.dice
        if self.path is not None and rank() == 0:
            write_scores(Path(self.path), self.scores, self.names)


def _ids(volume: Any) -> np.ndarray:
    array: np.ndarray = volume[0].cpu().numpy()
    return np.rint(array).astype(np.int32)
