"""Scoring localizations over a labelled set: by class and as means, with intervals, tables and pictures."""

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from PIL import Image
from rich.console import Console

from monai_ext.base import SettingError, find_window, replacing
from monai_ext.metrics import (
    ClassResult,
    Measured,
    PixelScores,
    PixelSketch,
    auroc,
    average_precision,
    f1_max,
    image_counts,
    published_figures,
    published_image_scores,
    write_anomaly_tables,
)
from monai_ext.metrics.anomaly_tables import MEASURES
from monai_ext.metrics.bootstrap import bootstrap_seed, interval, mean_replicates
from monai_ext.outputs.anomaly_pictures import anomaly_picture, anomaly_sheet

PROTOCOLS = ("per_image", "published")
_NAN = float("nan")
_CASE_COLUMNS = ("class", "case", "abnormal", "unit", "score", "largest_log_odds", "detection", "pixel_ap")
_WHY = {
    "pixel_auroc": "pixels of both kinds are needed",
    "pixel_average_precision": "no abnormal pixel",
    "pixel_aupro": "abnormal regions and normal pixels are needed",
    "pixel_f1_max": "no abnormal pixel",
    "image_auroc": "normal and abnormal images are needed",
    "image_average_precision": "no abnormal image",
    "image_f1_max": "no abnormal image",
}


@dataclass(frozen=True)
class _Case:
    index: int
    case: str
    unit: str
    abnormal: int
    score: float
    low: float
    high: float
    detection: float
    pixel_ap: float


@dataclass
class _Class:
    name: str
    pixels: PixelScores
    sketch: PixelSketch = field(default_factory=PixelSketch)
    cases: list[_Case] = field(default_factory=list)
    unmasked: int = 0


