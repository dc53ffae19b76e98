"""Scores of a labelled set class by class, and their mean over classes, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from monai_ext.base import SettingError
from monai_ext.metrics.anomaly_tables import MEASURES, ClassResult, Measured, published_figures
from monai_ext.metrics.bootstrap import PixelSketch, bootstrap_seed, image_counts, interval, mean_replicates
from monai_ext.metrics.pixel_scores import PixelScores
from monai_ext.metrics.published_protocol import published_image_scores
from monai_ext.metrics.ranking import auroc, average_precision, f1_max

PROTOCOLS = ("per_image", "published")
NAN = float("nan")
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
class ScoringRules:
    """How a set is scored.

    Attributes:
        protocol: ``"per_image"`` scores an image by itself, ``"published"`` scales over its class first.
        domain: ``"Medical"`` or ``"Industrial"``, for the published score of images.
        dataset: whose published figures stand beside; none if ``None``.
        replicates: of the bootstrap, 0 for no intervals.
        confidence: of the intervals.
        seed: of the bootstrap.
        exact_limit: pixels of a class up to which all is exact.

    Raises:
        SettingError: an unknown protocol, or a number out of range.
    """

    protocol: str = "per_image"
    domain: str = "Medical"
    dataset: str | None = None
    replicates: int = 1000
    confidence: float = 0.95
    seed: int = 0
    exact_limit: int = 10**8

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS or self.replicates < 0 or not 0 < self.confidence < 1:
            raise SettingError(
                f"protocol is {self.protocol!r}, replicates {self.replicates} and confidence {self.confidence}; give "
                "per_image or published, a number from 0 on, and a share such as 0.95",
                code="setting.protocol",
            )

    def measured(
        self, name: str, value: float, bound: float, draws: np.ndarray, figures: Mapping[str, float]
    ) -> Measured:
        """Return a measure with its interval and its published figure."""
        found = interval(draws, value, self.confidence)
        return Measured(value, found.low, found.high, bound, figures.get(name))


@dataclass(frozen=True)
class ScoredCase:
    """One image or volume.

    Attributes:
        index: of its entry in the data set.
        case: its name.
        unit: what is drawn together in the bootstrap: the image itself, or its patient.
        abnormal: 0 or 1.
        score: of the case by itself, 0 to 1.
        low: smallest log-odds of its map.
        high: largest one.
        detection: 0 to 1, NaN where a network gives none.
        pixel_ap: average precision of its own pixels, NaN without an abnormal one.
    """

    index: int
    case: str
    unit: str
    abnormal: int
    score: float
    low: float
    high: float
    detection: float
    pixel_ap: float = NAN


class AnomalyClass:
    """Collects the cases of one class.

    Args:
        name: of the class.
        rules: how it is scored.
    """

    def __init__(self, name: str, rules: ScoringRules) -> None:
        self.name, self.rules = name, rules
        self.pixels, self.sketch = PixelScores(rules.exact_limit), PixelSketch()
        self.cases: list[ScoredCase] = []
        self.unmasked = 0

    def add(self, case: ScoredCase, odds: np.ndarray, mask: np.ndarray | None) -> None:
        """Add a case.

        Args:
            case: without its ``pixel_ap``.
            odds: its map, ``(h, w)`` or ``(x, y, z)``.
            mask: 0 or 1, the same shape; ``None`` where an abnormal case has none: it counts for the image measures.
        """
        ap = NAN
        if mask is None:
            self.unmasked += 1
        else:
            self.pixels.update(odds[None], mask[None])
            if self.rules.replicates:
                self.sketch.update(odds, mask, case.unit)
            ap = average_precision(mask, odds) if mask.any() else NAN
        self.cases.append(ScoredCase(**{**vars(case), "pixel_ap": ap}))

    def image_scores(self) -> np.ndarray:
        """Return the score of each case by the rules' protocol, NaN where scaling has no value."""
        if self.rules.protocol == "per_image":
            return np.array([one.score for one in self.cases])
        # The published scaling asks for the extremes of maps alone, which stand for them here.
        extremes = np.array([[[one.low, one.high]] for one in self.cases])
        detections = np.array([one.detection for one in self.cases])
        domain = "Medical" if np.isnan(detections).any() else self.rules.domain
        return published_image_scores(extremes, detections, domain)

    def result(self) -> tuple[ClassResult, dict[str, np.ndarray]]:
        """Return the measures of the class, and their bootstrap replicates for the mean over classes."""
        scores = self.image_scores()
        labels = np.array([one.abnormal for one in self.cases])
        pixel = self.pixels.compute()
        parts = ("auroc", "average_precision", "aupro", "f1_max")
        bounds = {f"pixel_{part}": getattr(pixel, part).bound for part in parts}
        values = {f"pixel_{part}": getattr(pixel, part).value for part in parts}
        finite = bool(np.isfinite(scores).all())  # scaling a set whose maps are all alike has no value
        values["image_auroc"] = auroc(labels, scores) if finite else NAN
        values["image_average_precision"] = average_precision(labels, scores) if finite else NAN
        values["image_f1_max"] = f1_max(labels, scores) if finite else NAN
        draws, figures = self._replicates(scores), published_figures(self.rules.dataset).get(self.name, {})
        measures = {
            name: self.rules.measured(name, values[name], bounds.get(name, 0.0), draws[name], figures)
            for name in MEASURES
        }
        notes = [f"{name}: {_WHY[name]}" for name in MEASURES if np.isnan(values[name])]
        if self.unmasked:
            notes.append(f"{self.unmasked} abnormal images without a mask count for the image measures only")
        return ClassResult(self.name, len(self.cases), int(labels.sum()), measures, tuple(notes)), draws

    def telling_cases(self) -> dict[str, ScoredCase]:
        """Return the best, the median and the worst case by the average precision of their pixels, if any has one."""
        masked = sorted((one for one in self.cases if not np.isnan(one.pixel_ap)), key=lambda one: -one.pixel_ap)
        places = {"best": 0, "median": len(masked) // 2, "worst": len(masked) - 1}
        return {which: masked[place] for which, place in places.items()} if masked else {}

    def _replicates(self, scores: np.ndarray) -> dict[str, np.ndarray]:
        rules = self.rules
        draws = dict.fromkeys(MEASURES, np.full(1 + rules.replicates, NAN))
        if not rules.replicates:
            return draws
        if self.unmasked < len(self.cases):
            found = self.sketch.counts().replicates(rules.replicates, bootstrap_seed(rules.seed, self.name, "pixel"))
            draws |= {f"pixel_{name}": values for name, values in found.items()}
        if np.isfinite(scores).all():
            labels, units = [one.abnormal for one in self.cases], [one.unit for one in self.cases]
            counts = image_counts(labels, list(scores), units)
            found = counts.replicates(rules.replicates, bootstrap_seed(rules.seed, self.name, "image"))
            draws |= {f"image_{name}": values for name, values in found.items() if name != "aupro"}
        return draws


def mean_result(
    results: Sequence[ClassResult], draws: Sequence[Mapping[str, np.ndarray]], rules: ScoringRules
) -> ClassResult:
    """Average each measure over the classes that have it.

    Args:
        results: of the classes.
        draws: their replicates, see :meth:`AnomalyClass.result`.
        rules: how they were scored.
    """
    published = published_figures(rules.dataset)
    # Published means are over all classes of a set; those of other choices do not compare.
    complete = {one.name for one in results} >= published.keys() - {"mean"}
    figures = published.get("mean", {}) if complete else {}
    measures, notes = {}, []
    for name in MEASURES:
        known = [one.measures[name] for one in results if not np.isnan(one.measures[name].value)]
        value = float(np.mean([one.value for one in known])) if known else NAN
        bound = float(np.mean([one.bound for one in known])) if known else NAN
        if 0 < len(known) < len(results):
            notes.append(f"{name}: mean of the {len(known)} of {len(results)} classes that have it")
        elif not known:
            notes.append(f"{name}: {_WHY[name]}")
        measures[name] = rules.measured(name, value, bound, mean_replicates(draws, name), figures)
    images, abnormal = sum(one.images for one in results), sum(one.abnormal for one in results)
    return ClassResult("mean", images, abnormal, measures, tuple(notes))
