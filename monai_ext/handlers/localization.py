"""The end of a localization or a calibration: tables of all cases, thresholds, and where everything lies."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from rich.console import Console

from monai_ext.base import replacing
from monai_ext.metrics import Calibration, check_normal_cases, rate_threshold, write_calibration
from monai_ext.outputs import AnomalyWriter, candidate_level
from monai_ext.outputs.anomaly_writer import PICTURE_COLUMNS, VOLUME_COLUMNS, min_voxels
from monai_ext.outputs.candidates import table_text

_CASE_COLUMNS = ("case", "kind", "score", "score_false_positive_rate", "candidates", "calibration")


class LocalizationSummary:
    """When all cases are done, write ``cases.csv`` and ``candidates_*.csv`` and print where the results are.

    Args:
        writer: that wrote the cases.
    """

    def __init__(self, writer: AnomalyWriter) -> None:
        self.writer = writer

    def attach(self, engine: Engine) -> None:
        """Attach to the evaluator, last."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the tables and print the summary."""
        results, text = self.writer.results, self.writer.calibration_text
        if not results:
            return
        folder = self.writer.output_dir
        calibration = "uncalibrated" if self.writer.calibration is None else "calibrated"
        rows: list[dict[str, Any]] = [
            {
                "case": one.case,
                "kind": one.kind,
                "score": one.score,
                "score_false_positive_rate": one.score_rate,
                "candidates": len(one.candidates),
                "calibration": calibration,
            }
            for one in results
        ]
        _write(folder / "cases.csv", table_text(rows, _CASE_COLUMNS))
        for kind, columns in (("volume", VOLUME_COLUMNS), ("picture", PICTURE_COLUMNS)):
            if any(one.kind == kind for one in results):
                found = [{"case": one.case} | row for one in results if one.kind == kind for row in one.candidates]
                _write(folder / f"candidates_{kind}s.csv", table_text(found, ("case", *columns)))
        console = Console(soft_wrap=True, highlight=False)
        with_any = sum(bool(one.candidates) for one in results)
        cases = "1 case" if len(results) == 1 else f"{len(results)} cases"
        console.print(f"[bold]{cases} done, {with_any} with candidates.[/bold] Research use only.")
        console.print(f"  {text}", markup=False)
        if len(results) == 1:
            console.print(f"  results: {results[0].folder}", markup=False)
        else:
            console.print(f"  all cases: {folder / 'cases.csv'}", markup=False)
            console.print(f"  one folder a case: {folder}", markup=False)


class NormalCases:
    """Collect what normal cases reach, and at the end write the thresholds for a rate of false positives.

    Attach it to an evaluator whose output is decollated and lies on the own grid: the values are those that
    candidates and scores of inference will have.

    Args:
        path: the calibration, a JSON file.
        settings: of the run, see ``monai_ext.engines.calibration_settings``.
        rate: chosen, of cases with a candidate that should have none.
        confidence: of the intervals.
        min_volume_mm3: of a volume's candidates.
        min_area_px: of a picture's candidates.

    Raises:
        SettingError: at the end of the run: too few normal cases for the rate, or pictures and volumes together.
    """

    def __init__(
        self,
        path: str,
        settings: Mapping[str, Any],
        rate: float = 0.05,
        confidence: float = 0.95,
        min_volume_mm3: float = 0.0,
        min_area_px: int = 0,
    ) -> None:
        self.path, self.settings, self.rate, self.confidence = Path(path), dict(settings), rate, confidence
        self.min_volume_mm3, self.min_area_px = min_volume_mm3, min_area_px
        self.levels: list[float] = []
        self.scores: list[float] = []
        self.kinds: set[str] = set()

    def attach(self, engine: Engine) -> None:
        """Collect after each case, write at the end."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _add(self, engine: Engine) -> None:
        for item, output in zip(engine.state.batch, engine.state.output or (), strict=False):
            if not isinstance(output, Mapping):
                return  # a case that could not be read; the guarded step has noted it
            kind = "picture" if item["kind"] == "picture" else "volume"
            affine = None if kind == "picture" else np.asarray(output["pred"].affine, dtype=np.float64)
            smallest = min_voxels(kind, affine, self.min_volume_mm3, self.min_area_px)
            self.levels.append(candidate_level(output["pred"].cpu().numpy()[0], smallest))
            self.scores.append(float(output["score"]))
            self.kinds.add(kind)

    def _finish(self, engine: Engine) -> None:
        if not self.levels:
            return  # all failed; the step says why
        check_normal_cases(len(self.levels), self.kinds)
        calibration = Calibration(
            self.kinds.pop(),
            rate_threshold(self.levels, self.rate, self.confidence),
            rate_threshold(self.scores, self.rate, self.confidence),
            tuple(sorted(self.levels)),
            tuple(sorted(self.scores)),
            self.settings,
        )
        write_calibration(self.path, calibration)
        console = Console(soft_wrap=True, highlight=False)
        console.print(f"[bold]Threshold {calibration.threshold:.4g} log-odds[/bold], {calibration.sentence()}")
        console.print(f"  calibration: {self.path}", markup=False)


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
