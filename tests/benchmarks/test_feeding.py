"""What the benchmarks of feeding say that no clock is needed for: nothing grows, little is read, little is stored."""

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import feeding
import feeding_leak
from feeding_loaders import FOLDERS, loader, write_files


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_nothing_grows_from_batch_to_batch(tmp_path: Path) -> None:
    store = feeding_leak.write_store(tmp_path, 20)
    states = feeding_leak.run(store, 240, workers=2, points=6)
    assert [row["batch"] for row in states] == sorted({row["batch"] for row in states})
    assert len(states) == 6
    # From the second point on: the first batches load what later ones need too.
    assert feeding_leak.grown(states[1], states[-1]) == []


def test_growth_is_told() -> None:
    first = {"main_mb": 300.0, "workers_mb": 400.0, "open_files": 20.0, "shared_pieces": 3.0}
    assert feeding_leak.grown(first, {**first, "open_files": 30.0, "main_mb": 320.0}) == []
    last = {"main_mb": 340.0, "workers_mb": 300.0, "open_files": 40.0, "shared_pieces": 120.0}
    assert feeding_leak.grown(first, last) == ["open_files", "shared_pieces", "main_mb"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("feeding")
    write_files(folder, 2, 128, None)
    return folder


def test_a_crop_reads_little_more_than_its_chunks(files: Path) -> None:
    found = feeding.touched(files)
    assert found["asked_beside_touched"] < 1.6
    assert found["touched_mb_a_crop"] > 0.5


def test_the_store_takes_a_quarter_of_the_published_files(files: Path) -> None:
    sizes = {name: sum(path.stat().st_size for path in (files / FOLDERS[name]).iterdir()) for name in FOLDERS}
    assert sizes["store"] < sizes["published"] / 4


@pytest.mark.parametrize("recipe", feeding.RECIPES)
def test_every_recipe_gives_eight_crops_of_each_volume(files: Path, recipe: str) -> None:
    batches, _ = loader(recipe, files, 0)
    images: list[Any] = [batch["image"] for batch in batches]
    assert [tuple(image.shape) for image in images] == [(8, 1, 96, 96, 96)] * 2
    for image in images:
        assert image.min() == 0
        assert 0.8 < image.max() <= 1
