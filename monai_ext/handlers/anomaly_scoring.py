"""Scoring localizations over a labelled set: by class and as means, with intervals, tables and pictures."""

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from PIL import Image
from rich.console import Console

from monai_ext.base import check_picture_whole, find_window, replacing
from monai_ext.metrics import AnomalyClass, ClassResult, ScoredCase, ScoringRules, mean_result, write_anomaly_tables
from monai_ext.outputs.anomaly_pictures import anomaly_picture, anomaly_sheet

_CASE_COLUMNS = ("class", "case", "abnormal", "unit", "score", "largest_log_odds", "detection", "pixel_ap")


class AnomalyScoring:
    """Score every image of a labelled set, and at the end write tables and pictures.

    Pixels of a class are ranked together, for which no scaling of the maps matters. The score of an image is its
    own with the protocol ``per_image``; with ``published`` it is scaled over its class first, so that it depends on
    the other images. What is undefined, such as the AUROC of a set without normal images, is NaN and said so.
    Attach it to an evaluator over `evaluation_items`, one image a batch, class by class.

    Args:
        step: the ``LocalizationStep`` of the evaluator, for the cases that are drawn.
        output_dir: gets ``scores.csv``, ``.json``, ``.md``, ``cases.csv`` and ``overlays``.
        domain: see ``monai_ext.metrics.ScoringRules``, as the next six.
        dataset: whose published figures stand beside; none if omitted.
        protocol: ``"per_image"`` or ``"published"``.
        replicates: of the bootstrap, 0 for no intervals.
        confidence: of the intervals.
        seed: of the bootstrap.
        exact_limit: pixels of a class up to which all is exact.
        overlays: whether to draw the best, median and worst case of each class.
        window_hu: of drawn volumes.

    Raises:
        SettingError: an unknown protocol, or a number out of range.
    """

    def __init__(
        self,
        step: Any,
        output_dir: str,
        domain: str = "Medical",
        dataset: str | None = None,
        protocol: str = "per_image",
        replicates: int = 1000,
        confidence: float = 0.95,
        seed: int = 0,
        exact_limit: int = 10**8,
        overlays: bool = True,
        window_hu: Any = "abdomen",
    ) -> None:
        self.rules = ScoringRules(protocol, domain, dataset, replicates, confidence, seed, exact_limit)
        self.step, self.output_dir = step, Path(output_dir)
        self.overlays, self.window = overlays, find_window(window_hu)
        self._reset()

    def attach(self, engine: Engine) -> None:
        """Start anew with the run, score each image, sum up at the end."""
        engine.add_event_handler(Events.EPOCH_STARTED, lambda _: self._reset())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _reset(self) -> None:
        self.results: list[ClassResult] = []
        self._open: AnomalyClass | None = None
        self._draws: list[dict[str, np.ndarray]] = []
        self._rows: list[list[Any]] = []
        self._chosen: list[tuple[str, str, ScoredCase]] = []
        self._drawn: set[Path] = set()

    def _add(self, engine: Engine) -> None:
        for item, output in zip(engine.state.batch, engine.state.output or (), strict=False):
            if not isinstance(output, Mapping):
                return  # an image that could not be read; the guarded step has noted it
            name = str(item["class_name"])
            if self._open is not None and self._open.name != name:
                self._close_class(self._open)
                self._open = None
            if self._open is None:
                self._open = AnomalyClass(name, self.rules)
            _score(self._open, item, output)

    def _close_class(self, group: AnomalyClass) -> None:
        result, draws = group.result()
        self.results.append(result)
        self._draws.append(draws)
        for one, score in zip(group.cases, group.image_scores(), strict=True):
            found = (f"{value:.6g}" for value in (score, one.high, one.detection, one.pixel_ap))
            self._rows.append([group.name, one.case, one.abnormal, Path(one.unit).name, *found])
        self._chosen += [(group.name, which, one) for which, one in group.telling_cases().items()]

    def _finish(self, engine: Engine) -> None:
        if self._open is not None:
            self._close_class(self._open)
        if not self.results:
            return  # all failed; the step says why
        self.results.append(mean_result(self.results, self._draws, self.rules))
        rules = self.rules
        bootstrap = f"{100 * rules.confidence:g} %, bootstrap over images or patients, {rules.replicates} replicates"
        about = {
            "dataset": rules.dataset or "not named",
            "protocol": rules.protocol,
            "domain": rules.domain,
            "intervals": bootstrap if rules.replicates else "none",
        }
        paths = write_anomaly_tables(self.output_dir / "scores", self.results, about)
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([_CASE_COLUMNS, *self._rows])
        with replacing(self.output_dir / "cases.csv") as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8")
        if self.overlays:
            for name, which, one in self._chosen:
                self._draw(engine, name, which, one)
        self._tell(paths)
        for name, found in self.results[-1].measures.items():
            engine.state.metrics[f"mean_{name}"] = found.value

    def _draw(self, engine: Engine, name: str, which: str, one: ScoredCase) -> None:
        """Localize once more in one case, for keeping all maps would outgrow the memory."""
        item, odds = self.step.again(engine, one.index)
        mask = np.asarray(item["mask"])[0]
        safe = re.sub(r"[^\w.-]", "_", f"{name}_{which}_{one.case.rpartition('/')[2]}")
        title = f"{one.case}, {which} of its class: pixel AP {one.pixel_ap:.3f} (green: mask)"
        threshold = float(np.quantile(odds, 1 - mask.mean()))  # as many pixels as the mask has
        path = self._free(self.output_dir / "overlays" / f"{safe}.png")
        with replacing(path, check_picture_whole) as temporary:
            if item["kind"] == "picture":
                colours = np.asarray(item["image"]).transpose(1, 2, 0)
                fitted = np.asarray(Image.fromarray(colours).resize(odds.shape[::-1], Image.Resampling.BICUBIC))
                anomaly_picture(temporary, fitted, odds, threshold, title, mask)
            else:
                image = item["image"]
                spacing = np.linalg.norm(np.asarray(image.affine)[:3, :3], axis=0)
                anomaly_sheet(
                    temporary, np.asarray(image)[0], odds, spacing.tolist(), self.window, threshold, title, mask
                )

    def _free(self, path: Path) -> Path:
        """Return the path, numbered where another class of this run has a picture there: "a b" and "a_b" look alike."""
        number, free = 1, path
        while free in self._drawn:
            number += 1
            free = path.with_stem(f"{path.stem}_{number}")
        self._drawn.add(free)
        return free

    def _tell(self, paths: list[Path]) -> None:
        mean = self.results[-1]
        console = Console(soft_wrap=True, highlight=False)
        classes = len(self.results) - 1
        console.print(f"[bold]{mean.images} images of {classes} class{'es' if classes != 1 else ''} scored.[/bold]")
        for name in ("pixel_auroc", "pixel_average_precision", "pixel_aupro", "image_auroc"):
            found = mean.measures[name]
            text = "undefined" if np.isnan(found.value) else f"{100 * found.value:.2f} %"
            if not np.isnan(found.low):
                text += f" ({100 * found.low:.1f} to {100 * found.high:.1f})"
            console.print(f"  mean {name.replace('_', ' ')}: {text}", markup=False)
        console.print(f"  tables: {', '.join(str(path) for path in paths)}", markup=False)


def _score(group: AnomalyClass, item: Mapping[str, Any], output: Mapping[str, Any]) -> None:
    odds = output["pred"].cpu().numpy()[0]
    abnormal = int(item["abnormal"])
    mask = item["mask"].cpu().numpy()[0] if "mask" in item else None
    if mask is None and not abnormal:
        mask = np.zeros(odds.shape, np.uint8)
    case = ScoredCase(
        int(item["index"]),
        str(item["case"]),
        str(item["unit"]),
        abnormal,
        float(output["score"]),
        float(odds.min()),
        float(odds.max()),
        float(output["detection"]),
    )
    group.add(case, odds, mask)
