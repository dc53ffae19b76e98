"""Windows finished brick by brick: the same logits as MONAI's, from less memory."""

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from torch import Tensor

from monai_ext.base import InputError, SettingError, WriteError
from monai_ext.inferers import BrickInferer, MirroredSlidingWindow
from monai_ext.inferers.windows import AxisWindows

fallocate = os.posix_fallocate
WINDOW = (5, 8, 7)
CLASSES = 6


class Uneven(torch.nn.Module):
    """A network that tells the places of a window apart, and one window from the other."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(11)
        self.ramp = torch.randn((CLASSES, *WINDOW), generator=generator)
        self.runs = 0

    def forward(self, window: Tensor) -> Tensor:
        self.runs += len(window)
        return self.ramp * (window - 0.3) + window.mean(dim=(2, 3, 4), keepdim=True) * self.ramp.flip(0)


def volume(*shape: int, batch: int = 1) -> Tensor:
    return torch.rand((batch, 1, *shape), generator=torch.Generator().manual_seed(3))


def assert_the_same_labels(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)  # float32 sums in another order
    differ = found.argmax(dim=1) != expected.argmax(dim=1)
    assert differ.sum() <= 1e-5 * differ.numel()


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.6, 0.75])
@pytest.mark.parametrize("shape", [(7, 11, 13), (5, 17, 7), (5, 8, 7), (4, 7, 5), (3, 19, 4), (2, 3, 1)])
def test_logits_are_those_of_monai(overlap: float, shape: tuple[int, int, int]) -> None:
    network, image = Uneven(), volume(*shape)
    expected = SlidingWindowInferer(WINDOW, 3, overlap, mode="gaussian")(image, network)
    runs = network.runs
    assert_the_same_labels(BrickInferer(WINDOW, 3, overlap)(image, network), expected)
    assert network.runs == 2 * runs  # the same windows, none twice


@pytest.mark.parametrize("axes", [[0], [2], [0, 1], [0, 1, 2]])
@pytest.mark.parametrize("shape", [(7, 11, 13), (4, 7, 5), (3, 19, 4)])
def test_mirrored_views_too(axes: list[int], shape: tuple[int, int, int]) -> None:
    network, image = Uneven(), volume(*shape)
    expected = MirroredSlidingWindow(WINDOW, 2, 0.5, mirror_axes=axes)(image, network)
    assert_the_same_labels(BrickInferer(WINDOW, 2, 0.5, mirror_axes=axes)(image, network), expected)


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "constant"},
        {"sigma_scale": 0.3},
        {"padding_mode": "replicate"},
        {"padding_mode": "reflect"},
        {"cval": 0.7},
        {"sw_device": "cpu", "device": "cpu"},
    ],
)
def test_settings_of_monais_inferer(settings: dict[str, Any]) -> None:
    network, image = Uneven(), volume(4, 11, 6, batch=2)
    expected = SlidingWindowInferer(WINDOW, 4, 0.4, **{"mode": "gaussian", **settings})(image, network)
    assert_the_same_labels(BrickInferer(WINDOW, 4, 0.4, **settings)(image, network), expected)


@pytest.mark.parametrize("settings", [{}, {"mirror_axes": (0, 2)}, {"sums": "float16"}, {"body_above": 0.3}])
def test_sums_in_a_file_are_those_in_memory_and_leave_none(tmp_path: Path, settings: dict[str, Any]) -> None:
    network, image = Uneven(), volume(13, 19, 29)
    expected = BrickInferer(WINDOW, 2, 0.5, **settings)(image, network)
    found = BrickInferer(WINDOW, 2, 0.5, scratch_dir=tmp_path, **settings)(image, network)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert not list(tmp_path.iterdir())


def test_a_scratch_file_has_slots_for_what_waits_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[int, int]] = []
    monkeypatch.setattr(
        "os.posix_fallocate", lambda _, start, size: taken.append((start, size)) or fallocate(_, start, size)
    )
    for length in (40, 160):
        taken.append((0, 0))
        BrickInferer(WINDOW, 1, 0.5, scratch_dir=tmp_path)(volume(7, 9, length), Uneven())
    second = taken.index((0, 0), 1)
    assert len(taken[:second]) == len(taken[second:]) > 1
    assert all(start % size == 0 for start, size in taken if size)


@pytest.mark.parametrize("why", ["full", "missing", "a file"])
def test_a_scratch_folder_without_room_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    if why == "full":
        monkeypatch.setattr("os.posix_fallocate", full)
    folder = {"full": tmp_path, "missing": tmp_path / "none", "a file": tmp_path / "file"}[why]
    (tmp_path / "file").touch()
    sentence = (
        r"no room for sums beyond 0\.0 GB \(No s.*\); free space" if why == "full" else "there is no such folder;"
    )
    inferer = BrickInferer(WINDOW, scratch_dir=folder) if why == "full" else None
    with pytest.raises(WriteError, match=f"^scratch_dir: {sentence}") as caught:
        inferer(volume(7, 9, 11), Uneven()) if inferer else BrickInferer(WINDOW, scratch_dir=folder)
    assert caught.value.code == "write.scratch"
    assert str(tmp_path) not in str(caught.value)


def test_sums_on_another_device_lie_in_no_file(tmp_path: Path) -> None:
    inferer = BrickInferer(WINDOW, scratch_dir=tmp_path, device="meta", sw_device="cpu")
    with pytest.raises(SettingError, match=r"^scratch_dir: sums on meta do not lie in a file; leave it out, or keep"):
        inferer(volume(7, 9, 11), Uneven())


def naive_starts(size: int, window: int, overlap: float) -> list[int]:
    """Write a window at every step until one reaches the end; that one is moved back to end there."""
    if size <= window:
        return [-((window - size) // 2)]
    starts, step = [0], max(int(window * (1 - overlap)), 1)
    while starts[-1] + window < size:
        starts.append(min(starts[-1] + step, size - window))
    return starts


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75, 0.9])
def test_windows_lie_where_a_naive_walk_lays_them(overlap: float) -> None:
    for size in (1, 4, 7, 8, 9, 13, 29, 31):
        axis = AxisWindows(size, 8, overlap)
        assert [start for start, _ in axis.starts] == naive_starts(size, 8, overlap)
        for start, _ in axis.starts:
            covered = range(max(start, 0), min(start + 8, size))
            bricks = [range(axis.cuts[at], axis.cuts[at + 1]) for at in range(len(axis.cuts) - 1)]
            assert [at for at, brick in enumerate(bricks) if set(brick) & set(covered)] == list(axis.bricks(start))


@pytest.mark.parametrize(
    ("size", "window", "overlap"), [(333, 96, 0.5), (101, 32, 0.75), (335, 96, 0.6), (50, 96, 0.5)]
)
def test_bricks_are_neither_thin_nor_much_larger_than_told(size: int, window: int, overlap: float) -> None:
    axis = AxisWindows(size, window, overlap, largest=24)
    assert (axis.cuts[0], axis.cuts[-1]) == (0, size)
    assert all(16 <= high - low <= 36 for low, high in pairwise(axis.cuts))


@pytest.mark.parametrize("settings", [{}, {"mirror_axes": (1, 2)}, {"body_above": 0.1}])
def test_bricks_fill_the_volume_once_each_after_those_before_it(settings: dict[str, Any]) -> None:
    counted, seen = np.zeros((7, 9, 31), int), set()
    image = volume(7, 9, 31)[0]
    image[..., 12:] = 0  # where no window is run
    for brick in BrickInferer(WINDOW, 1, 0.5, **settings).bricks(image, Uneven()):
        counted[brick.place] += 1
        seen.add(brick.index)
        x, y, z = brick.index
        assert {(x - 1, y, z), (x, y - 1, z), (x, y, z - 1)} - seen <= {(-1, y, z), (x, -1, z), (x, y, -1)}
        assert settings.get("body_above") is None or (brick.logits is None) == (brick.place[2].start >= 15)
    assert (counted == 1).all()


def test_what_is_finished_does_not_wait() -> None:
    """Of windows that overlap by a quarter, the middle is finished at once."""
    runs, waiting = 0, {}

    def network(window: Tensor) -> Tensor:
        nonlocal runs
        runs += 1
        return window

    for brick in BrickInferer((4, 4, 64), 1, 0.25).bricks(volume(5, 7, 208)[0], network):
        waiting.setdefault(brick.place[2].start, runs)
    assert list(waiting) == sorted(waiting)
    assert (waiting[0], waiting[64]) == (2, 6)  # layers of 4 windows, each done at y = 0 with its second


def test_what_waits_does_not_grow_with_the_longest_axis() -> None:
    def most(length: int) -> int:
        from monai_ext.inferers import brick_sums

        found = 0

        class Counted(brick_sums.BrickSums):
            def add(self, *part: Any) -> None:
                nonlocal found
                super().add(*part)
                found = max(found, sum(each.numel() for each in self._sums.values()))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("monai_ext.inferers.bricks.BrickSums", Counted)
            for _ in BrickInferer(WINDOW, 1, 0.5).bricks(volume(7, 9, length)[0], Uneven()):
                pass
        return found

    assert most(30) == most(90) < CLASSES * 7 * 9 * 1.5 * WINDOW[2]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_not_finite_are_refused(value: float) -> None:
    image = volume(13, 11, 17)
    image[0, 0, 12, 10, 16] = value
    with pytest.raises(InputError, match=r"^\d+ of \d+ logits in a part of the scan are NaN or infinite") as caught:
        BrickInferer(WINDOW)(image, lambda window: window.expand(-1, 3, -1, -1, -1))
    assert caught.value.code == "inference.not_finite"


@pytest.mark.parametrize("answer", [lambda w: w[..., ::2], lambda w: (w, w), lambda w: w[:1].sum()])
def test_a_network_of_other_sizes_is_refused(answer: Any) -> None:
    with pytest.raises(InputError, match=r"^the network makes .* use MirroredSlidingWindow for others$"):
        BrickInferer(WINDOW, 2)(volume(13, 11, 17), answer)


def test_another_count_of_classes_is_refused() -> None:
    counts = iter([3, 4, 3, 3])
    with pytest.raises(InputError, match=r"^the network makes 4 classes of a window and 3 of another; use") as caught:
        BrickInferer((13, 11, 9))(volume(13, 11, 17), lambda window: window.repeat(1, next(counts), 1, 1, 1))
    assert caught.value.code == "inference.output"


@pytest.mark.parametrize("shape", [(1, 13, 11, 17), (1, 1, 13, 11), (0, 1, 5, 8, 7)])
def test_what_is_no_batch_of_volumes_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"^inputs of shape \(.*\) are no volumes; give \(batch, channel, x, y, z\)$"):
        BrickInferer(WINDOW)(torch.zeros(shape), lambda window: window)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        (np.zeros((1, 1, 5, 8, 7)), "inputs of ndarray are no volumes; give"),
        (volume(5, 8, 7) > 0.5, "inputs of torch.bool are no numbers of a scan; give float32"),
        (volume(5, 8, 7).to(torch.complex64), "inputs of torch.complex64 are no numbers"),
    ],
)
def test_what_holds_no_numbers_is_refused(inputs: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=f"^{sentence}"):
        BrickInferer(WINDOW)(inputs, Uneven())


def test_logits_of_whole_numbers_keep_their_fractions() -> None:
    image = volume(7, 9, 11).mul(100).to(torch.int16)
    network = Uneven()
    found = BrickInferer(WINDOW)(image, lambda window: network(window.float()))
    torch.testing.assert_close(found, BrickInferer(WINDOW)(image.float(), network))


@pytest.mark.parametrize(("mode", "thin", "enough"), [("reflect", 3, 4), ("circular", 2, 3)])
def test_a_volume_too_thin_to_be_mirrored_is_refused(mode: str, thin: int, enough: int) -> None:
    inferer = BrickInferer(WINDOW, padding_mode=mode)
    more = -(-(8 - thin) // 2)
    with pytest.raises(InputError, match=rf"^padding_mode: {mode} cannot add {more} voxels to the {thin} along axis y"):
        inferer(volume(5, thin, 7), Uneven())
    assert inferer(volume(5, enough, 7), Uneven()).isfinite().all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_voxels_without_a_value_are_no_air(value: float) -> None:
    image = volume(7, 9, 11)
    image[..., 2:5, 3, 4] = value
    with pytest.raises(InputError, match=r"^3 of 693 voxels are NaN or infinite, among which no body can be told; "):
        BrickInferer(WINDOW, body_above=0.1)(image, Uneven())


def test_the_place_of_the_inputs_is_kept_as_monais_inferer_keeps_it() -> None:
    image = MetaTensor(volume(7, 11, 13), affine=torch.diag(torch.tensor([1.5, 2, 3, 1])), meta={"case": "a"})
    found, expected = (
        kind(WINDOW, 2, 0.5, mode="gaussian")(image, lambda window: window.repeat(1, 2, 1, 1, 1))
        for kind in (BrickInferer, SlidingWindowInferer)
    )
    assert isinstance(found, MetaTensor)
    assert isinstance(expected, MetaTensor)
    assert found.meta["case"] == expected.meta["case"] == "a"
    torch.testing.assert_close(found.affine, expected.affine)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"sums": "int8"}, "sums: 'int8'; choose float32, float16, bfloat16"),
        ({"body_above": "skin"}, "body_above: 'skin' is no value of the image"),
        ({"spacing_mm": [1.5, 0, 1]}, r"spacing_mm: \[1.5, 0, 1\] is not a voxel size"),
        ({"buffer_steps": 2}, "buffer_steps: not known here; use MirroredSlidingWindow"),
        ({"scratch_dir": 5}, "scratch_dir: 5 is no folder"),
        ({"scratch_dir": ""}, "scratch_dir: '' is no folder"),
        ({"sw_batch_size": True}, "sw_batch_size: True"),
        ({"roi_size": (16.5, 16, 16)}, r"image_size: \(16.5, 16, 16\) is not a window in voxels"),
        ({"roi_size": (2048, 2048, 1024)}, r"image_size: \(2048, 2048, 1024\) is more than 2\*\*31 voxels"),
        ({"overlap": 1}, "overlap: 1"),
        ({"overlap": -0.25}, "overlap: -0.25"),
        ({"overlap": float("nan")}, "overlap: nan"),
        ({"mode": "cosine"}, "mode: 'cosine'; give one of constant, gaussian"),
        ({"sigma_scale": 0}, "sigma_scale: 0; give a share of the window above 0"),
        ({"sigma_scale": [0.1, 0.1]}, r"sigma_scale: \[0.1, 0.1\]"),
        ({"padding_mode": "constnat"}, "padding_mode: 'constnat'; give one of constant, reflect"),
        ({"cval": float("nan")}, "cval: nan; give a number"),
        ({"device": "gpu"}, "device: 'gpu'; give a device of this computer"),
        ({"sw_device": 0.5}, "sw_device: 0.5; give a device of this computer"),
        ({"progress": "no"}, "progress: 'no'; give true or false"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingError, match=f"^{sentence}"):
        BrickInferer(**{"roi_size": WINDOW, **settings})


def test_no_classes_are_refused() -> None:
    with pytest.raises(InputError, match=r"^the network makes no classes; give one that makes logits"):
        BrickInferer(WINDOW)(volume(7, 9, 11), lambda window: window[:, :0])


def test_sums_that_overflow_name_their_type() -> None:
    def network(window: Tensor) -> Tensor:
        return window.expand(-1, 3, -1, -1, -1) + 1e6

    assert torch.isfinite(BrickInferer(WINDOW)(volume(7, 9, 11), network)).all()
    with pytest.raises(InputError, match=r"try without mixed precision, or take sums=float32$"):
        BrickInferer(WINDOW, sums="float16")(volume(7, 9, 11), network)


@pytest.mark.parametrize(("kind", "most"), [("float16", 0.01), ("bfloat16", 0.05)])
def test_half_precision_is_near(kind: str, most: float) -> None:
    network, image = Uneven(), volume(13, 17, 11)
    exact = BrickInferer(WINDOW)(image, network).argmax(dim=1)
    near = BrickInferer(WINDOW, sums=kind)(image, network).argmax(dim=1)
    assert 0 < (near != exact).float().mean() < most


def patient() -> Tensor:
    """Return air around a block of tissue that has a hole."""
    image = torch.zeros((1, 1, 47, 29, 16))
    image[..., 20:36, 10:22, 3:] = 0.6
    image[..., 25:30, 14:18, 3:] = 0
    return image


def test_windows_off_the_body_are_not_run_and_give_background() -> None:
    image, network = patient(), Uneven()
    inferer = BrickInferer(WINDOW, 4, 0.25, body_above=0.1)
    skipped = inferer(image, network)
    run = np.argwhere((skipped[0, 0] != 1).numpy())
    box = [slice(low, high + 1) for low, high in zip(run.min(axis=0), run.max(axis=0), strict=True)]
    assert all(part.stop - part.start < size for part, size in zip(box[:2], image.shape[2:4], strict=True))
    network.runs = 0
    boxed = SlidingWindowInferer(WINDOW, 4, 0.25, mode="gaussian")(image[:, :, *box], network)
    runs, network.runs = network.runs, 0
    torch.testing.assert_close(inferer(image, network), skipped, rtol=0, atol=0)
    assert 0 < network.runs <= runs
    body = (slice(20, 36), slice(10, 22), slice(3, 16))
    inside = [slice(part.start - low.start, part.stop - low.start) for part, low in zip(body, box, strict=True)]
    assert_the_same_labels(skipped[:, :, *body], boxed[:, :, *inside])
    assert (skipped[:, 0, :10] == 1).all()
    assert (skipped[:, 1:, :10] == 0).all()


def test_a_scan_without_a_body_is_background_whatever_the_one_window_gives() -> None:
    runs: list[int] = []

    def network(window: Tensor) -> Tensor:
        runs.append(len(window))
        return torch.cat([window * float("nan"), window + 9, window], dim=1)

    found = BrickInferer(WINDOW, 4, 0.5, body_above=0.1)(torch.zeros((1, 1, 29, 17, 19)), network)
    assert runs == [1]
    assert (found[:, 0] == 1).all()
    assert found.shape == (1, 3, 29, 17, 19)
    assert not found[:, 1:].any()


def test_every_piece_of_the_body_is_run() -> None:
    image = torch.zeros((1, 1, 60, 29, 16), requires_grad=True)
    with torch.no_grad():
        image[..., 5:23, 5:25, :] = 0.6
        image[..., 40:55, 9:20, :] = 0.6
    places = [
        b.place for b in BrickInferer(WINDOW, 4, body_above=0.1).bricks(image[0], Uneven()) if b.logits is not None
    ]
    run = np.zeros(image.shape[2:], bool)
    for place in places:
        run[place] = True
    assert run[(image[0, 0] > 0).numpy()].all()
    assert not run.all()
