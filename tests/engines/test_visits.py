"""The plan of visits: complete, by weight, well mixed, different by epoch and rank, resumable at any step."""

from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist
from monai.data import DataLoader
from monai.transforms import RandShiftIntensity

from monai_ext.base import SettingError
from monai_ext.engines import Draw, DrawDataset, VisitPlan


def as_rank(monkeypatch: pytest.MonkeyPatch, rank: int, world: int) -> None:
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda: rank)
    monkeypatch.setattr(dist, "get_world_size", lambda: world)


def of_epoch(plan: VisitPlan, epoch: int) -> list[Draw]:
    plan.epoch = epoch
    return list(plan)


@pytest.mark.parametrize(("items", "crops", "spread"), [(7, 3, 4), (1, 5, 8), (3, 8, 16), (41, 8, 0), (101, 1, 64)])
def test_equal_weights_draw_every_volume_equally_often(items: int, crops: int, spread: int) -> None:
    plan = VisitPlan([0.3] * items, items * crops, 3, crops, spread)
    draws = list(plan)
    assert len(plan) == len(draws) == items * crops
    assert Counter(draw.item for draw in draws) == dict.fromkeys(range(items), crops)
    assert sorted(draw.slot for draw in draws) == list(range(items * crops))  # no random number twice
    # The crops of a visit are neighbours among the slots, wherever they stand in the epoch.
    assert len({(draw.item, draw.slot // crops) for draw in draws}) == items


def test_epochs_and_seeds_differ() -> None:
    plan = VisitPlan([1] * 11, 44, 3, 4)
    orders = [[draw.item for draw in of_epoch(plan, epoch)] for epoch in (0, 1)]
    orders.append([draw.item for draw in VisitPlan([1] * 11, 44, 4, 4)])
    assert len(set(map(tuple, orders))) == 3


def test_volumes_are_drawn_by_weight() -> None:
    weights = np.array([0.5, 3, 0, 1, 1, 2.25])
    plan = VisitPlan(weights, 31 * 4, 1, 4)
    share = 31 * weights / weights.sum()
    seen = np.zeros(6)
    for epoch in range(400):
        counts = np.bincount([draw.item for draw in of_epoch(plan, epoch)], minlength=6) / 4
        assert counts.sum() == 31
        assert ((counts == np.floor(share)) | (counts == np.ceil(share))).all()
        seen += counts
    # The error of a mean of 400 numbers, each the share rounded up or down at random, is below 0.025; four of them.
    assert np.abs(seen / 400 - share).max() < 0.1
    assert seen[2] == 0


def test_visits_to_one_volume_are_spaced_over_the_epoch() -> None:
    order = VisitPlan([1] * 7, 7 * 6, 5, 1)._order(42).reshape(6, 7)
    for part in order:  # before any volume comes again, all have come
        assert sorted(part) == list(range(7))


@pytest.mark.parametrize(
    ("items", "crops", "spread", "apart"),
    [(97, 8, 64, 65), (97, 8, 7, 9), (65, 8, 64, 65), (64, 8, 64, 57), (50, 3, 16, 19), (9, 8, 64, 9)],
)
def test_a_batch_holds_one_crop_of_a_visit(items: int, crops: int, spread: int, apart: int) -> None:
    draws = list(VisitPlan([1] * items, items * crops, 2, crops, spread))
    places = defaultdict(list)
    for place, draw in enumerate(draws):
        places[draw.item].append(place)
    assert min(np.diff(where).min() for where in places.values()) == apart


def test_few_volumes_take_turns() -> None:
    items = [draw.item for draw in VisitPlan([1] * 5, 40, 2, 8, 64)]
    assert all(len(set(items[first : first + 5])) >= 3 for first in range(36))
    assert all(one != two for one, two in pairwise(items))


def test_unspread_crops_follow_one_another() -> None:
    items = [draw.item for draw in VisitPlan([1] * 5, 20, 2, 4, 0)]
    assert all(len(set(items[first : first + 4])) == 1 for first in range(0, 20, 4))


def test_crops_of_a_visit_stay_near_for_the_page_cache() -> None:
    draws = list(VisitPlan([1] * 1000, 8000, 2, 8, 64))
    first, last = {}, {}
    for place, draw in enumerate(draws):
        first.setdefault(draw.item, place)
        last[draw.item] = place
    spans = np.array([last[item] - first[item] for item in first])
    # 7 gaps of 64 draws; what the end of the epoch cuts through, 56 of 1000 visits, goes on at its beginning.
    assert np.sort(spans)[-57] <= 7 * 65
    in_use = np.add.accumulate(np.bincount(list(first.values()), minlength=8000))
    gone = np.add.accumulate(np.bincount(list(last.values()), minlength=8000))
    assert (in_use - gone).max() <= 64 + 56


@pytest.mark.parametrize("start", [0, 1, 5, 16, 39, 40])
def test_starting_late_gives_the_rest_of_the_same_plan(start: int) -> None:
    plan = VisitPlan([1, 2, 3], 37, 1, 4, 2)
    whole = list(plan)
    plan.start = start
    assert list(plan) == whole[start:]
    assert len(plan) == len(whole) == 40  # the length of an epoch, whatever is left of this one


def test_ranks_share_one_plan_and_a_volume_stays_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = sorted(VisitPlan([1] * 12, 48, 1, 4, 3))
    shares = []
    for rank in range(3):
        as_rank(monkeypatch, rank, 3)
        shares.append(list(VisitPlan([1] * 12, 48, 1, 4, 3)))
    assert sorted(draw for share in shares for draw in share) == alone
    assert [len(share) for share in shares] == [16] * 3
    items = [{draw.item for draw in share} for share in shares]
    assert not items[0] & items[1] | items[0] & items[2] | items[1] & items[2]


def test_ranks_that_do_not_divide_the_visits_have_equal_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    slots = []
    for rank in range(4):
        as_rank(monkeypatch, rank, 4)
        slots += [draw.slot for draw in VisitPlan([1] * 5, 10, 1, 2)]
    assert sorted(slots) == list(range(16))  # 5 visits are 8 of 4 ranks


def batches(workers: int, start: int = 0) -> list[Any]:
    data = DrawDataset([np.zeros(3)] * 5, RandShiftIntensity(offsets=1.0, prob=1.0), seed=5)
    plan = VisitPlan([1] * 5, 10, 5, 2)
    plan.start = start
    return [batch.numpy() for batch in DataLoader(data, sampler=plan, batch_size=2, num_workers=workers)]


def test_workers_play_no_part_and_a_late_start_repeats_the_rest() -> None:
    alone = batches(0)
    assert len(alone) == 5
    for one, two in zip(alone, batches(2), strict=True):
        np.testing.assert_array_equal(one, two)
    for one, two in zip(alone[3:], batches(0, start=6), strict=True):
        np.testing.assert_array_equal(one, two)


def test_an_epoch_of_ten_thousand_volumes() -> None:
    weights = np.random.default_rng(0).uniform(0.1, 3, 10_000)
    counts = np.bincount([draw.item for draw in VisitPlan(weights, 80_000)], minlength=10_000) / 8
    assert np.abs(counts - 10_000 * weights / weights.sum()).max() < 1


@pytest.mark.parametrize("weights", [[], [0, 0], [1, -1], [1, float("nan")], [True, 1], ["1", 2]])
def test_weights_that_cannot_be_are_said(weights: list[Any]) -> None:
    with pytest.raises(SettingError, match=r"^weights: the \d volumes need weights of 0 or more, and one above 0"):
        VisitPlan(weights, 8)


@pytest.mark.parametrize(("name", "value"), [("draws", 0), ("crops_per_visit", 0.5), ("spread", -1)])
def test_numbers_that_cannot_be_are_said(name: str, value: float) -> None:
    with pytest.raises(SettingError, match=rf"^{name}: {value} is not a whole number from [01] on"):
        VisitPlan([1], **{"draws": 8, name: value})


def test_visit_longer_than_an_epoch_is_said() -> None:
    with pytest.raises(
        SettingError, match=r"^crops_per_visit: 9 is more than the 8 crops of an epoch; give 8 or fewer"
    ):
        VisitPlan([1, 1], 8, crops_per_visit=9)
    assert len(VisitPlan([1, 1], 8, crops_per_visit=8)) == 8


@pytest.mark.parametrize("unit", [1e308, 1e-320, 5e-324])
def test_only_proportions_of_weights_count(unit: float) -> None:
    assert list(VisitPlan([unit] * 5, 40, crops_per_visit=4)) == list(VisitPlan([1] * 5, 40, crops_per_visit=4))
