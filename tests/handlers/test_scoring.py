"""Scores of an evaluator, and of several ranks that share its cases or repeat them."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from monai_ext.base import SettingError
from monai_ext.handlers import CaseScoring, scoring

NAMES = {0: "background", 1: "liver (left lobe)", 2: "spleen"}


def engine(cases: list[str], of: int, seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    volumes = [torch.randint(0, 3, (2, 1, 5, 3, 7), generator=generator) for _ in cases]
    return SimpleNamespace(
        state=SimpleNamespace(
            batch=[{"case": case} for case in cases],
            output=[{"pred": pred, "label": label} for pred, label in volumes],
            dataloader=SimpleNamespace(dataset=range(of)),
            metrics={},
        )
    )


def scored(job: Any, monkeypatch: pytest.MonkeyPatch, others: list[Any] | None = None) -> CaseScoring:
    if others is not None:
        monkeypatch.setattr(scoring, "gather", lambda own: [own, *others])
    scores = CaseScoring(NAMES, surfaces=False)
    scores._reset(job)
    scores._add(job)
    scores._finish(job)
    return scores


def test_ranks_pool_their_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = scored(engine(["b"], 1, seed=2), monkeypatch).scores
    ours = engine(["a"], 2, seed=1)
    pooled = scored(ours, monkeypatch, [theirs]).scores
    assert [(s.case, s.class_id) for s in pooled] == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    spleens = [s.dice for s in pooled if s.class_id == 2]
    assert ours.state.metrics["dice_spleen"] == pytest.approx(sum(spleens) / 2)


def test_cases_that_every_rank_scored_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = scored(engine(["a"], 1, seed=1), monkeypatch).scores
    assert scored(engine(["a"], 1, seed=1), monkeypatch, [alone, alone]).scores == alone


def test_metrics_bear_names_that_mlflow_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    job = engine(["a"], 1, seed=1)
    scored(job, monkeypatch)
    assert set(job.state.metrics) == {"val_mean_dice", "dice_liver _left lobe_", "dice_spleen"}


@pytest.mark.parametrize("tolerance", [-1, "2", None, float("nan")])
def test_a_tolerance_that_is_no_length_is_refused_before_scans_are_segmented(tolerance: Any) -> None:
    with pytest.raises(SettingError, match=r"^tolerance_mm: .*; give mm from 0 up"):
        CaseScoring(NAMES, tolerance_mm=tolerance)
