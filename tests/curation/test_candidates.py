"""Candidates among thousands: the right ones, in memory that does not rise with the square of their number."""

import tracemalloc

import numpy as np
import pytest

from monai_ext.curation.candidates import KEPT, NEAREST, Space, learn_space, nearest
from monai_ext.curation.signatures import signature, turned_signatures, turning, wave_numbers
from monai_ext.curation.turns import all_turns


def plain_space(axes: int) -> Space:
    """A space in which the first waves count, each alike."""
    waves = len(wave_numbers(axes))
    return Space(np.zeros(waves, np.float32), np.eye(waves, KEPT, dtype=np.float32), axes)


def random_signatures(scans: int, axes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((scans, len(wave_numbers(axes))), dtype=np.float32)


def test_distances_are_those_of_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_ext.curation.candidates.BLOCK", 5)  # several blocks, the last one cut off
    space, first, second = plain_space(3), random_signatures(13, 3), random_signatures(17, 3, seed=1)
    turned = space.place(turned_signatures(first, 3))
    usual = turned_signatures(second, 3)[space.usual_turns(second), np.arange(17)]
    expected = np.square(turned[:, :, None] - space.place(usual)).sum(axis=-1).min(axis=0)
    found = {(pair.first, pair.second): pair.distance for pair in nearest(space, first, second)}
    rows = {(row, int(column)) for row in range(13) for column in np.argsort(expected[row])[:NEAREST]}
    columns = {(int(row), column) for column in range(17) for row in np.argsort(expected[:, column])[:NEAREST]}
    assert found.keys() == rows | columns
    np.testing.assert_allclose([found[pair] for pair in found], [expected[pair] for pair in found], rtol=1e-3)


def test_one_list_pairs_no_scan_with_itself_and_no_pair_twice() -> None:
    found = [(pair.first, pair.second) for pair in nearest(plain_space(3), random_signatures(23, 3))]
    assert all(one < other for one, other in found)
    assert len(found) == len(set(found)) >= 23 * NEAREST / 2


def check_ten_thousand(axes: int) -> None:
    first, second = random_signatures(10_000, axes), random_signatures(10_000, axes, seed=1)
    rng = np.random.default_rng(2)
    planted = list(zip(rng.permutation(10_000)[:50].tolist(), rng.permutation(10_000)[:50].tolist(), strict=True))
    for one, other in planted:
        order, signs = turning(all_turns(axes)[int(rng.integers(len(all_turns(axes))))])
        second[other] = first[one][order] * signs + 0.1 * rng.standard_normal(second.shape[1])
    tracemalloc.start()
    found = nearest(plain_space(axes), first, second)
    peak_mb = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    close = {(pair.first, pair.second) for pair in found if pair.distance < 5}
    assert close == set(planted)
    assert peak_mb < 200  # all distances at once would be 400, and 48 times that


@pytest.mark.full
def test_ten_thousand_pictures_by_ten_thousand() -> None:
    check_ten_thousand(2)


@pytest.mark.full
def test_ten_thousand_volumes_by_ten_thousand() -> None:
    check_ten_thousand(3)


GRID = np.indices((32, 32, 32)) - 15.5
PATTERNS = 12 * np.random.default_rng(0).standard_normal((40, 4, 4, 4)).repeat(8, 1).repeat(8, 2).repeat(8, 3)


def scan(number: int, shift: float) -> np.ndarray:
    """A bright body that all scans share, longer than wide and not symmetric, in a faint pattern of each scan's own."""
    away = GRID - np.array([shift, 0, 0])[:, None, None, None]
    body = np.square(away / np.array([14, 9, 6])[:, None, None, None]).sum(0) < 1
    organ = np.square(away - np.array([8, 5, 4])[:, None, None, None]).sum(0) < 36
    return np.clip(60 + 60 * body + 90 * organ + PATTERNS[number], 0, 255).astype(np.uint8)


def signatures_of(shift: float) -> np.ndarray:
    return np.stack([signature(scan(number, shift)) for number in range(40)])


def test_the_learned_distance_tells_a_shift_from_another_scan() -> None:
    signatures, moved = signatures_of(0), signatures_of(2)
    space = learn_space([scan(number, 0) for number in range(40)], signatures)
    plain = np.square(moved[:, None] - signatures).sum(-1)
    learned = np.square(space.place(moved)[:, None] - space.place(signatures)).sum(-1)

    def contrast(distances: np.ndarray) -> float:
        return float(np.min(distances + 1e9 * np.eye(40), axis=1).mean() / np.diag(distances).mean())

    assert contrast(learned) > 2 * contrast(plain)
    assert np.array_equal(learned.argmin(axis=1), np.arange(40))


def test_scans_that_lie_otherwise_are_turned_before_they_are_compared() -> None:
    signatures, moved = signatures_of(0), signatures_of(2)
    turns = np.random.default_rng(1).integers(48, size=40)
    lying = turned_signatures(moved, 3)[turns, np.arange(40)]
    # Even where a quarter of the scans to learn from lies otherwise.
    mixed = np.concatenate([signatures, lying[:10]])
    space = learn_space([scan(number, 0) for number in range(40)], mixed)
    back = turned_signatures(lying, 3)[space.usual_turns(lying), np.arange(40)]
    np.testing.assert_allclose(back, moved, atol=1e-5)
    for first, second in ((signatures, lying), (lying, signatures)):
        found = nearest(space, first, second)
        closest = {one: min(pair.distance for pair in found if pair.first == one) for one in range(40)}
        assert {pair.second for pair in found if pair.distance == closest[pair.first]} == set(range(40))
        assert all(pair.first == pair.second for pair in found if pair.distance == closest[pair.first])
