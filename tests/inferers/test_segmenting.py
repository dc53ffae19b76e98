"""From the network's grid to labels on the scan's own, beside inverting the whole logits with MONAI."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from monai.transforms import Compose, Flip, Invertd, Orientationd, ScaleIntensityRanged, Spacingd
from torch import Tensor

from monai_ext.base import GeometryError, InputError, LabelError, SettingError, WriteError
from monai_ext.inferers import BrickInferer, MirroredSlidingWindow, segment, segment_to_file
from monai_ext.inferers.mapped_volume import MappedVolume
from monai_ext.inferers.own_grid import OwnGrid
from monai_ext.transforms import ReadScand, load_ct
from monai_ext.volumes import affine_of_itk

WINDOW = (16, 20, 12)
NAMES = {1: "one", 2: "two", 3: "three", 4: "four"}
Scan = Callable[..., Path]


@pytest.fixture
def scan(tmp_path: Path) -> Scan:
    """Write noise with air and tissue, oblique, on axes and edges as told."""

    def write(
        codes: str = "LPS", shape: tuple[int, ...] = (29, 23, 31), edges: tuple[float, ...] = (1.1, 1.3, 2.3)
    ) -> Path:
        generator = np.random.default_rng(5)
        voxels = generator.normal(0, 60, shape) - 1000 * (generator.random(shape) < 0.2)
        tilt = np.array([[1, 0, 0], [0, 0.96, -0.28], [0, 0.28, 0.96]])
        turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]) @ tilt
        affine = np.eye(4)
        affine[:3, :3] = turn * np.array(edges)
        affine[:3, 3] = 11, -7, 3
        image = nib.Nifti1Image(voxels.astype(np.int16), affine)
        ornt = nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes)
        )
        image = image.as_reoriented(ornt)
        image.set_qform(image.affine, 1)
        image.set_sform(image.affine, 1)
        path = tmp_path / f"scan_{codes}.nii.gz"
        nib.save(image, path)
        return path

    return write


KERNEL = torch.randn((5, 1, 3, 3, 3), generator=torch.Generator().manual_seed(7))


def network(window: Tensor) -> Tensor:
    """Logits of 5 classes, of which each wins somewhere in noise around 0.4."""
    return torch.nn.functional.conv3d(window - 0.4, KERNEL, padding=1)


def whole_then_inverted(path: Path, spacing_mm: Any, inferer: Any) -> tuple[np.ndarray, Tensor]:
    """Do it with MONAI alone, its resampling in float64: all logits, inverted, then compared."""
    chain = Compose(
        [
            ReadScand("image"),
            Orientationd("image", axcodes="RAS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
            Spacingd("image", spacing_mm, mode="bilinear", dtype=np.float64),
            ScaleIntensityRanged("image", -175, 250, 0, 1, clip=True),
        ]
    )
    data = chain({"image": path})
    data["pred"] = MetaTensor(inferer(data["image"].as_tensor()[None], network)[0])
    back = Invertd("pred", chain, orig_keys="image", nearest_interp=False)(data)["pred"]
    return back.argmax(dim=0).numpy(), back.as_tensor()


@pytest.mark.parametrize("spacing_mm", [(1.5, 1.5, 1.5), (0.9, 2.1, 0.8), (1.1, 1.3, 2.3)])
@pytest.mark.parametrize("codes", ["LPS", "SAL"])
def test_labels_are_those_of_whole_logits_inverted(scan: Scan, codes: str, spacing_mm: Any) -> None:
    path = scan(codes)
    expected, _ = whole_then_inverted(path, spacing_mm, SlidingWindowInferer(WINDOW, 2, 0.5, mode="gaussian"))
    image = load_ct(spacing_mm=spacing_mm)({"image": path})["image"]
    found = segment(image, network, BrickInferer(WINDOW, 2, 0.5))
    assert found.labels.shape == expected.shape
    assert len(np.unique(expected)) == 5
    # MONAI's grid is float64, ours float32 weights: of 20677 voxels hardly one is so near a tie.
    assert np.mean(found.labels != expected) <= 5e-5
    np.testing.assert_array_equal(found.affine, image.meta["original_affine"])


def test_mirrored_views_and_the_scans_own_spacing(scan: Scan) -> None:
    path = scan("RAS", edges=(1.5, 1.5, 1.5))
    expected, _ = whole_then_inverted(path, (1.5, 1.5, 1.5), MirroredSlidingWindow(WINDOW, 2, 0.6, mirror_axes=[1, 2]))
    image = load_ct()({"image": path})["image"]
    found = segment(image, network, BrickInferer(WINDOW, 2, 0.6, mirror_axes=[1, 2]))
    assert np.mean(found.labels != expected) <= 5e-5


def test_half_precision_changes_few_labels(scan: Scan) -> None:
    image = load_ct()({"image": scan()})["image"]
    exact = segment(image, network, BrickInferer(WINDOW)).labels
    shares = {
        kind: np.mean(segment(image, network, BrickInferer(WINDOW, sums=kind)).labels != exact)
        for kind in ("float16", "bfloat16")
    }
    assert 0 < shares["float16"] < 0.005
    assert shares["float16"] < shares["bfloat16"] < 0.03


def test_what_another_chain_made_is_refused(scan: Scan) -> None:
    image = load_ct()({"image": scan()})["image"]
    with pytest.raises(GeometryError, match=r"^scan_LPS: it does not lie along the axes on which it was read"):
        segment(Flip(spatial_axis=0)(image), network, BrickInferer(WINDOW))
    with pytest.raises(GeometryError, match="it does not say on which grid it was read; read it with load_ct"):
        segment(MetaTensor(image.as_tensor()), network, BrickInferer(WINDOW))


def test_logits_that_are_not_finite_name_the_case_and_leave_no_file(scan: Scan, tmp_path: Path) -> None:
    image = load_ct()({"image": scan()})["image"]

    def broken(window: Tensor) -> Tensor:
        return network(window) / (window > 0.01)

    with pytest.raises(InputError, match=r"^scan_LPS: \d+ of \d+ logits .* nothing was written") as caught:
        segment_to_file(tmp_path / "out" / "seg.nii.gz", image, broken, BrickInferer(WINDOW), NAMES)
    assert (caught.value.code, caught.value.case) == ("inference.not_finite", "scan_LPS")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("ending", ["nii.gz", "nii"])
def test_files_hold_the_labels_and_the_probabilities(scan: Scan, tmp_path: Path, ending: str) -> None:
    path = scan("SAL")
    image = load_ct(spacing_mm=(2.0, 2.0, 2.0))({"image": path})["image"]
    inferer = BrickInferer(WINDOW, 3, 0.3)
    target, shares = tmp_path / "out" / f"seg.{ending}", tmp_path / "out" / "shares.npy"
    sidecar = segment_to_file(target, image, network, inferer, NAMES, probabilities=shares)
    written, source = SimpleITK.ReadImage(str(target)), SimpleITK.ReadImage(str(path))
    np.testing.assert_allclose(affine_of_itk(written), affine_of_itk(source), atol=1e-4)  # float32 headers
    labels = SimpleITK.GetArrayFromImage(written).transpose(2, 1, 0)
    np.testing.assert_array_equal(labels, segment(image, network, inferer).labels)
    content = json.loads(sidecar.read_text(encoding="utf-8"))
    assert content["scan_sha256"] == image.meta["scan_sha256"]
    assert [row["voxels"] for row in content["labels"]] == np.bincount(labels.ravel(), minlength=5)[1:].tolist()
    _, logits = whole_then_inverted(path, (2.0, 2.0, 2.0), SlidingWindowInferer(WINDOW, 3, 0.3, mode="gaussian"))
    stored = np.load(shares, mmap_mode="r")
    # float16 of what float32 positions, 1e-4 of a voxel, make of noise.
    np.testing.assert_allclose(stored, torch.softmax(logits, 0).numpy(), atol=2e-3)
    assert sorted(found.name for found in target.parent.iterdir()) == sorted([target.name, "seg.json", "shares.npy"])


def test_a_class_without_a_name_is_refused_and_leaves_no_file(scan: Scan, tmp_path: Path) -> None:
    image = load_ct()({"image": scan()})["image"]
    with pytest.raises(LabelError, match="labels hold 4, which have no name"):
        segment_to_file(
            tmp_path / "out" / "seg.nii",
            image,
            network,
            BrickInferer(WINDOW),
            {1: "a", 2: "b", 3: "c"},
            probabilities=tmp_path / "out" / "shares.npy",
        )
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("kept", ["both", "the volume alone"])
def test_another_scans_result_stays_and_the_network_is_not_run(scan: Scan, tmp_path: Path, kept: str) -> None:
    image = load_ct()({"image": scan()})["image"]
    target, inferer = tmp_path / "out" / "seg.nii.gz", BrickInferer(WINDOW)
    sidecar = segment_to_file(target, image, network, inferer, NAMES)
    segment_to_file(target, image, network, inferer, NAMES)  # the same scan's may be replaced
    if kept == "the volume alone":  # as a run leaves it that was killed between both
        sidecar.unlink()
    before = target.read_bytes()
    other = load_ct()({"image": scan("RAS", shape=(17, 19, 23))})["image"]
    with pytest.raises(WriteError, match=r"^scan_RAS: seg\.nii\.gz exists and is the result of another scan") as caught:
        segment_to_file(target, other, lambda window: pytest.fail("the network was run"), inferer, NAMES)
    assert (caught.value.code, target.read_bytes() == before) == ("output.taken", True)


@pytest.mark.parametrize("name", ["seg.nrrd", "seg"])
def test_a_name_that_is_no_niftis_is_refused_before_the_network_runs(scan: Scan, tmp_path: Path, name: str) -> None:
    image = load_ct()({"image": scan()})["image"]
    with pytest.raises(WriteError, match=f"^{name}: name the label volume .nii.gz or .nii"):
        segment_to_file(tmp_path / name, image, lambda _: pytest.fail("was run"), BrickInferer(WINDOW), NAMES)


def test_a_single_class_is_refused(scan: Scan) -> None:
    image = load_ct()({"image": scan()})["image"]
    with pytest.raises(InputError, match=r"^scan_LPS: the network makes a single class") as caught:
        segment(image, lambda window: window, BrickInferer(WINDOW))
    assert caught.value.code == "inference.output"


def test_without_a_body_everything_is_background_and_it_is_told(
    scan: Scan, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = load_ct()({"image": scan()})["image"]
    inferer = BrickInferer(WINDOW, body_above=2.0)
    with caplog.at_level("WARNING", "monai_ext"):
        sidecar = segment_to_file(
            tmp_path / "seg.nii", image, lambda window: window.repeat(1, 5, 1, 1, 1), inferer, NAMES
        )
    assert not np.asarray(nib.load(tmp_path / "seg.nii").dataobj).any()
    assert json.loads(sidecar.read_text(encoding="utf-8"))["body_found"] is False
    assert [record.message.split(",")[0] for record in caplog.records] == ["scan_LPS: no body found"]


@pytest.mark.parametrize("what", ["labels", "link", "sidecar", "folder", "scan"])
def test_probabilities_in_anothers_place_are_refused_before_the_network_runs(
    scan: Scan, tmp_path: Path, what: str
) -> None:
    path = scan()
    image, target = load_ct()({"image": path})["image"], tmp_path / "seg.nii"
    (tmp_path / "link.npy").symlink_to(target)
    (tmp_path / "folder").mkdir()
    file = {"labels": target, "link": tmp_path / "link.npy", "sidecar": tmp_path / "folder/../seg.json", "scan": path}
    before = sorted(tmp_path.iterdir()), path.read_bytes()
    with pytest.raises(WriteError, match=r"^scan_LPS: probabilities: .*; name a \.npy file of its own$") as caught:
        segment_to_file(
            target,
            image,
            lambda _: pytest.fail("was run"),
            BrickInferer(WINDOW),
            NAMES,
            probabilities=file.get(what, tmp_path / "folder"),
        )
    assert caught.value.code == "write.probabilities"
    assert (sorted(tmp_path.iterdir()), path.read_bytes()) == before


def test_a_sidecar_of_another_file_or_a_folder_is_kept(scan: Scan, tmp_path: Path) -> None:
    chain, inferer, out = load_ct(spacing_mm=(4, 4, 4)), BrickInferer(WINDOW), tmp_path / "out"
    image, other = chain({"image": scan()})["image"], chain({"image": scan("RAS", shape=(17, 19, 23))})["image"]
    sidecar = segment_to_file(out / "s.nii", image, network, inferer, NAMES)
    before = sidecar.read_bytes()
    for each in (other, image):
        with pytest.raises(WriteError, match=r"s\.json exists and is the result of another scan"):
            segment_to_file(out / "s.nii.gz", each, lambda _: pytest.fail("was run"), inferer, NAMES)
    assert sidecar.read_bytes() == before
    (out / "t.json").mkdir()
    with pytest.raises(WriteError, match=r"t\.json is a folder, and the sidecar of t\.nii needs its name"):
        segment_to_file(out / "t.nii", image, lambda _: pytest.fail("was run"), inferer, NAMES)


@pytest.mark.parametrize("names", [None, ["a", "b"], {"1": "a"}, {1: None}, {True: "a"}])
def test_names_not_by_number_are_refused_before_the_network_runs(scan: Scan, tmp_path: Path, names: Any) -> None:
    image = load_ct()({"image": scan()})["image"]
    with pytest.raises(SettingError, match=r"^names: .* are no names by number; give for example \{1: 'liver'"):
        segment_to_file(tmp_path / "seg.nii", image, lambda _: pytest.fail("it ran"), BrickInferer(WINDOW), names)


def test_what_is_no_image_or_inferer_of_these_is_one_sentence(scan: Scan) -> None:
    image = load_ct()({"image": scan()})["image"]
    with pytest.raises(SettingError, match=r"^inferer: SlidingWindowInferer gives no bricks; use"):
        segment(image, network, SlidingWindowInferer(WINDOW))  # type: ignore[arg-type]
    for wrong in (image.as_tensor(), image[None]):
        with pytest.raises(
            InputError, match=r"^image: .* is no \(1, x, y, z\) image with its place; give what load_ct"
        ):
            segment(wrong, network, BrickInferer(WINDOW))  # type: ignore[arg-type]


def test_grids_of_load_ct_are_taken_and_those_of_other_shapes_refused() -> None:
    generator = np.random.default_rng(3)
    refused = 0
    for number in range(30):
        edges, spacing = (np.round(generator.uniform(0.4, 3, 3), int(generator.integers(1, 5))) for _ in range(2))
        shape = generator.integers(1, 24, 3)
        turn = np.linalg.qr(generator.normal(size=(3, 3)))[0] if number % 4 else np.eye(3)[generator.permutation(3)]
        affine = np.eye(4)
        affine[:3, :3] = (turn + generator.normal(0, 1e-7, (3, 3))) * edges
        affine[:3, 3] = generator.normal(0, 100, 3)
        affine = affine.astype(np.float32).astype(np.float64)  # as headers hold it
        meta = {"original_affine": torch.from_numpy(affine), "spatial_shape": torch.tensor(shape)}
        read = MetaTensor(torch.zeros((1, *shape)), affine=torch.from_numpy(affine), meta=meta)
        for keys in ((), "label"):  # MONAI's own resampling is used where there are labels
            chain = Compose(load_ct(label_keys=keys, spacing_mm=spacing.tolist()).transforms[1:])
            image = chain({"image": read, "label": read})["image"]
            assert OwnGrid.of(image).shape == tuple(shape)
            for other in (image[:, 1:], image[..., :-1], image.permute(0, 2, 1, 3)):
                if other.shape != image.shape and other.numel():
                    try:
                        OwnGrid.of(other)
                    except GeometryError:
                        refused += 1
                    else:  # half a voxel, which rounds to either side
                        extent = (shape - 1) @ np.abs(np.linalg.solve(image.affine.numpy(), affine)[:3, :3]).T % 1
                        assert np.abs(extent - 0.5).min() < 0.02
    assert refused > 100


KILLED = """
import os, signal, sys
import torch
from monai_ext.inferers import BrickInferer, segment_to_file
from monai_ext.transforms import load_ct

