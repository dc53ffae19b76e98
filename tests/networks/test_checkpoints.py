import hashlib
import json

import pytest
import torch
from torch import nn

from monai_ext.base import WeightsError, sha256_of
from monai_ext.networks import (
    HiEndMAE,
    HiEndReconstructor,
    HiEndSegmenter,
    convert,
    open_weights,
    read_checkpoint,
    sincos_positions,
)
from monai_ext.networks.checkpoints import convert_file, sizes_of, write_checkpoint

SIZES = {"image_size": (16, 18, 20), "patch_size": (8, 6, 5), "encoder_width": 12, "encoder_heads": 2}


@pytest.fixture
def image():
    return torch.rand(1, 1, 16, 18, 20, generator=torch.Generator().manual_seed(0))


class TestOpenWeights:
    """Inference must never run on a network that is partly random."""

    def test_eager(self, tmp_path, image):
        trained, fresh = HiEndReconstructor.tiny(**SIZES), HiEndReconstructor.tiny(**SIZES)
        write_checkpoint(trained.state_dict(), tmp_path / "model.pt")
        opened = open_weights(fresh, tmp_path / "model.pt", sha256=sha256_of(tmp_path / "model.pt"))
        assert opened is fresh
        assert not opened.training
        assert torch.equal(opened(image), trained.eval()(image))

    def test_encoder_alone_is_not_enough(self, tmp_path):
        write_checkpoint(HiEndMAE.tiny(**SIZES).state_dict(), tmp_path / "pretrained.pt")
        with pytest.raises(
            WeightsError, match=r"^pretrained\.pt: holds no .* tensors that would stay random; fine-tune"
        ):
            open_weights(HiEndSegmenter.tiny(3, **SIZES), tmp_path / "pretrained.pt")

    @pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore:.torch.jit:DeprecationWarning")
    def test_torchscript_needs_its_checksum(self, tmp_path):
        path = tmp_path / "model.ts"
        torch.jit.script(nn.Linear(3, 2)).save(path)
        network = HiEndMAE.tiny(**SIZES)
        with pytest.raises(
            WeightsError, match=r"^model\.ts: a TorchScript file holds code .* `sha256sum model\.ts` .*weights_sha256"
        ):
            open_weights(network, path)
        with pytest.raises(WeightsError, match=r"^model\.ts: its sha256 is [0-9a-f]{64}, not 00ff"):
            open_weights(network, path, sha256="00ff")
        opened = open_weights(network, path, sha256=sha256_of(path).upper())
        assert opened(torch.ones(1, 3)).shape == (1, 2)
        assert not opened.training

    @pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore:.torch.jit:DeprecationWarning")
    @pytest.mark.parametrize("kind", ["model.ts", "model.pt", "model.safetensors"])
    def test_what_was_checked_is_what_loads(self, tmp_path, monkeypatch, image, kind):
        trained, other = (HiEndReconstructor.tiny(**SIZES).eval() for _ in range(2))
        for folder, network in (("given", trained), ("swapped", other)):
            (tmp_path / folder).mkdir()
            if kind == "model.ts":
                torch.jit.script(network).save(tmp_path / folder / kind)
            else:
                write_checkpoint(network.state_dict(), tmp_path / folder / kind)
        path, digest = tmp_path / "given" / kind, sha256_of(tmp_path / "given" / kind)

        def swap_after(hashing):
            def hash_and_swap(*args):
                result = hashing(*args)
                path.write_bytes((tmp_path / "swapped" / kind).read_bytes())
                return result

            return hash_and_swap

        for name in ("sha256", "file_digest"):
            monkeypatch.setattr(hashlib, name, swap_after(getattr(hashlib, name)))
        opened = open_weights(HiEndReconstructor.tiny(**SIZES), path, sha256=digest)
        assert path.read_bytes() == (tmp_path / "swapped" / kind).read_bytes()
        torch.testing.assert_close(opened(image), trained(image), rtol=0, atol=1e-6)  # scripted rounds otherwise
        assert not torch.allclose(other(image), trained(image), atol=1e-3)

    def test_checksum_of_other_files_counts_too(self, tmp_path):
        write_checkpoint(HiEndMAE.tiny(**SIZES).state_dict(), tmp_path / "model.safetensors")
        with pytest.raises(WeightsError, match="its sha256 is"):
            open_weights(HiEndMAE.tiny(**SIZES), tmp_path / "model.safetensors", sha256="0" * 64)

    def test_missing(self, tmp_path):
        with pytest.raises(WeightsError, match=r"^none\.ts: no such file"):
            open_weights(HiEndMAE.tiny(**SIZES), tmp_path / "none.ts", sha256="0" * 64)


