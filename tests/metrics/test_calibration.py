"""Thresholds from order statistics: closed forms, and rates over many repetitions."""

import json

import numpy as np
import pytest
from scipy import stats

from monai_ext.base import SettingError
from monai_ext.metrics import Calibration, rate_threshold, read_calibration, write_calibration


@pytest.mark.parametrize(
    ("cases", "rate", "rank"),
    [(19, 0.05, 19), (20, 0.05, 20), (39, 0.05, 38), (99, 0.05, 95), (100, 0.1, 91), (9, 0.1, 9), (1, 0.5, 1)],
)
def test_the_threshold_is_the_order_statistic(cases: int, rate: float, rank: int) -> None:
    values = np.random.default_rng(2).permutation(np.arange(1.0, cases + 1))
    found = rate_threshold(values, rate)
    assert found.threshold == rank
    assert found.exceeding == cases - rank
    assert (cases + 1 - rank) / (cases + 1) <= rate  # what a new normal case exceeds
    assert (cases + 2 - rank) / (cases + 1) > rate  # and no lower threshold would do


def test_intervals_are_the_textbooks() -> None:
    found = rate_threshold(np.arange(100.0), 0.1)
    assert found.exceeding == 9
    # Clopper and Pearson by the beta distribution.
    assert found.rate_low == pytest.approx(stats.beta.ppf(0.025, 9, 92))
    assert found.rate_high == pytest.approx(stats.beta.ppf(0.975, 10, 91))
    ranks = int(found.threshold_low) + 1, int(found.threshold_high) + 1  # values count from 0
    inside = sum(stats.binom.pmf(k, 100, 0.9) for k in range(ranks[0], ranks[1]))
    assert 0.95 <= inside < 0.98
    few = rate_threshold(np.arange(19.0), 0.05)
    assert few.threshold_high is None


def test_the_rate_holds_for_new_cases() -> None:
    generator = np.random.default_rng(3)
    exceeded = [generator.normal() > rate_threshold(generator.normal(size=29), 0.1).threshold for _ in range(2000)]
    # 3 of 30 exactly; three standard errors of 2000 repetitions.
    assert np.mean(exceeded) == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize(
    ("values", "rate", "sentence"),
    [
        ([1.0] * 18, 0.05, r"18 normal cases cannot tell a rate of 0.05; give 19 or more, or a rate of 0.0526 or more"),
        ([1.0], 0.0, "false_positive_rate is 0.0"),
        ([1.0, np.nan], 0.5, "not finite"),
    ],
)
def test_what_cannot_be(values: list[float], rate: float, sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        rate_threshold(values, rate)


def calibration() -> Calibration:
    values = tuple(float(value) for value in np.linspace(-1, 2, 21))
    return Calibration(
        "volume",
        rate_threshold(values, 0.1),
        rate_threshold(values, 0.1),
        values,
        values,
        {"window_hu": [-45.0, 105.0]},
    )


def test_a_file_gives_back_what_was_written(tmp_path) -> None:
    write_calibration(tmp_path / "c.json", calibration())
    assert read_calibration(tmp_path / "c.json", {"window_hu": (-45, 105)}) == calibration()
    sentence = json.loads((tmp_path / "c.json").read_text())["sentence"]
    assert sentence == (
        "calibrated on 21 normal volumes: 4.8 % of them have a candidate (0.12 to 24 % with 95 % confidence)"
    )
    with pytest.raises(
        SettingError, match=r"c\.json: calibrated with window_hu \[-45.0, 105.0\], this run has \[0, 80"
    ):
        read_calibration(tmp_path / "c.json", {"window_hu": [0, 80]})


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": "other"}', '{"format": "monai_ext.calibration.1"}'])
def test_other_files_are_refused(tmp_path, content: str) -> None:
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(SettingError, match=r"^c\.json: no calibration can be read"):
        read_calibration(tmp_path / "c.json")
    with pytest.raises(SettingError, match=r"^none\.json: no calibration"):
        read_calibration(tmp_path / "none.json")


def test_rates_count_what_is_at_least_as_large() -> None:
    found = calibration()
    assert found.rate_of(5.0) == 1 / 22
    assert found.rate_of(2.0) == 2 / 22
    assert found.rate_of(-9.0) == 1.0