def network(window):
    network.left -= 1
    if not network.left:
        os.kill(os.getpid(), signal.SIGKILL)
    return torch.cat([window, 1 - window], dim=1)

network.left = 3
image = load_ct()({"image": sys.argv[1]})["image"]
out = sys.argv[2]
segment_to_file(out + "/seg.nii.gz", image, network, BrickInferer((16, 20, 12)), {1: "a"}, probabilities=out + "/p.npy")
"""


@pytest.mark.full
def test_a_killed_run_leaves_nothing_under_the_final_names(scan: Scan, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(scan()), str(tmp_path / "out")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not [
        found.name for found in (tmp_path / "out").iterdir() if found.name in ("seg.nii.gz", "seg.json", "p.npy")
    ]


def test_a_full_disk_is_one_sentence(scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = load_ct()({"image": scan()})["image"]

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(WriteError, match=r"^seg\.nii: could not be written \(No space left on device\); free space"):
        segment_to_file(tmp_path / "out" / "seg.nii", image, network, BrickInferer(WINDOW), NAMES)
    assert not list((tmp_path / "out").iterdir())


def test_entropy_is_that_of_the_whole_logits(scan: Scan) -> None:
    image = load_ct()({"image": scan()})["image"]
    logits = BrickInferer(WINDOW)(image.as_tensor()[None], network)[0]
    expected = torch.distributions.Categorical(logits=logits.movedim(0, -1)).entropy().mean()
    found = segment(image, network, BrickInferer(WINDOW), entropy=True).entropy
    assert found == pytest.approx(float(expected), rel=1e-5)  # float32 sums


def test_more_than_255_classes(scan: Scan) -> None:
    image = load_ct(spacing_mm=(4.0, 4.0, 4.0))({"image": scan()})["image"]
    bias = torch.zeros(300, 1, 1, 1)
    bias[299] = 1
    found = segment(image, lambda window: window * 0 + bias, BrickInferer(WINDOW)).labels
    assert (found == 299).all()


def test_a_mapped_volume_stands_in_its_file(tmp_path: Path) -> None:
    with (tmp_path / "volume").open("w+b") as file:
        file.write(b"head")
        volume = MappedVolume(file, (2, 3, 5), np.int16)
        assert not volume.array.any()
        volume.array[1, 2, 4] = 7
        volume.settle()
        assert volume.array[1, 2, 4] == 7
    content = (tmp_path / "volume").read_bytes()
    assert (content[:4], len(content), content[-2:]) == (b"head", 4 + 60, b"\x07\x00")


@pytest.mark.parametrize("name", ["heart_1p5mm.nii.gz", "abdomen_slab_3mm.nii.gz", "dicom_jpeg2000"])
@pytest.mark.full
def test_real_scans(shared_ct: Path, name: str) -> None:
    window = (64, 64, 48)
    expected, _ = whole_then_inverted(
        shared_ct / name, (2.1, 2.3, 2.5), SlidingWindowInferer(window, 2, 0.5, mode="gaussian")
    )
    image = load_ct(spacing_mm=(2.1, 2.3, 2.5))({"image": shared_ct / name})["image"]
    found = segment(image, network, BrickInferer(window, 2, 0.5)).labels
    assert np.mean(found != expected) <= 5e-5
