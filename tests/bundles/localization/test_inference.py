"""The localization bundle: where things lie, what is said, what goes on when a case cannot be used."""

import csv
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import open_clip
import pytest
import SimpleITK
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from PIL import Image

import monai_ext
from monai_ext.base import InputError
from monai_ext.networks import save_adapters
from monai_ext.volumes import prepare

BUNDLE = "aa_clip_lesion_localization"
Run = Callable[..., ConfigWorkflow]
Write = Callable[..., None]
OBLIQUE = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]])
SHAPE, SPACING = (61, 53, 23), (1.1, 1.3, 2.9)


def sentence(caught: pytest.ExceptionInfo[BaseException]) -> str:
    cause: BaseException | None = caught.value
    while cause is not None and not isinstance(cause, InputError):
        cause = cause.__cause__
    assert cause is not None
    return str(cause)


def grid(codes: str, turn: np.ndarray) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Return an affine whose axes run as the codes say, with other edges along each, and the shape."""
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(SPACING)
    affine[:3, 3] = (-31, 17, -203)
    plain = nib.Nifti1Image(np.zeros(SHAPE, np.int8), affine)
    wanted = nib.orientations.axcodes2ornt(codes)
    turned = plain.as_reoriented(nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), wanted))
    return turned.affine, turned.shape


# Each orientation, tilt and number of views is among those that always run.
QUICK = {
    ("RAS", "oblique", "one"),
    ("LPS", "straight", "three"),
    ("SAL", "oblique", "three"),
    ("LPS", "oblique", "one"),
}


@pytest.mark.parametrize(
    ("codes", "turn", "views"),
    [
        pytest.param(
            codes,
            turn,
            views,
            id=f"{many}-{tilt}-{codes}",
            marks=() if (codes, tilt, many) in QUICK else pytest.mark.full,
        )
        for codes in ("RAS", "LPS", "SAL")
        for tilt, turn in (("straight", np.eye(3)), ("oblique", OBLIQUE))
        for many, views in (("one", ["axial"]), ("three", ["axial", "coronal", "sagittal"]))
    ],
)
def test_a_ball_is_found_where_it_was_put(
    run_flow: Run,
    mirror: dict[str, Any],
    write_scan: Write,
    tmp_path: Path,
    codes: str,
    turn: np.ndarray,
    views: list[str],
) -> None:
    affine, shape = grid(codes, turn)
    # To the right of, in front of and above the middle, so that no mirrored place would do.
    middle = affine[:3, :3] @ ((np.array(shape) - 1) / 2) + affine[:3, 3]
    ball = middle + turn @ np.array([9.0, -12.0, 11.0])
    write_scan(tmp_path / "ct.nii.gz", affine, shape, ball, 6.5)
    settings = {**mirror, "dataset_dir": str(tmp_path / "ct.nii.gz"), "output_dir": str(tmp_path / "out")}
    run_flow(BUNDLE, ["inference"], False, {**settings, "views": views, "window_hu": [0, 200], "overlay": False})
    found = json.loads((tmp_path / "out" / "ct" / "ct_candidates.json").read_text())
    (one,) = found["candidates"]
    # Half a voxel of the coarsest edge: slices are where they are.
    np.testing.assert_allclose(one["center_mm"], ball, atol=1.5)
    assert one["volume_mm3"] == pytest.approx(4 / 3 * np.pi * 6.5**3, rel=0.25)  # resized there and back
    np.testing.assert_allclose(
        affine[:3, :3] @ np.array(one["center_voxel"]) + affine[:3, 3], one["center_mm"], atol=0.02
    )  # both rounded
    source, heat, mask = (
        SimpleITK.ReadImage(str(path))
        for path in (
            tmp_path / "ct.nii.gz",
            tmp_path / "out" / "ct" / "ct_anomaly.nii.gz",
            tmp_path / "out" / "ct" / "ct_mask.nii.gz",
        )
    )
    for image in (heat, mask):
        assert image.GetSize() == source.GetSize()
        for name in ("GetOrigin", "GetSpacing", "GetDirection"):
            np.testing.assert_allclose(getattr(image, name)(), getattr(source, name)(), atol=1e-4)  # float32 header
    # SimpleITK, which counts mm to the left and back, finds the ball in mask and heat where it was put.
    statistics = SimpleITK.LabelShapeStatisticsImageFilter()
    statistics.Execute(mask)
    np.testing.assert_allclose(statistics.GetCentroid(1), ball * (-1, -1, 1), atol=1.5)
    place = heat.TransformPhysicalPointToIndex([float(v) for v in ball * (-1, -1, 1)])
    assert heat[place] > 0.9
    mirrored = ball + 2 * (middle - ball) * (turn @ np.array([1.0, 0, 0]) != 0)
    elsewhere = heat.TransformPhysicalPointToIndex([float(v) for v in mirrored * (-1, -1, 1)])
    assert heat[elsewhere] < 0.2
    # The slice range is that of the axis along the patient, in the file's own order.
    axis = int(np.abs(affine[2, :3]).argmax())
    slices = np.flatnonzero(
        np.asarray(nib.load(tmp_path / "out" / "ct" / "ct_mask.nii.gz").dataobj).any(
            axis=tuple(k for k in range(3) if k != axis)
        )
    )
    assert one["slices"] == [slices[0], slices[-1]]


def test_a_slice_and_its_picture_give_the_same_map(
    run_flow: Run, tiny: dict[str, Any], write_scan: Write, tmp_path: Path
) -> None:
    affine = np.diag([1.5, 1.5, 3.0, 1.0])
    write_scan(tmp_path / "ct.nii.gz", affine, (37, 31, 5), np.array([20.0, 20, 6]), 5)
    hu = np.asarray(nib.load(tmp_path / "ct.nii.gz").dataobj)[:, :, 2]
    grey = np.rint(np.clip((hu.astype(np.float32) + 150) / 400, 0, 1) * 255).astype(np.uint8)
    Image.fromarray(grey.T[::-1, ::-1]).save(tmp_path / "slice.png")
    for source in ("ct.nii.gz", "slice.png"):
        overrides = {**tiny, "dataset_dir": str(tmp_path / source), "output_dir": str(tmp_path / "out")}
        run_flow(BUNDLE, ["inference"], False, {**overrides, "class_name": "liver", "smooth_mm": 0.0})
    volume = np.asarray(nib.load(tmp_path / "out" / "ct" / "ct_anomaly.nii.gz").dataobj)[:, :, 2]
    with Image.open(tmp_path / "out" / "slice" / "slice_anomaly.tif") as heat:
        picture = np.asarray(heat)
    assert picture.dtype == np.float32
    np.testing.assert_allclose(volume.T[::-1, ::-1], picture, atol=1e-5)  # in a batch of several, or alone


def test_folder_of_everything(run_flow: Run, tiny: dict[str, Any], write_scan: Write, tmp_path: Path) -> None:
    folder = tmp_path / "Doe^Jane"
    (folder / "masks").mkdir(parents=True)
    (folder / "again").mkdir()
    generator = np.random.default_rng(3)
    colours = generator.integers(0, 256, (47, 61, 3), dtype=np.uint8)
    Image.fromarray(colours).save(folder / "a.png")
    Image.fromarray(colours).save(folder / "again" / "a.png")
    Image.fromarray(colours[:, :, 0]).save(folder / "grey.jpg")
    Image.fromarray((generator.integers(0, 65536, (43, 41))).astype(np.uint16)).save(folder / "deep.tif")
    Image.fromarray(colours[:, :, 0]).save(folder / "masks" / "a.png")
    Image.fromarray(colours[:, :, 0]).save(folder / "a_mask.png")
    (folder / "torn.png").write_bytes((folder / "a.png").read_bytes()[:700])
    write_scan(folder / "ct.nii.gz", np.diag([2.0, 2, 4, 1]), (23, 19, 7), np.array([20.0, 18, 12]), 6)
    write_scan(folder / "thin.nii.gz", np.diag([2.0, 2, 4, 1]), (23, 19, 2), np.array([20.0, 18, 4]), 6)
    noise = nib.Nifti1Image(generator.integers(0, 255, (11, 13, 7)).astype(np.int16), np.eye(4))
    noise.set_qform(np.eye(4), 1)
    nib.save(noise, folder / "mr.nii.gz")
    out = folder / "results"
    overrides = {**tiny, "dataset_dir": str(folder), "output_dir": str(out), "class_name": "Liver"}
    for _ in range(2):  # the results inside the folder are no inputs of the second run
        with pytest.raises(RuntimeError) as caught:
            run_flow(BUNDLE, ["inference"], False, overrides)
        text = sentence(caught)
        assert text.startswith("3 of 8 scans failed: ")
        assert "torn: the picture torn.png is truncated" in text
        assert "mr: values from " in text
        assert "thin: 2 axial slices are no volume to localize in" in text
        assert "Doe" not in text
        done = {path.name for path in out.iterdir() if path.is_dir()}
        assert {"ct", "grey", "deep"} < done
        assert len(done) == 5
    assert not [path for path in out.rglob("*") if "writing" in path.name]
    names = {path.name for path in (out / "ct").iterdir()}
    assert names == {
        f"ct_{part}"
        for part in (
            "anomaly.nii.gz",
            "mask.nii.gz",
            "mask.json",
            "candidates.json",
            "candidates.csv",
            "overlay.png",
            "provenance.json",
        )
    }
    names = {path.name for path in (out / "grey").iterdir()}
    assert names == {
        f"grey_{part}"
        for part in ("anomaly.tif", "mask.png", "candidates.json", "candidates.csv", "overlay.png", "provenance.json")
    }
    with Image.open(out / "deep" / "deep_anomaly.tif") as heat:
        assert heat.size == (41, 43)
    rows = list(csv.DictReader((out / "cases.csv").read_text().splitlines()))
    assert len(rows) == 5
    assert {row["calibration"] for row in rows} == {"uncalibrated"}
    assert "uncalibrated" in json.loads((out / "ct" / "ct_mask.json").read_text())["calibration"]
    assert "uncalibrated" in nib.load(out / "ct" / "ct_anomaly.nii.gz").header["descrip"].item().decode()
    with Image.open(out / "grey" / "grey_anomaly.tif") as heat, Image.open(out / "grey" / "grey_mask.png") as mask:
        assert "uncalibrated" in heat.tag_v2[270]
        assert "uncalibrated" in mask.text["Description"]


def test_adapters_of_a_clip_with_random_weights(run_flow: Run, tmp_path: Path) -> None:
    """The try-out of the training needs no weights from anywhere, nor does inference with what it leaves."""
    parser = ConfigParser()
    folder = Path(monai_ext.bundle_path(BUNDLE)) / "configs"
    parser.read_config([str(folder / "inference.json"), str(folder / "tiny.json")])
    network = parser.get_parsed_content("network_def")
    out = network(torch.zeros(2, 3, 56, 56))
    assert isinstance(out, torch.Tensor)
    assert out.shape == (2, 1, 56, 56)
    save_adapters(network.model, tmp_path / "adapters.safetensors")
    Image.fromarray(np.arange(61 * 53, dtype=np.uint8).reshape(61, 53)).save(tmp_path / "photo.png")
    settings = {"dataset_dir": str(tmp_path / "photo.png"), "output_dir": str(tmp_path / "out"), "device": "cpu"}
    adapters = str(tmp_path / "adapters.safetensors")
    run_flow(BUNDLE, ["inference", "tiny"], False, {**settings, "adapters": adapters, "body_only": "true"})
    assert (tmp_path / "out" / "photo" / "photo_anomaly.tif").is_file()
    with pytest.raises(RuntimeError) as caught:
        run_flow(BUNDLE, ["inference", "tiny"], False, {**settings, "adapters": adapters, "clip_seed": 1})
    assert "adapters.safetensors: trained beside the CLIP" in sentence(caught)
    with pytest.raises(RuntimeError) as caught:
        run_flow(BUNDLE, ["inference", "tiny"], False, {**settings, "adapters": None})
    assert sentence(caught).startswith("adapters: none given; train them with train.json")


@pytest.fixture
def no_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    """A computer without the memory for any CLIP."""

    def refuse(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(open_clip.CLIP, "__init__", refuse)


@pytest.mark.parametrize("weights", ["openai", "laion2b_s32b_b82k"])
def test_pictures_are_shown_as_in_training_and_known_before_a_clip_is_built(no_clip: None, weights: str) -> None:
    parser, folder = ConfigParser(), Path(monai_ext.bundle_path(BUNDLE)) / "configs"
    parser.read_config([str(folder / "inference.json"), str(folder / "evaluate.json")])
    parser.update({"architecture": "ViT-L-14", "clip_weights": weights, "image_size": [518, 476], "adapters": None})
    picture = parser.get_parsed_content("picture")
    trained_on = open_clip.get_pretrained_cfg("ViT-L-14", weights)  # where training takes its colours from
    assert (picture.height, picture.width) == (518, 476)
    np.testing.assert_allclose(picture.mean.flatten(), trained_on["mean"], rtol=1e-6)  # float32
    np.testing.assert_allclose(picture.std.flatten(), trained_on["std"], rtol=1e-6)
    assert parser.get_parsed_content("preprocessing").mask_size == (518, 476)
    assert parser.get_parsed_content("calibration_settings")["image_size"] == [518, 476]


def test_a_calibration_that_does_not_fit_is_told_before_a_clip_is_built(no_clip: None, tmp_path: Path) -> None:
    Image.fromarray(np.full((31, 37), 20, np.uint8)).save(tmp_path / "x.png")
    (tmp_path / "calibration.json").write_text("{}")
    parser = ConfigParser()
    parser.read_config([str(Path(monai_ext.bundle_path(BUNDLE)) / "configs" / "inference.json")])
    paths = {"dataset_dir": "x.png", "output_dir": "out", "calibration_file": "calibration.json"}
    parser.update({name: str(tmp_path / path) for name, path in paths.items()} | {"adapters": None, "device": "cpu"})
    with pytest.raises(RuntimeError) as caught:
        parser.get_parsed_content("evaluator")
    assert sentence(caught).startswith("calibration.json: no calibration can be read from it")


def test_the_network_is_the_published_clip_at_the_size_of_its_pictures() -> None:
    parser = ConfigParser()
    parser.read_config([str(Path(monai_ext.bundle_path(BUNDLE)) / "configs" / "inference.json")])
    with torch.device("meta"):  # whole, but for the weights themselves
        clip = parser.get_parsed_content("network_def").model.clip
    assert (clip.image_size, clip.depth, clip.width, clip.embed_dim) == ((518, 518), 24, 1024, 768)
    taken = parser.get_parsed_content("clip_input")
    assert (clip.image_size, clip.mean, clip.std) == (taken.image_size, taken.mean, taken.std)
    assert clip.activation == "quick_gelu"  # what OpenAI's weights were trained with


def test_a_dicom_series_and_a_stored_volume(
    run_flow: Run, mirror: dict[str, Any], write_scan: Write, tmp_path: Path
) -> None:
    affine = np.diag([1.3, 1.3, 3.0, 1.0])
    affine[:3, 3] = (-30, -28, -203)
    ball = np.array([9.0, 6.0, -188.0])
    (tmp_path / "raw").mkdir()
    write_scan(tmp_path / "raw" / "ct.nii.gz", affine, (47, 43, 11), ball, 6.5)
    _write_series(tmp_path / "raw" / "ct.nii.gz", tmp_path / "series")
    assert prepare(tmp_path / "raw", tmp_path / "store", spacing_mm=(1.3, 1.3, 3.0), workers=0).exit_code == 0
    settings = {**mirror, "window_hu": [0, 200], "output_dir": str(tmp_path / "out"), "overlay": False}
    for source, name in (("series", "series"), ("store", "ct"), ("store/ct.b2nd", "ct")):
        run_flow(BUNDLE, ["inference"], False, {**settings, "dataset_dir": str(tmp_path / source)})
        (one,) = json.loads((tmp_path / "out" / name / f"{name}_candidates.json").read_text())["candidates"]
        np.testing.assert_allclose(one["center_mm"], ball, atol=1.5)  # half a voxel of 3 mm
    heat = SimpleITK.ReadImage(str(tmp_path / "out" / "series" / "series_anomaly.nii.gz"))
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "series")))
    source = reader.Execute()
    assert heat.GetSize() == source.GetSize()
    corner = [size - 1 for size in source.GetSize()]
    for index in ([0, 0, 0], corner):
        place = [heat.TransformIndexToPhysicalPoint(index), heat.TransformIndexToPhysicalPoint(corner)]
        assert any(np.allclose(source.TransformIndexToPhysicalPoint(index), one, atol=1e-3) for one in place)


def _write_series(nifti: Path, folder: Path) -> None:
    """Write a NIfTI as a CT series, one file a slice, with the rescale and the geometry of the standard."""
    volume = SimpleITK.ReadImage(str(nifti))
    folder.mkdir()
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    direction = volume.GetDirection()
    for z in range(volume.GetSize()[2]):
        cut = volume[:, :, z]
        tags = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"1.2.826.0.1.3680043.2.1125.7.{z + 1}",
            "0008|0060": "CT",
            "0020|000d": "1.2.826.0.1.3680043.2.1125.5",
            "0020|000e": "1.2.826.0.1.3680043.2.1125.6",
            "0020|0013": str(z + 1),
            "0020|0032": "\\".join(f"{v:.6f}" for v in volume.TransformIndexToPhysicalPoint((0, 0, z))),
            "0020|0037": "\\".join(str(direction[k]) for k in (0, 3, 6, 1, 4, 7)),
            "0020|0052": "1.2.826.0.1.3680043.2.1125.8",
            "0028|1052": "0",
            "0028|1053": "1",
            "0028|1054": "HU",
        }
        for tag, value in tags.items():
            cut.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{z:03d}.dcm"))
        writer.Execute(cut)


@pytest.mark.parametrize(
    ("configs", "change", "expected"),
    [
        (["inference"], {"precision": "fp8"}, "precision: 'fp8' is unknown; choose one of"),
        (["inference"], {"smooth_mm": "x"}, "smooth_mm: 'x'; give a number from 0 to 99.9"),
        (["inference"], {"device": "qpu"}, "device: 'qpu' cannot be used on this computer"),
        (["inference", "evaluate"], {"replicates": 2.5}, "replicates: 2.5; give a whole number from 0 on"),
        (["inference", "calibrate"], {"false_positive_rate": "x"}, "false_positive_rate: 'x'; give a number between"),
    ],
)
def test_a_wrong_setting_is_told_before_any_case_is_read(
    run_flow: Run, tiny: dict[str, Any], tmp_path: Path, configs: list[str], change: dict[str, Any], expected: str
) -> None:
    out = tmp_path / "out"
    with pytest.raises(RuntimeError) as caught:
        run_flow(BUNDLE, configs, False, {**tiny, "dataset_dir": str(tmp_path), "output_dir": str(out), **change})
    assert sentence(caught).startswith(expected)
    assert not out.exists()


def test_a_name_that_is_no_utf_8_is_localized_too(run_flow: Run, mirror: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = os.fsencode(tmp_path / "in") + b"/gr\xfcn.png"  # as Latin-1 has it
    with open(path, "wb") as file:
        Image.fromarray(np.full((31, 37), 20, np.uint8)).save(file, "PNG")
    for source in (tmp_path / "in", os.fsdecode(path)):
        settings = {**mirror, "dataset_dir": str(source), "output_dir": str(tmp_path / "out")}
        run_flow(BUNDLE, ["inference"], False, {**settings, "overlay": False})
        content = json.loads((tmp_path / "out" / "gr_n" / "gr_n_candidates.json").read_text(encoding="utf-8"))
        assert content["source"] == "gr_n.png"


class Never(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the network ran")


def test_results_of_another_input_are_noticed_before_the_network_runs(
    run_flow: Run, mirror: dict[str, Any], tmp_path: Path
) -> None:
    settings = {**mirror, "dataset_dir": str(tmp_path / "x.png"), "output_dir": str(tmp_path / "out")}
    Image.fromarray(np.full((31, 37), 20, np.uint8)).save(tmp_path / "x.png")
    run_flow(BUNDLE, ["inference"], False, {**settings, "overlay": False})
    Image.fromarray(np.full((31, 37), 30, np.uint8)).save(tmp_path / "x.png")
    with pytest.raises(RuntimeError) as caught:
        run_flow(BUNDLE, ["inference"], False, {**settings, "network": Never()})
    assert "x: x_candidates.json exists and is the result of another scan" in sentence(caught)


def test_letters_that_the_font_lacks_are_drawn_without_a_word(
    run_flow: Run, mirror: dict[str, Any], tmp_path: Path
) -> None:
    Image.fromarray(np.full((31, 37), 20, np.uint8)).save(tmp_path / "\u65e5\u672c.png")
    run_flow(
        BUNDLE, ["inference"], False, {**mirror, "dataset_dir": str(tmp_path), "output_dir": str(tmp_path / "out")}
    )
    assert len(list((tmp_path / "out").glob("*/*_overlay.png"))) == 1


def test_a_case_that_cannot_be_written_leaves_no_folder(
    run_flow: Run, mirror: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(np.full((31, 37), 20, np.uint8)).save(tmp_path / "x.png")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr("monai_ext.outputs.anomaly_writer.save_heat_picture", full)
    settings = {**mirror, "dataset_dir": str(tmp_path / "x.png"), "output_dir": str(tmp_path / "out")}
    with pytest.raises(RuntimeError) as caught:
        run_flow(BUNDLE, ["inference"], False, {**settings, "overlay": False})
    assert "x_anomaly.tif: could not be written (No space left on device)" in sentence(caught)
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["provenance.json"]