class AnomalyScoring:
    """Score every image of a labelled set, and at the end write tables and pictures.

    Pixels of a class are ranked together, for which no scaling of the maps matters. The score of an image is its
    own with the protocol ``per_image``; with ``published`` it is scaled over its class first, so that it depends on
    the other images. What is undefined, such as the AUROC of a set without normal images, is NaN and said so.
    Attach it to an evaluator over `evaluation_items`, one image a batch, class by class.

    Args:
        step: the ``LocalizationStep`` of the evaluator, for the cases that are drawn.
        output_dir: gets ``scores.csv``, ``.json``, ``.md``, ``cases.csv`` and ``overlays``.
        domain: ``"Medical"`` or ``"Industrial"``, for the published score of images.
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
        if protocol not in PROTOCOLS or replicates < 0 or not 0 < confidence < 1:
            raise SettingError(
                f"protocol is {protocol!r}, replicates {replicates} and confidence {confidence}; give per_image or "
                "published, a number from 0 on, and a share such as 0.95",
                code="setting.protocol",
            )
        self.step = step
        self.output_dir, self.domain, self.dataset, self.protocol = Path(output_dir), domain, dataset, protocol
        self.replicates, self.confidence, self.seed = replicates, confidence, seed
        self.exact_limit, self.overlays, self.window = exact_limit, overlays, find_window(window_hu)
        self.results: list[ClassResult] = []
        self._reset()

    def attach(self, engine: Engine) -> None:
        """Start anew with the run, score each image, sum up at the end."""
        engine.add_event_handler(Events.EPOCH_STARTED, lambda _: self._reset())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _reset(self) -> None:
        self.results = []
        self._open: _Class | None = None
        self._draws: list[dict[str, np.ndarray]] = []
        self._rows: list[list[Any]] = []
        self._chosen: list[tuple[str, str, _Case]] = []

    def _add(self, engine: Engine) -> None:
        for item, output in zip(engine.state.batch, engine.state.output or (), strict=False):
            if not isinstance(output, Mapping):
                return  # an image that could not be read; the guarded step has noted it
            name = str(item["class_name"])
            if self._open is not None and self._open.name != name:
                self._close_class()
            if self._open is None:
                self._open = _Class(name, PixelScores(self.exact_limit))
            self._score(self._open, item, output)

    def _score(self, group: _Class, item: Mapping[str, Any], output: Mapping[str, Any]) -> None:
        odds = output["pred"].cpu().numpy()[0]
        abnormal, unit = int(item["abnormal"]), str(item["unit"])
        known = "mask" in item or not abnormal
        mask = item["mask"].cpu().numpy()[0] if "mask" in item else np.zeros(odds.shape, np.uint8)
        ap = _NAN
        if known:
            group.pixels.update(odds[None], mask[None])
            if self.replicates:
                group.sketch.update(odds, mask, unit)
            ap = average_precision(mask, odds) if mask.any() else _NAN
        else:
            group.unmasked += 1
        group.cases.append(
            _Case(
                int(item["index"]),
                str(item["case"]),
                unit,
                abnormal,
                float(output["score"]),
                float(odds.min()),
                float(odds.max()),
                float(output["detection"]),
                ap,
            )
        )

    def _close_class(self) -> None:
        group, self._open = self._open, None
        assert group is not None  # callers have looked
        cases = group.cases
        scores = self._image_scores(cases)
        values, bounds = self._values(group, scores)
        draws = self._replicates(group, scores)
        figures = published_figures(self.dataset).get(group.name, {})
        measures = {name: self._measured(name, values, bounds, draws, figures) for name in MEASURES}
        abnormal = sum(one.abnormal for one in cases)
        notes = [f"{name}: {_WHY[name]}" for name in MEASURES if np.isnan(values[name])]
        if group.unmasked:
            notes.append(f"{group.unmasked} abnormal images without a mask count for the image measures only")
        self.results.append(ClassResult(group.name, len(cases), abnormal, measures, tuple(notes)))
        self._draws.append(draws)
        for one, score in zip(cases, scores, strict=True):
            found = (f"{value:.6g}" for value in (score, one.high, one.detection, one.pixel_ap))
            self._rows.append([group.name, one.case, one.abnormal, Path(one.unit).name, *found])
        masked = sorted((one for one in cases if not np.isnan(one.pixel_ap)), key=lambda one: -one.pixel_ap)
        if masked:
            places = {"best": 0, "median": len(masked) // 2, "worst": len(masked) - 1}
            self._chosen += [(group.name, which, masked[place]) for which, place in places.items()]

    def _image_scores(self, cases: list[_Case]) -> np.ndarray:
        if self.protocol == "per_image":
            return np.array([one.score for one in cases])
        # The published scaling asks for the extremes of maps alone, which stand for them here.
        extremes = np.array([[[one.low, one.high]] for one in cases])
        detections = np.array([one.detection for one in cases])
        domain = "Medical" if np.isnan(detections).any() else self.domain
        return published_image_scores(extremes, detections, domain)

    def _values(self, group: _Class, scores: np.ndarray) -> tuple[dict[str, float], dict[str, float]]:
        pixel = group.pixels.compute()
        labels = np.array([one.abnormal for one in group.cases])
        bounded = {
            "pixel_auroc": pixel.auroc,
            "pixel_average_precision": pixel.average_precision,
            "pixel_aupro": pixel.aupro,
            "pixel_f1_max": pixel.f1_max,
        }
        values = {name: found.value for name, found in bounded.items()}
        finite = bool(np.isfinite(scores).all())  # scaling a set whose maps are all alike has no value
        values["image_auroc"] = auroc(labels, scores) if finite else _NAN
        values["image_average_precision"] = average_precision(labels, scores) if finite else _NAN
        values["image_f1_max"] = f1_max(labels, scores) if finite else _NAN
        return values, {name: found.bound for name, found in bounded.items()}

    def _replicates(self, group: _Class, scores: np.ndarray) -> dict[str, np.ndarray]:
        nothing = np.full(1 + self.replicates, _NAN)
        draws = dict.fromkeys(MEASURES, nothing)
        if not self.replicates:
            return draws
        if group.unmasked < len(group.cases):
            counts = group.sketch.counts()
            found = counts.replicates(self.replicates, bootstrap_seed(self.seed, group.name, "pixel"))
            draws |= {f"pixel_{name}": values for name, values in found.items()}
        if np.isfinite(scores).all():
            labels, units = [one.abnormal for one in group.cases], [one.unit for one in group.cases]
            counts = image_counts(labels, list(scores), units)
            found = counts.replicates(self.replicates, bootstrap_seed(self.seed, group.name, "image"))
            draws |= {f"image_{name}": values for name, values in found.items() if name != "aupro"}
        return draws

    def _measured(
        self,
        name: str,
        values: Mapping[str, float],
        bounds: Mapping[str, float],
        draws: Mapping[str, np.ndarray],
        figures: Mapping[str, float],
    ) -> Measured:
        found = interval(draws[name], values[name], self.confidence)
        return Measured(values[name], found.low, found.high, bounds.get(name, 0.0), figures.get(name))

    def _finish(self, engine: Engine) -> None:
        if self._open is not None:
            self._close_class()
        if not self.results:
            return  # all failed; the step says why
        self.results.append(self._mean())
        about = {
            "dataset": self.dataset or "not named",
            "protocol": self.protocol,
            "domain": self.domain,
            "intervals": f"{100 * self.confidence:g} %, bootstrap over images or patients, {self.replicates} replicates"
            if self.replicates
            else "none",
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

    def _mean(self) -> ClassResult:
        figures = published_figures(self.dataset).get("mean", {})
        values, bounds, notes = {}, {}, []
        for name in MEASURES:
            known = [one.measures[name] for one in self.results if not np.isnan(one.measures[name].value)]
            values[name] = float(np.mean([one.value for one in known])) if known else _NAN
            bounds[name] = float(np.mean([one.bound for one in known])) if known else _NAN
            if 0 < len(known) < len(self.results):
                notes.append(f"{name}: mean of the {len(known)} of {len(self.results)} classes that have it")
            elif not known:
                notes.append(f"{name}: {_WHY[name]}")
        draws = {name: mean_replicates(self._draws, name) for name in MEASURES}
        # Published means are over all classes of a set; those of other choices do not compare.
        complete = {one.name for one in self.results} >= published_figures(self.dataset).keys() - {"mean"}
        figures = figures if complete else {}
        measures = {name: self._measured(name, values, bounds, draws, figures) for name in MEASURES}
        images = sum(one.images for one in self.results)
        return ClassResult("mean", images, sum(one.abnormal for one in self.results), measures, tuple(notes))

    def _draw(self, engine: Engine, name: str, which: str, one: _Case) -> None:
        """Localize once more in one case, for keeping all maps would outgrow the memory."""
        item, odds = self.step.again(engine, one.index)
        mask = np.asarray(item["mask"])[0]
        safe = re.sub(r"[^\w.-]", "_", f"{name}_{which}_{one.case.rpartition('/')[2]}")
        title = f"{one.case}, {which} of its class: pixel AP {one.pixel_ap:.3f} (green: mask)"
        threshold = float(np.quantile(odds, 1 - mask.mean()))  # as many pixels as the mask has
        with replacing(self.output_dir / "overlays" / f"{safe}.png") as temporary:
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