class TestSizes:
    """What a checkpoint tells about the network it came from."""

    def test_of_the_published_models(self, shared_goldens):
        models = json.loads((shared_goldens / "hi_end_mae" / "released_checkpoint_keys.json").read_text())["models"]
        for size in ("base_p16", "large_p12"):
            config = models[f"vit_{size}"]["config"]
            keys = models[f"vit_{size}"]["keys"]
            with torch.device("meta"):
                state = convert({name: torch.empty(entry["shape"]) for name, entry in keys.items()}).tensors
            # Only the positions need numbers: they tell the grid.
            state["encoder_pos_embed"] = sincos_positions(tuple(config["grid_size"]), config["embed_dim"])
            assert sizes_of(state) == {
                "image_size": tuple(config["img_size"]),
                "patch_size": tuple(config["patch_size"]),
                "in_channels": config["in_chans"],
                "encoder_width": config["embed_dim"],
                "encoder_depth": config["depth"],
                "decoder_width": config["decoder_embed_dim"],
                "decoder_self_depth": config["self_depth"],
                "cross_depth": config["cross_depth"],
            }

    def test_of_unequal_axes(self, random_mae):
        sizes = sizes_of(random_mae.state_dict())
        assert (sizes["image_size"], sizes["patch_size"]) == ((12, 10, 21), (4, 5, 3))
        assert (sizes["in_channels"], sizes["encoder_depth"], sizes["cross_depth"]) == (2, 5, 3)

    def test_learned_positions_tell_no_image(self, random_mae):
        state = random_mae.state_dict()
        state["encoder_pos_embed"] = state["encoder_pos_embed"] + 0.05
        assert "image_size" not in sizes_of(state)

    def test_without_positions(self, random_mae):
        state = random_mae.state_dict()
        del state["encoder_pos_embed"]
        with pytest.raises(WeightsError, match=r"encoder_pos_embed: absent"):
            sizes_of(state)


class TestConvertFile:
    """From one file to another, checked against a network of the sizes that the tensors tell."""

    def test_there_and_back_is_the_same_file(self, tmp_path, random_mae):
        source, theirs, back = (tmp_path / name for name in ("own.safetensors", "authors.pt", "back.safetensors"))
        write_checkpoint(random_mae.state_dict(), source)
        convert_file(source, theirs, "authors")
        content = torch.load(theirs, weights_only=True)
        assert set(content) == {"epoch", "state_dict"}
        assert all(name.startswith("module.") for name in content["state_dict"])
        account, _ = convert_file(theirs, back, "monai_ext")
        assert sha256_of(back) == sha256_of(source)
        assert account.source == "authors.pt"
        assert list(account.dropped) == ["epoch"]

    def test_fine_tuned_encoder_comes_back(self, tmp_path):
        network = HiEndSegmenter.tiny(3, **SIZES)
        network.vit.patch_embedding.position_embeddings.data += 0.1
        write_checkpoint(network.state_dict(), tmp_path / "segmenter.pt")
        account, sizes = convert_file(
            tmp_path / "segmenter.pt", tmp_path / "out.pt", "authors_encoder", patch_size=(8, 6, 5)
        )
        assert sizes["patch_size"] == (8, 6, 5)
        assert set(read_checkpoint(tmp_path / "out.pt")) == set(account.loaded)
        assert "out.conv.conv.weight" in account.dropped

    def test_tensor_short_or_misshapen(self, tmp_path, random_mae):
        state = random_mae.state_dict()
        del state["encoder.blocks.2.norm1.bias"]
        write_checkpoint(state, tmp_path / "short.pt")
        with pytest.raises(WeightsError, match=r"short\.pt: encoder\.blocks\.2\.norm1\.bias is missing"):
            convert_file(tmp_path / "short.pt", tmp_path / "out.pt", "authors")
        state["encoder.blocks.2.norm1.bias"] = torch.zeros(25)
        write_checkpoint(state, tmp_path / "odd.pt")
        with pytest.raises(
            WeightsError, match=r"odd\.pt: encoder\.blocks\.2\.norm1\.bias has shape \[25\].*needs \[24\]"
        ):
            convert_file(tmp_path / "odd.pt", tmp_path / "out.pt", "authors")
        assert not (tmp_path / "out.pt").exists()


@pytest.mark.full
def test_published_size_converts_both_ways(tmp_path):
    """The largest checkpoint, 1.5 GB, through files."""
    torch.manual_seed(0)
    own, theirs, back = (tmp_path / name for name in ("own.safetensors", "authors.pt", "back.safetensors"))
    write_checkpoint(HiEndMAE.large_p12().state_dict(), own)
    convert_file(own, theirs, "authors")
    assert convert_file(theirs, back, "monai_ext")[1]["patch_size"] == (12, 12, 12)
    assert sha256_of(own) == sha256_of(back)
