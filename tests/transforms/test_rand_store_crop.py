"""Random crops: the right voxels at the right place, around the body as often as published, the same for a seed."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.transforms import Compose

from monai_ext.base import SettingError, StoreError, window_hu
from monai_ext.transforms import RandStoreCrop, RandStoreCropd, load_ct
from monai_ext.volumes import Body, VolumeStore, prepare
from monai_ext.volumes.store_write import NewVolume, write_volume

SHAPE = (67, 41, 53)
CORNER = np.array([[3, 2, 50], [5, 4, 51]])  # body voxels, all in one corner


@pytest.fixture(scope="module")
def hu() -> np.ndarray:
    return np.random.default_rng(0).integers(-1024, 1500, SHAPE).astype(np.int16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, hu: np.ndarray) -> Path:
    folder = tmp_path_factory.mktemp("store")
    affine = np.array([[1.5, 0.1, 0, -7], [-0.1, 1.5, 0, 3], [0, 0, 2.5, 11], [0, 0, 0, 1]])
    for name in ("a", "plain"):
        volume = NewVolume(
            id=name,
            hu=hu,
            affine=affine,
            spacing_mm=(1.5, 1.5, 2.5),
            source="a.nii",
            source_root="0123abcd",
            source_sha256="ab" * 32,
            source_shape=SHAPE,
            source_affine=affine,
            settings={},
            body=Body(((3, 2, 50), (6, 5, 52)), CORNER),
            label=(hu > 0).astype(np.uint8) * 7 if name == "a" else None,
        )
        write_volume(folder, volume)
    return folder


def naive(volume: np.ndarray, start: tuple[int, ...], size: tuple[int, ...], fill: float) -> np.ndarray:
    """Look up every voxel of the crop by its index."""
    index = np.indices(size).reshape(3, -1) + np.reshape(start, (3, 1))
    inside = ((index >= 0) & (index < np.reshape(volume.shape, (3, 1)))).all(axis=0)
    out = np.full(index.shape[1], fill, np.float32)
    out[inside] = volume[tuple(index[:, inside])]
    return out.reshape(size)


@pytest.mark.parametrize("size", [(11, 13, 7), (67, 41, 53), (5, 47, 60), (71, 43, 59)])
def test_crop_is_the_padded_slice(folder, hu, size):
    cut = RandStoreCrop(folder, size).set_random_state(0)
    for _ in range(3):
        crop = cut("a")
        assert crop.shape == (1, *size)
        assert crop.dtype == torch.float32
        assert np.array_equal(crop[0].numpy(), naive(hu, cut.start, size, -1024))


def test_padding_is_shared_by_both_sides(folder):
    cut = RandStoreCrop(folder, (70, 41, 60)).set_random_state(0)
    cut("a")
    assert cut.start == (-2, 0, -4)  # 3 and 7 voxels too many: the odd one goes before


def test_pad_value(folder):
    crop = RandStoreCrop(folder, (71, 43, 59), pad_hu=-3000).set_random_state(0)("a")
    assert crop[0, 0, 0, 0] == -3000


def test_affine_is_that_of_the_crop(folder):
    for size in [(11, 13, 7), (71, 43, 59)]:
        cut = RandStoreCrop(folder, size).set_random_state(1)
        crop, affine = cut("a"), VolumeStore(folder).record("a").affine
        place = crop.affine.numpy() @ [2, 3, 5, 1]
        assert np.allclose(place, affine @ [*np.add(cut.start, (2, 3, 5)), 1], atol=1e-12)
        assert crop.meta["filename_or_obj"] == "a"


@pytest.mark.parametrize("window", [(-175, 250), (-175.5, 250.25), (-1024, 3071), (-40000, 250), (-20000, 20000)])
@pytest.mark.parametrize("size", [(11, 13, 7), (71, 43, 59)])
def test_window_is_applied_on_request(folder, window, size):
    plain = RandStoreCrop(folder, size).set_random_state(3)("a")
    windowed = RandStoreCrop(folder, size, window_hu=window).set_random_state(3)("a")
    assert torch.equal(windowed.as_tensor(), window_hu(plain.as_tensor(), window))
    assert windowed.dtype == plain.dtype == torch.float32
    if window == (-175, 250):
        assert 0 == windowed.min() < windowed.max() == 1


def test_draws_follow_the_seed(folder):
    def starts(seed: int) -> list[tuple[int, int, int]]:
        cut = RandStoreCropd("image", folder, (11, 13, 7)).set_random_state(seed)
        return [(cut({"image": "a"}), cut.cut.start)[1] for _ in range(20)]

    assert starts(5) == starts(5) != starts(6)


def test_one_draw_takes_as_many_numbers_as_any_other(folder):
    """Whether one crop is on the body moves none of the later ones."""
    places = []
    for ratio in (0, 1):
        cut = RandStoreCrop(folder, (11, 13, 7), body_ratio=ratio).set_random_state(5)
        cut("a")
        cut.body_ratio = 0
        places.append((cut("a"), cut.start)[1])
    assert places[0] == places[1]


def test_body_is_met_at_the_published_ratio(folder):
    # Crops on the two body voxels stick out of the volume and are moved to one and the same place.
    cut = RandStoreCrop(folder, (11, 13, 7)).set_random_state(0)
    record, draws = cut.store.record("a"), 20_000
    met = 0
    for _ in range(draws):
        cut.randomize(record)
        met += cut.start == (0, 0, 46)
    by_chance = 1 / np.prod(np.array(SHAPE) - (10, 12, 6))
    expected = 6 / 8 + 2 / 8 * by_chance
    assert abs(met / draws - expected) < 5 * np.sqrt(0.75 * 0.25 / draws)  # five standard errors: 1 in 10^6


def test_crop_is_centred_on_the_body_voxel(folder):
    cut = RandStoreCrop(folder, (3, 3, 3), body_ratio=1).set_random_state(0)
    starts = {(cut("a"), cut.start)[1] for _ in range(20)}
    assert starts == {(2, 1, 49), (4, 3, 50)}  # one voxel before 3, 2, 50 and 5, 4, 51; the last one fits just so


def test_every_other_place_is_as_likely(folder):
    cut = RandStoreCrop(folder, (65, 41, 52), body_ratio=0).set_random_state(0)
    record, draws = cut.store.record("a"), 6000
    counts: dict[tuple[int, int, int], int] = {}
    for _ in range(draws):
        cut.randomize(record)
        counts[cut.start] = counts.get(cut.start, 0) + 1
    assert set(counts) == {(x, 0, z) for x in range(3) for z in range(2)}
    share = np.array(list(counts.values())) / draws
    assert np.abs(share - 1 / 6).max() < 5 * np.sqrt(5 / 36 / draws)  # five standard errors


def test_label_is_of_the_same_box(folder, hu):
    cut = RandStoreCropd("image", folder, (71, 13, 7), label_key="label").set_random_state(2)
    for _ in range(3):
        out = cut({"image": "a", "other": 1})
        assert out["label"].dtype == torch.int32
        assert torch.equal(out["label"].as_tensor(), (out["image"] > 0).int().as_tensor() * 7)  # 0 in the padding
        assert torch.equal(out["label"].affine, out["image"].affine)
        assert out["other"] == 1


def test_id_under_a_key_of_its_own(folder):
    cut = RandStoreCropd("image", folder, (3, 5, 7), id_key="scan")
    assert cut({"scan": "a"})["image"].shape == (1, 3, 5, 7)
    assert cut({"scan": "a"})["scan"] == "a"


def test_missing_keys(folder):
    with pytest.raises(KeyError):
        RandStoreCropd("image", folder, (3, 5, 7))({"other": "a"})
    assert RandStoreCropd("image", folder, (3, 5, 7), allow_missing_keys=True)({"other": "a"}) == {"other": "a"}


def test_wrong_settings_are_said(folder):
    with pytest.raises(SettingError, match=r"^size: \[3, 5\] is not three positive numbers"):
        RandStoreCrop(folder, (3, 5))
    with pytest.raises(SettingError, match=r"^size: 24 is not three positive numbers"):
        RandStoreCrop(folder, 24)
    with pytest.raises(SettingError, match=r"^body_ratio: 6 is not from 0 to 1; the published ratio is 0.75"):
        RandStoreCrop(folder, (3, 5, 7), body_ratio=6)
    with pytest.raises(SettingError, match=r"^window_hu"):
        RandStoreCrop(folder, (3, 5, 7), window_hu=(250, -175))
    with pytest.raises(SettingError, match=r"^label_key: 'label' cannot belong to 2 keys"):
        RandStoreCropd(("a", "b"), folder, (3, 5, 7), label_key="label")
    with pytest.raises(StoreError, match=r"^plain: the store has no labels"):
        RandStoreCropd("image", folder, (3, 5, 7), label_key="label")({"image": "plain"})
    with pytest.raises(StoreError, match=r"^c: the store has no such volume"):
        RandStoreCropd("image", folder, (3, 5, 7))({"image": "c"})


def test_pickle(folder):
    cut = RandStoreCropd("image", VolumeStore(folder), (11, 13, 7)).set_random_state(4)
    copy = pickle.loads(pickle.dumps(cut))
    assert torch.equal(cut({"image": "a"})["image"].as_tensor(), copy({"image": "a"})["image"].as_tensor())


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # the loader forks
def test_loader_with_workers(folder):
    chain = Compose([RandStoreCropd("image", folder, (11, 13, 7), 0.0, label_key="label")]).set_random_state(0)
    chain({"image": "a"})  # opens files in this process, before the workers exist
    loader = DataLoader(Dataset([{"image": "a"}] * 6, chain), batch_size=3, num_workers=2)
    batches = [batch["image"] for batch in loader]
    assert [tuple(batch.shape) for batch in batches] == [(3, 1, 11, 13, 7)] * 2
    assert not torch.equal(batches[0].as_tensor(), batches[1].as_tensor())


@pytest.mark.parametrize("name", ["torso_3mm.nii.gz", "dicom_jpeg2000"])
def test_store_and_chain_agree_on_real_ct(shared_ct, tmp_path, name):
    """Training through the store and inference through the chain see the same numbers on the same grid."""
    spacing, window = (2.0, 2.5, 3.0), (-175, 250)
    prepare(shared_ct / name, tmp_path, spacing_mm=spacing, workers=0)
    store = VolumeStore(tmp_path)
    (volume_id,) = store.ids
    chain = load_ct(window_hu=window, spacing_mm=spacing)({"image": str(shared_ct / name)})["image"]
    cut = RandStoreCrop(store, store.record(volume_id).shape, window_hu=window)
    crop = cut(volume_id)
    assert crop.shape == chain.shape
    assert torch.allclose(crop.affine, chain.affine.to(crop.affine), rtol=0, atol=1e-6)
    # Whole HU are at most 0.5 HU away; the chain places samples in float32, 0.05 HU more at the sharpest edge.
    assert (crop - chain).abs().max() <= 0.55 / (window[1] - window[0])
