"""The plan of samples: complete, different by epoch and rank, and resumable at any step."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from monai.data import DataLoader
from monai.transforms import (
    Compose,
    RandFlipd,
    RandGaussianNoised,
    RandRotate90d,
    RandShiftIntensity,
    RandShiftIntensityd,
)

from monai_ext.base import SettingError, StoreError
from monai_ext.engines import Draw, DrawDataset, DrawPlan, RankShare
from monai_ext.engines.draws import reseed


def as_rank(monkeypatch: pytest.MonkeyPatch, rank: int, world: int) -> None:
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda: rank)
    monkeypatch.setattr(dist, "get_world_size", lambda: world)


def test_an_epoch_visits_every_scan_equally_often_in_a_new_order() -> None:
    plan = DrawPlan(items=7, draws=21, seed=3)
    first = [draw.item for draw in plan]
    plan.epoch = 1
    second = [draw.item for draw in plan]
    assert np.bincount(first).tolist() == [3] * 7
    assert sorted(first[:7]) == list(range(7))  # a whole pass before any scan comes again
    assert first != second
    assert first != [draw.item for draw in DrawPlan(items=7, draws=21, seed=4)]


@pytest.mark.parametrize("start", [0, 1, 5, 16, 17])
def test_starting_late_gives_the_rest_of_the_same_plan(start: int) -> None:
    plan = DrawPlan(items=5, draws=17, seed=1)
    whole = list(plan)
    plan.start = start
    assert list(plan) == whole[start:]
    assert len(plan) == 17  # the length of an epoch, whatever is left of this one


def test_ranks_share_one_plan_without_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = list(DrawPlan(items=5, draws=12, seed=1))
    shares = []
    for rank in range(3):
        as_rank(monkeypatch, rank, 3)
        shares.append(list(DrawPlan(items=5, draws=12, seed=1)))
    assert sorted((draw for share in shares for draw in share), key=lambda draw: draw.slot) == alone


def test_random_numbers_derive_from_the_draw_not_from_what_was_drawn_before() -> None:
    data = DrawDataset([np.zeros(3)] * 2, RandShiftIntensity(offsets=1.0, prob=1.0), seed=5)
    one = data[Draw(1, 2, 3)]
    data[Draw(0, 0, 0)]
    np.testing.assert_array_equal(one, data[Draw(1, 2, 3)])
    for other in (Draw(1, 2, 4), Draw(1, 3, 3)):
        assert not np.array_equal(one, data[other])


def chain() -> Compose:
    return Compose(
        [
            RandShiftIntensityd("image", offsets=1.0, prob=1.0),
            Compose([RandFlipd("image", prob=0.5, spatial_axis=0), RandFlipd("image", prob=0.5, spatial_axis=1)]),
            RandRotate90d("image", prob=0.5, spatial_axes=(0, 1)),
            RandGaussianNoised("image", prob=1.0),
        ]
    )


def test_reseeding_gives_the_numbers_of_a_new_seed() -> None:
    image = {"image": torch.arange(35.0).reshape(1, 5, 7)}
    used = chain()
    seen = []
    for seed in (7, 7, 2**32 - 1, 12345):
        reseed(used, seed)
        seen.append(used(image)["image"])
        torch.testing.assert_close(seen[-1], chain().set_random_state(seed)(image)["image"], rtol=0, atol=0)
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[3])


def test_reseeding_one_transform_leaves_others_alone() -> None:
    one, other = RandFlipd("image"), RandFlipd("image")  # both begin with the generator of their class
    reseed(one, 3)
    reseed(other, 4)
    before = other.R.get_state()[1].copy()
    reseed(one, 5)
    np.testing.assert_array_equal(other.R.get_state()[1], before)


def batches(workers: int, start: int = 0) -> list[Any]:
    data = DrawDataset([np.zeros(3)] * 5, RandShiftIntensity(offsets=1.0, prob=1.0), seed=5)
    plan = DrawPlan(items=5, draws=10, seed=5)
    plan.start = start
    return [batch.numpy() for batch in DataLoader(data, sampler=plan, batch_size=2, num_workers=workers)]


def test_workers_play_no_part_and_a_late_start_repeats_the_rest() -> None:
    alone = batches(0)
    assert len(alone) == 5
    for one, two in zip(alone, batches(2), strict=True):
        np.testing.assert_array_equal(one, two)
    for one, two in zip(alone[3:], batches(0, start=6), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(("items", "draws"), [(0, 3), (3, 0)])
def test_nothing_to_draw_is_said(items: int, draws: int) -> None:
    with pytest.raises(SettingError, match="leave nothing to draw"):
        DrawPlan(items, draws)


@pytest.mark.parametrize(("size", "world"), [(7, 2), (3, 5), (4, 4)])
def test_rank_shares_cover_every_case(monkeypatch: pytest.MonkeyPatch, size: int, world: int) -> None:
    seen = []
    for rank in range(world):
        as_rank(monkeypatch, rank, world)
        share = RankShare(range(size))  # type: ignore[arg-type]
        assert len(share) == len(list(share)) > 0
        seen += list(share)
    assert set(seen) == set(range(size))
    assert len(seen) == (size if size >= world else size * world)


class Torn:
    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        raise StoreError("ct: torn; prepare it again", code="store.altered", case="ct")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_torn_volume_keeps_its_sentence_on_the_way_home_from_a_worker(workers: int) -> None:
    data = DrawDataset([{"image": "ct"}], Compose([Torn()]))  # MONAI wraps errors of transforms
    with pytest.raises(StoreError, match=r"ct: torn; prepare it again\s*$"):
        list(DataLoader(data, num_workers=workers))
