"""Batches written in place are those that copying makes, to the last bit, and none that is in use is written over."""

import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor, list_data_collate
from torch.utils.data import Dataset

from monai_ext.base import SettingError, window_hu
from monai_ext.transforms import (
    BatchMemory,
    PlacedBatch,
    PlacedSamples,
    RandStoreCrop,
    RandStoreCropd,
    claim_memory,
    collate_placed,
)
from monai_ext.transforms.batch_memory import KEPT
from monai_ext.volumes import Body, VolumeStore
from monai_ext.volumes.store_write import NewVolume, write_volume

SHAPE = (67, 41, 53)
SAMPLES = 5
WINDOW = (-175, 250)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of one volume with uint8 labels and one with uint16 labels."""
    folder = tmp_path_factory.mktemp("store")
    affine = np.array([[1.5, 0.1, 0, -7], [-0.1, 1.5, 0, 3], [0, 0, 2.5, 11], [0, 0, 0, 1]])
    for number, kind in enumerate([np.uint8, np.uint16]):
        hu = np.random.default_rng(number).integers(-1024, 1500, SHAPE).astype(np.int16)
        volume = NewVolume(
            id=f"ct_{number}",
            hu=hu,
            affine=affine,
            spacing_mm=(1.5, 1.5, 2.5),
            source=f"{number}.nii",
            source_root="0123abcd",
            source_sha256="ab" * 32,
            source_shape=SHAPE,
            source_affine=affine,
            settings={},
            body=Body(((3, 2, 50), (6, 5, 52)), np.array([[3, 2, 50], [60, 30, 11]])),
            label=((hu.astype(int) + 1024) * 7 % np.iinfo(kind).max).astype(kind),
        )
        write_volume(folder, volume)
    return folder


class Crops(Dataset[Any]):
    """Crops whose place depends on the index alone, and perhaps a change after each."""

    def __init__(self, cut: RandStoreCropd, after: Callable[[int, dict[Any, Any]], Any] = lambda _, item: item) -> None:
        self.cut, self.after = cut, after

    def __len__(self) -> int:
        return 3 * SAMPLES

    def __getitem__(self, index: int) -> Any:
        self.cut.set_random_state(index)
        return self.after(index, self.cut({"image": f"ct_{index % 2}", "number": index}))


def naive(folder: Path, place: tuple[int, ...], size: tuple[int, ...], name: str, kind: Any, fill: float) -> Any:
    """Look up every voxel of the crop by its index in the whole volume."""
    whole = VolumeStore(folder).volume(name, kind)
    index = np.indices(size).reshape(3, -1) + np.reshape(place, (3, 1))
    inside = ((index >= 0) & (index < np.reshape(SHAPE, (3, 1)))).all(axis=0)
    out = np.full(index.shape[1], fill, np.float32)
    out[inside] = whole[tuple(index[:, inside])]
    return torch.from_numpy(out.reshape(size))


@pytest.mark.parametrize(
    ("size", "window"),
    [
        ((11, 13, 7), None),
        ((11, 13, 7), (-175.5, 250.25)),
        ((67, 41, 53), WINDOW),
        ((5, 47, 60), WINDOW),
        ((5, 47, 60), (-40000, 250)),
        ((71, 43, 3), None),
    ],
)
def test_placed_crops_are_the_copied_ones(folder, size, window):
    data = Crops(RandStoreCropd("image", folder, size, pad_hu=-1000.3, window_hu=window, label_key="label"))
    samples = PlacedSamples(data).__getitems__(list(range(SAMPLES)))
    batch, expected = collate_placed(samples), list_data_collate([data[index] for index in range(SAMPLES)])
    assert list(batch) == list(expected) == ["image", "number", "label"]
    for key in ("image", "label"):
        assert batch[key].data_ptr() == samples[0][key].data_ptr()  # not copied
        same_but_for_memory(batch[key], expected[key])
    assert torch.equal(batch["number"], expected["number"])
    for index in (0, SAMPLES - 1):
        data[index]
        where = data.cut.cut.start, size, f"ct_{index % 2}"
        image = naive(folder, *where, "image", -1000.3)
        assert torch.equal(batch["image"][index, 0].as_tensor(), image if window is None else window_hu(image, window))
        assert torch.equal(batch["label"][index, 0].as_tensor(), naive(folder, *where, "label", 0).int())


def same_but_for_memory(batch: MetaTensor, expected: MetaTensor) -> None:
    assert type(batch) is type(expected) is MetaTensor
    assert (batch.dtype, batch.shape) == (expected.dtype, expected.shape)
    assert torch.equal(batch.as_tensor(), expected.as_tensor())
    assert batch.meta.keys() == expected.meta.keys()
    assert batch.meta["filename_or_obj"] == expected.meta["filename_or_obj"]
    assert torch.equal(batch.affine, expected.affine)
    assert batch.applied_operations == expected.applied_operations
    assert (batch.is_batch, batch.spatial_ndim) == (expected.is_batch, expected.spatial_ndim)


def flipped(index: int, item: dict[Any, Any]) -> dict[Any, Any]:
    return {**item, "image": item["image"].flip(1)} if index == 3 else item


def turned(index: int, item: dict[Any, Any]) -> dict[Any, Any]:
    return {**item, "image": item["image"].transpose(1, 2)}  # a view of the same memory


def shared(index: int, item: dict[Any, Any]) -> dict[Any, Any]:
    return {**item, "before": item["image"], "image": item["image"] + index}


@pytest.mark.parametrize("after", [flipped, turned, shared])
def test_what_a_later_transform_replaces_is_copied(folder, after):
    data = Crops(RandStoreCropd("image", folder, (11, 11, 7), label_key="label"), after)
    placed = PlacedSamples(data)
    expected = list_data_collate([data[index] for index in range(SAMPLES)])
    for _ in range(2):
        batch = collate_placed(placed.__getitems__(list(range(SAMPLES))))
        for key in expected:
            assert torch.equal(torch.as_tensor(batch[key]), torch.as_tensor(expected[key]))
        assert placed.memory.moved == {"image"}  # the labels stay where they are


def test_a_change_in_place_stays(folder):
    def doubled(index: int, item: dict[Any, Any]) -> dict[Any, Any]:
        item["image"] *= index
        return item

    data = Crops(RandStoreCropd("image", folder, (11, 13, 7)), doubled)
    batch = collate_placed(PlacedSamples(data).__getitems__([1, 2, 4]))
    assert torch.equal(
        batch["image"].as_tensor(), torch.stack([data[index]["image"].as_tensor() for index in [1, 2, 4]])
    )


@pytest.mark.parametrize("keep", [lambda one: one, lambda one: one[1, 0, 2:], lambda one: one.as_tensor().numpy()[0]])
def test_no_batch_in_use_is_written_over(folder, keep):
    data = Crops(RandStoreCropd("image", folder, (11, 13, 7)))
    loader = DataLoader(PlacedSamples(data), batch_size=SAMPLES, collate_fn=collate_placed)
    kept = [keep(batch["image"]) for _ in range(KEPT) for batch in loader]
    expected = [keep(torch.stack([data[n]["image"] for n in range(b, b + SAMPLES)])) for b in range(0, 15, SAMPLES)]
    assert len(kept) == KEPT * len(expected)
    for one, other in zip(kept, expected * KEPT, strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(other))


def test_memory_that_nobody_holds_is_used_again():
    memory = BatchMemory()
    first = memory.take((3, 5), torch.float32)
    place = first.data_ptr()
    view = first[1:].unsqueeze(0)
    del first
    assert memory.take((3, 5), torch.float32).data_ptr() != place  # a view is held
    del view
    assert memory.take((3, 5), torch.float32).data_ptr() == place
    held = [memory.take((3, 5), torch.float32) for _ in range(2 * KEPT)]
    assert len({one.data_ptr() for one in held}) == 2 * KEPT
    assert memory.take((3, 5), torch.int32).dtype == torch.int32
    assert memory.take((5, 3), torch.float32).shape == (5, 3)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_have_memory_of_their_own(clone):
    memory = BatchMemory()
    place = memory.take((3, 5), torch.float32).data_ptr()
    assert memory.take((3, 5), torch.float32).data_ptr() == place
    other = clone(memory).take((3, 5), torch.float32)
    assert other.data_ptr() != place


def test_memory_is_offered_once_and_for_one_shape():
    def sample(index: int) -> dict[str, Any]:
        shape = (2, 3) if index < 2 else (3, 2)
        first, again = (claim_memory("image", shape, torch.float32) for _ in range(2))
        assert (first is None) == (index == 2)
        assert again is None
        assert claim_memory("label", (7,), torch.int32) is not None
        return {"image": torch.full(shape, index) if first is None else first.fill_(index)}

    assert claim_memory("image", (2, 3), torch.float32) is None  # no batch is made
    batch = PlacedBatch(3, BatchMemory()).fill(sample, range(3))
    assert [one["image"].tolist() for one in batch[:2]] == [[[index] * 3] * 2 for index in range(2)]
    with pytest.raises(RuntimeError, match="stack expects each tensor to be equal size"):
        collate_placed(batch)
    assert claim_memory("image", (2, 3), torch.float32) is None


def test_a_sample_that_fails_leaves_no_batch_behind():
    def fails(_: int) -> Iterator[None]:
        raise ValueError("torn")

    with pytest.raises(ValueError, match="torn"):
        PlacedBatch(1, BatchMemory()).fill(fails, [0])
    assert claim_memory("image", (2, 3), torch.float32) is None


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # the loader forks
def test_workers_hand_over_the_same_batches(folder):
    placed = PlacedSamples(Crops(RandStoreCropd("image", folder, (11, 13, 7), window_hu=WINDOW, label_key="label")))
    none, two = (
        list(DataLoader(placed, batch_size=4, num_workers=workers, collate_fn=collate_placed)) for workers in (0, 2)
    )
    assert [len(batch["image"]) for batch in none] == [4, 4, 4, 3]
    for alone, sent in zip(none, two, strict=True):
        assert sent["image"].is_shared()
        for key in ("image", "label"):
            same_but_for_memory(sent[key], alone[key])


def test_memory_that_does_not_fit_is_refused(folder):
    cut = RandStoreCrop(folder, (11, 13, 7)).set_random_state(0)
    out = torch.empty(1, 11, 13, 7)
    assert cut("ct_0", out=out).data_ptr() == out.data_ptr()
    for wrong in [torch.empty(1, 13, 11, 7), out.int(), torch.empty(1, 7, 13, 11).transpose(1, 3)]:
        with pytest.raises(
            SettingError, match=r"^out: torch\.\w+ of .*; give torch.float32 of \(1, 11, 13, 7\), in one"
        ):
            cut("ct_0", out=wrong)
