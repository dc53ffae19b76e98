"""Thresholds for a chosen rate of false positives, from normal cases alone, and the file that holds them."""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from monai_ext.base import SettingError, replacing

_FORMAT = "monai_ext.calibration.1"


@dataclass(frozen=True)
class RateThreshold:
    """A threshold that a new normal case exceeds with at most a chosen probability.

    The threshold is an order statistic: a case like the ``cases`` normal ones exceeds the m-th smallest of them
    with probability at most (cases + 1 - m) / (cases + 1), whatever the distribution (Vovk et al. 2005).

    Attributes:
        rate: chosen.
        confidence: of both intervals.
        threshold: what a value must exceed to be called positive.
        threshold_low: lower limit of the quantile's interval, from order statistics; ``None`` where there are too
            few cases for one.
        threshold_high: upper limit, likewise.
        cases: normal cases.
        exceeding: how many of them exceed the threshold.
        rate_low: lower limit of the rate (Clopper and Pearson 1934).
        rate_high: upper limit.
    """

    rate: float
    confidence: float
    threshold: float
    threshold_low: float | None
    threshold_high: float | None
    cases: int
    exceeding: int
    rate_low: float
    rate_high: float


@dataclass(frozen=True)
class Calibration:
    """What normal cases say about the scores of abnormal ones.

    Attributes:
        kind: ``"volume"`` or ``"picture"``: what a rate is counted per.
        level: threshold of the log-odds of a map, above which a case has a candidate.
        score: threshold of a case's score, 0 to 1.
        levels: of the normal cases, rising.
        scores: of the normal cases, rising.
        settings: of the run, which inference must share.
    """

    kind: str
    level: RateThreshold
    score: RateThreshold
    levels: tuple[float, ...]
    scores: tuple[float, ...]
    settings: Mapping[str, Any]

    @property
    def threshold(self) -> float:
        """Log-odds that a candidate must exceed."""
        return self.level.threshold

    def rate_of(self, peak: float) -> float:
        """Return the rate at which normal cases reach a peak: 1 of n + 1 where none does."""
        return _reached(self.levels, peak)

    def score_rate_of(self, score: float) -> float:
        """Return the rate at which normal cases reach a case's score."""
        return _reached(self.scores, score)

    def sentence(self) -> str:
        """Say in one line what the threshold promises."""
        one = self.level
        return (
            f"calibrated on {one.cases} normal {self.kind}s: {100 * one.exceeding / one.cases:.2g} % of them have a "
            f"candidate ({100 * one.rate_low:.2g} to {100 * one.rate_high:.2g} % with {100 * one.confidence:g} % "
            "confidence)"
        )


def rate_threshold(values: Sequence[float] | np.ndarray, rate: float, confidence: float = 0.95) -> RateThreshold:
    """Choose a threshold from the values of normal cases.

    Args:
        values: one of each normal case.
        rate: of false positives, above 0 and below 1.
        confidence: of the intervals.

    Raises:
        SettingError: a rate or confidence out of range, values that are not finite, or fewer cases than the rate
            needs.
    """
    if not 0 < rate < 1 or not 0 < confidence < 1:
        raise SettingError(
            f"false_positive_rate is {rate} and confidence is {confidence}; give both between 0 and 1",
            code="setting.rate",
        )
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if not np.isfinite(ordered).all():
        raise SettingError(
            "calibration: some values are not finite; find the case they come from", code="setting.score"
        )
    n = len(ordered)
    rank = ceil(round((n + 1) * (1 - rate), 9))  # rounded, for 20 * 0.95 is a little more than 19
    if rank > n:
        raise _too_few(n, rate)
    threshold = float(ordered[rank - 1])
    exceeding = int((ordered > threshold).sum())
    below, above = _quantile_ranks(n, 1 - rate, confidence)
    interval = stats.binomtest(exceeding, n).proportion_ci(confidence, "exact")
    return RateThreshold(
        rate,
        confidence,
        threshold,
        float(ordered[below - 1]) if below else None,
        float(ordered[above - 1]) if above <= n else None,
        n,
        exceeding,
        float(interval.low),
        float(interval.high),
    )


def check_normal_cases(cases: int, kinds: Collection[str], rate: float | None = None) -> None:
    """Refuse normal cases that no threshold can come of, before any of them is looked at.

    Args:
        cases: how many there are.
        kinds: of them, ``"picture"`` and ``"volume"``.
        rate: of false positives that will be asked for.

    Raises:
        SettingError: pictures and volumes together, or too few cases for the rate.
    """
    if len(kinds) > 1:
        raise SettingError(
            "calibration: pictures and volumes together, whose rates cannot be compared; calibrate each alone",
            code="setting.calibration_kind",
        )
    if rate is not None and cases < _needed(rate):
        raise _too_few(cases, rate)


def write_calibration(path: str | os.PathLike[str], calibration: Calibration) -> None:
    """Write a calibration as JSON, and read it back.

    Raises:
        WriteError: the file could not be written.
    """
    content = {"format": _FORMAT, **asdict(calibration), "sentence": calibration.sentence()}
    with replacing(path, lambda written: _same(read_calibration(written), calibration)) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_calibration(path: str | os.PathLike[str], settings: Mapping[str, Any] | None = None) -> Calibration:
    """Read a calibration.

    Args:
        path: a file that :func:`write_calibration` wrote.
        settings: of this run; all must be those of the calibration.

    Raises:
        SettingError: no such file, another kind of file, or other settings.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise ValueError("another format")
        found = Calibration(
            str(content["kind"]),
            RateThreshold(**content["level"]),
            RateThreshold(**content["score"]),
            tuple(map(float, content["levels"])),
            tuple(map(float, content["scores"])),
            dict(content["settings"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingError(
            f"{path.name}: no calibration can be read from it; make one with calibrate.json", code="setting.calibration"
        ) from error
    for name, value in (settings or {}).items():
        if found.settings.get(name) != json.loads(json.dumps(value)):
            raise SettingError(
                f"{path.name}: calibrated with {name} {found.settings.get(name)!r}, this run has {value!r}; calibrate "
                "again with this run's settings, or leave the calibration out",
                code="setting.calibration",
            )
    return found


def _needed(rate: float) -> int:
    return ceil(round(1 / rate - 1, 9))


def _too_few(cases: int, rate: float) -> SettingError:
    return SettingError(
        f"calibration: {cases} normal cases cannot tell a rate of {rate:g}; give {_needed(rate)} or more, or a rate of "
        f"{1 / (cases + 1):.3g} or more",
        code="setting.calibration_cases",
    )


def _reached(ordered: Sequence[float], value: float) -> float:
    at_least = len(ordered) - int(np.searchsorted(ordered, value, side="left"))
    return (at_least + 1) / (len(ordered) + 1)


def _quantile_ranks(n: int, share: float, confidence: float) -> tuple[int, int]:
    """Return ranks from 1 on between whose values the quantile lies; 0 and n + 1 stand for the infinities."""
    # The number of cases below the quantile is binomial.
    low, high = stats.binom.ppf([(1 - confidence) / 2, (1 + confidence) / 2], n, share)
    return int(low), int(high) + 1


def _same(written: Calibration, calibration: Calibration) -> None:
    if json.dumps(asdict(written)) != json.dumps(asdict(calibration)):
        raise SettingError("calibration: what was written does not read back; check the disk", code="write.verify")
