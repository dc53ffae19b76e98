"""Which adapters a run leaves, by which rule, and how its validation ranks pixels."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from sklearn.metrics import average_precision_score, roc_auc_score

from monai_ext.engines import build_clip
from monai_ext.handlers import AdapterFiles, BestAdapters, MapRanking
from monai_ext.networks import AAClip, PromptTable, read_adapters

TINY = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 10, "layers": 4, "width": 16, "head_width": 8, "patch_size": 5},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 3},
}


@pytest.fixture
def network() -> AAClip:
    return AAClip(build_clip(TINY, None), text_adapt_until=1)


def validated(value: float, epoch: int) -> Any:
    return SimpleNamespace(state=SimpleNamespace(metrics={"val_pixel_ap": value}, epoch=epoch))


def mark(network: AAClip, value: float) -> None:
    with torch.no_grad():
        network.adapters.text_adapter[0].fc[0].weight.fill_(value)


def marked(path: Path) -> float:
    return float(read_adapters(path)[0]["text_adapter.0.fc.0.weight"][0, 0])


def finish(files: AdapterFiles, epochs: int) -> None:
    engine = Engine(lambda engine, batch: None)
    files.attach(engine)
    engine.run([0], max_epochs=epochs)


def test_the_best_and_the_last_are_kept_and_the_rule_is_told(
    network: AAClip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = BestAdapters(str(tmp_path), network, "val_pixel_ap", PromptTable.published())
    for epoch, value in enumerate([0.3, 0.7, float("nan"), 0.5], start=1):
        mark(network, epoch)
        best(validated(value, epoch))
    finish(AdapterFiles(best, 2, 31, "out"), 4)
    assert marked(tmp_path / "adapters.safetensors") == 2
    assert marked(tmp_path / "last.safetensors") == 4
    choice = json.loads((tmp_path / "choice.json").read_text())
    assert (choice["stage"], choice["epoch"], choice["of_epochs"], choice["value"]) == (2, 2, 4, 0.7)
    rule = "the epoch with the highest val_pixel_ap on 31 held-out pictures of the source sets; no test picture"
    assert choice["rule"].startswith(rule)
    assert rule in capsys.readouterr().out
    assert read_adapters(tmp_path / "adapters.safetensors")[1].prompts is not None


def test_without_a_validation_the_last_is_the_result(network: AAClip, tmp_path: Path) -> None:
    best = BestAdapters(str(tmp_path), network, "val_pixel_ap", PromptTable.published())
    best(validated(float("nan"), 1))
    mark(network, 5)
    finish(AdapterFiles(best, 1, 0, "out"), 2)
    assert marked(tmp_path / "adapters.safetensors") == marked(tmp_path / "last.safetensors") == 5
    assert json.loads((tmp_path / "choice.json").read_text())["rule"].startswith("the last epoch")


def test_the_best_comes_along_into_another_folder(network: AAClip, tmp_path: Path) -> None:
    best = BestAdapters(str(tmp_path / "a"), network, "val_pixel_ap", PromptTable.published())
    mark(network, 1)
    best(validated(0.9, 1))
    mark(network, 2)
    other = BestAdapters(str(tmp_path / "b"), network, "val_pixel_ap", PromptTable.published())
    other.load_state_dict(best.state_dict())
    assert marked(tmp_path / "b" / "adapters.safetensors") == 1
    assert network.adapters.text_adapter[0].fc[0].weight[0, 0].item() == 2
    before = (tmp_path / "b" / "adapters.safetensors").read_bytes()
    other(validated(0.8, 2))
    assert (tmp_path / "b" / "adapters.safetensors").read_bytes() == before


class Loader(list[Any]):
    """Batches that know their data set, as a DataLoader does."""

    dataset: Any


def ranked(size: int, rows: list[tuple[str, int, np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Run the handler over batches of two, with two levels whose mean is the map."""
    engine = Engine(lambda engine, batch: batch)
    batches = []
    for start in range(0, len(rows), 2):
        part = rows[start : start + 2]
        maps = torch.stack([torch.from_numpy(row[2]) for row in part])
        pair = [torch.stack([1 - maps + shift, maps - shift], dim=1) for shift in (0.1, -0.1)]
        batches.append(
            {
                "pred": SimpleNamespace(maps=pair),
                "label": {
                    "mask": torch.stack([torch.from_numpy(row[3]).float() for row in part])[:, None],
                    "label": torch.tensor([row[1] for row in part]),
                    "class_name": [row[0] for row in part],
                },
                "val_loss": torch.tensor(float(start)),
            }
        )
    MapRanking(size).attach(engine)
    loader = Loader(batches)
    loader.dataset = rows
    engine.run(loader, max_epochs=1)
    return dict(engine.state.metrics)


def toy(seed: int = 0, shape: tuple[int, int] = (11, 7)) -> list[tuple[str, int, np.ndarray, np.ndarray]]:
    generator = np.random.default_rng(seed)
    rows = []
    for name in ("a", "b"):
        for label in (0, 1, 1):
            mask = np.zeros(shape, bool)
            if label:
                mask[2:5, 1:4] = True
            rows.append((name, label, (generator.random(shape) + 0.4 * mask).astype(np.float32), mask))
    return rows


def test_pixels_are_ranked_class_by_class() -> None:
    rows = toy()
    found = ranked(128, rows)
    for name, metric in (("val_pixel_ap", average_precision_score), ("val_pixel_auroc", roc_auc_score)):
        values = []
        for kind in ("a", "b"):
            scores = np.concatenate([row[2].ravel() for row in rows if row[0] == kind])
            truth = np.concatenate([row[3].ravel() for row in rows if row[0] == kind])
            values.append(metric(truth, scores))
        assert found[name] == pytest.approx(np.mean(values), abs=1e-6)  # levels are averaged in float32
    images = [roc_auc_score([0, 1, 1], [row[2].max() for row in rows if row[0] == kind]) for kind in ("a", "b")]
    assert found["val_image_auroc"] == pytest.approx(np.mean(images))
    assert found["val_loss"] == pytest.approx(np.mean([0, 0, 2, 2, 4, 4]))


def test_large_maps_are_scored_smaller() -> None:
    rows = [(name, label, np.kron(scores, np.ones((4, 4), np.float32)), np.kron(mask, np.ones((4, 4), bool)))
            for name, label, scores, mask in toy()]  # fmt: skip
    assert ranked(11, rows)["val_pixel_ap"] == pytest.approx(ranked(128, toy())["val_pixel_ap"], abs=1e-6)


def test_a_mask_made_smaller_takes_the_nearest_pixel() -> None:
    rows = [
        (name, label, np.kron(scores, np.ones((5, 5), np.float32)), np.kron(mask, np.ones((5, 5), bool)))
        for name, label, scores, mask in toy()
    ]
    before = ranked(11, rows)["val_pixel_ap"]
    for row in rows:
        row[3][::5, ::5] = True  # corners of blocks of 5; their centres are what counts
    assert ranked(11, rows)["val_pixel_ap"] == before


def test_a_class_without_abnormal_pixels_does_not_count() -> None:
    rows = toy()
    normal = [("c", 0, row[2], np.zeros_like(row[3])) for row in rows[:2]]
    assert ranked(128, [*rows, *normal])["val_pixel_ap"] == pytest.approx(ranked(128, rows)["val_pixel_ap"])
    assert math.isnan(ranked(128, normal)["val_pixel_ap"])
