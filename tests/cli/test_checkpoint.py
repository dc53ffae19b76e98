import pytest
import torch
import typer
from typer.testing import CliRunner

from monai_ext.base import WeightsError, WriteError, sha256_of
from monai_ext.cli.checkpoint import checkpoint
from monai_ext.networks import HiEndMAE, HiEndSegmenter, load_into, read_checkpoint
from monai_ext.networks.checkpoints import write_checkpoint

app = typer.Typer()
app.command()(checkpoint)

SIZES = {"image_size": (24, 12, 12), "patch_size": (6, 6, 6), "encoder_width": 12, "encoder_heads": 2}


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    write_checkpoint(HiEndMAE.tiny(**SIZES).state_dict(), tmp_path / "own.safetensors")
    return tmp_path / "own.safetensors"


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_every_target_prints_every_tensor_and_the_checksum(weights, suffix):
    names = set(read_checkpoint(weights))
    for target in ("monai-ext", "authors", "authors-encoder", "segmenter"):
        written = weights.parent / f"{target}.{suffix}"
        result = run(weights, written, "--to", target)
        assert result.exit_code == 0, result.output
        assert f"sha256 {sha256_of(written)}" in result.output
        assert "image_size (24, 12, 12)" in result.output
        assert "patch_size (6, 6, 6)" in result.output
        lines = [line.split() for line in result.output.splitlines()]
        assert {line[1] for line in lines if line[0] == "loaded"} == set(read_checkpoint(written))
        dropped = {line[1] for line in lines if line[0] == "dropped"}
        assert dropped <= names
        assert ("mask_token" in dropped) == (target in ("authors-encoder", "segmenter"))


def test_what_was_written_loads(weights):
    run(weights, weights.parent / "seg.pt", "--to", "segmenter", "--published")
    network = HiEndSegmenter.tiny(3, **SIZES, published=True)
    assert all(name.startswith("vit.") for name in load_into(network, weights.parent / "seg.pt").loaded)
    run(weights, weights.parent / "authors.pt", "--to", "authors")
    assert not load_into(HiEndMAE.tiny(**SIZES), weights.parent / "authors.pt").initialised


def test_patches_that_are_no_cubes_must_be_told(tmp_path):
    network = HiEndSegmenter.tiny(3, (16, 12, 10), (8, 6, 5), encoder_width=12, encoder_heads=2)
    write_checkpoint(network.state_dict(), tmp_path / "seg.pt")
    arguments = (tmp_path / "seg.pt", tmp_path / "own.pt", "--to", "monai-ext")
    result = run(*arguments)
    assert isinstance(result.exception, WeightsError)
    assert "give the network's patch_size" in str(result.exception)
    assert not (tmp_path / "own.pt").exists()
    assert run(*arguments, "--patch-size", 8, 6, 5).exit_code == 0
    assert read_checkpoint(tmp_path / "own.pt")["encoder.patch_embedding.weight"].shape == (12, 1, 8, 6, 5)


def test_bad_input_is_the_typed_error_that_the_app_prints(weights, tmp_path):
    result = run(tmp_path / "none.pt", tmp_path / "out.pt", "--to", "authors")
    assert isinstance(result.exception, WeightsError)
    result = run(weights, tmp_path / "out.zip", "--to", "authors")
    assert "the ending chooses the format" in str(result.exception)
    assert run(weights, tmp_path / "out.pt", "--to", "timm").exit_code == 2
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("way", ["same", "link"])
def test_a_file_is_not_written_over_itself(weights, tmp_path, way):
    target = weights
    if way == "link":
        target = tmp_path / "link.safetensors"
        target.symlink_to(weights)
    before = sha256_of(weights)
    result = run(weights, target, "--to", "authors-encoder")  # it would lose the decoder
    assert isinstance(result.exception, WriteError)
    assert str(result.exception).startswith(f"{target.name}: it would be written over itself")
    assert sha256_of(weights) == before


def test_help_is_quick_to_make():
    assert "--to" in run("--help").output
