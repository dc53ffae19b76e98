import builtins
import os
import pickle

import numpy as np
import pytest
import safetensors.torch
import torch

from monai_ext.base import SettingError, WeightsError, WriteError
from monai_ext.networks import HiEndMAE, read_checkpoint
from monai_ext.networks.checkpoints import open_checkpoint, write_checkpoint


class Bomb:
    """Would run code when unpickled."""

    def __reduce__(self):
        return builtins.print, ("this ran",)


@pytest.fixture
def state():
    torch.manual_seed(0)
    return {"encoder.patch_embedding.weight": torch.randn(6, 1, 2, 3, 4), "encoder.cls_token": torch.randn(1, 1, 6)}


def same(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def test_every_container(tmp_path, state):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(3))]).state_dict()
    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    files = {
        "plain.pt": state,
        "ignite.pt": {"model": state, "optimizer": optimizer, "trainer": {"epoch": 3}, "scaler": {"scale": 2.0}},
        "checkpoint_iteration=9.pt": {
            "model": wrapped,
            "optimizer": optimizer,
            "lr_scheduler": {"last_epoch": 9},
            "step": {"accumulated": 1},
            "best": {"best": None, "epoch": 0},
            "progress": {"iteration": 9, "epoch_length": 3},
        },
        "authors.pth.tar": {"epoch": 7, "state_dict": wrapped, "optimizer": optimizer, "scaler": {"scale": 2.0}},
    }
    for name, content in files.items():
        torch.save(content, tmp_path / name)
        assert same(read_checkpoint(tmp_path / name), state)
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, tmp_path / "some.safetensors")
    safetensors.torch.save_file(state, tmp_path / "some.bin")
    for name in ("old.pth", "some.safetensors", "some.bin"):
        assert same(read_checkpoint(tmp_path / name), state)
    assert set(open_checkpoint(tmp_path / "authors.pth.tar").beside) == {"epoch", "optimizer", "scaler"}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("authors", [False, True])
def test_written_weights_read_back(tmp_path, state, suffix, authors):
    state["stacked"], state["half"] = torch.randn(5, 4)[2:], torch.randn(3, 4).half().t()  # views, not contiguous
    path = tmp_path / f"weights{suffix}"
    write_checkpoint(state, path, authors=authors)
    assert same(read_checkpoint(path), state)
    assert {file.name for file in tmp_path.iterdir()} == {path.name, f"{path.name}.sha256"}
    if authors:
        assert all(name.startswith("module.") for name in open_checkpoint(path).tensors)
        assert bool(open_checkpoint(path).beside) == (suffix == ".pt")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_cut_short_at_any_point(tmp_path, suffix):
    whole = tmp_path / f"whole{suffix}"
    write_checkpoint(HiEndMAE.tiny(encoder_width=6, encoder_heads=1).state_dict(), whole)
    content = whole.read_bytes()
    for keep in (1, 7, 8, 9, 100, len(content) // 2, len(content) - 1):
        cut = tmp_path / f"cut{suffix}"
        cut.write_bytes(content[:keep])
        with pytest.raises(
            WeightsError, match=rf"cut{suffix}: truncated, damaged or not a file of weights \({keep} bytes\)"
        ):
            open_checkpoint(cut)


def test_legacy_pickle_cut_short(tmp_path, state):
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "old.pth").read_bytes()
    for keep in (2, 50, len(content) // 2, len(content) - 3):
        (tmp_path / "cut.pth").write_bytes(content[:keep])
        with pytest.raises(WeightsError, match=r"cut\.pth: truncated, damaged"):
            open_checkpoint(tmp_path / "cut.pth")


@pytest.mark.parametrize("content", [b"hello, these are no weights", b"\x89PNG\r\n\x1a\n" + bytes(64), bytes(200)])
@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
def test_something_else(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match="truncated, damaged or not a file of weights"):
        open_checkpoint(tmp_path / name)


def test_missing_empty_and_folder(tmp_path):
    with pytest.raises(WeightsError, match=r"^none\.pt: no such file of weights"):
        open_checkpoint(tmp_path / "none.pt")
    (tmp_path / "empty.pt").touch()
    with pytest.raises(WeightsError, match=r"^empty\.pt: empty \(0 bytes\)"):
        open_checkpoint(tmp_path / "empty.pt")
    with pytest.raises(WeightsError, match=r"a folder; give the file"):
        open_checkpoint(tmp_path)


def test_weights_that_may_not_be_read(tmp_path, state, monkeypatch):
    torch.save(state, tmp_path / "model.pt")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root, as which tests may run, may read everything
    with pytest.raises(WeightsError, match=r"^model\.pt: you may not read it; change its permissions"):
        open_checkpoint(tmp_path / "model.pt")


@pytest.mark.parametrize("legacy", [False, True])
def test_code_never_runs(tmp_path, state, capsys, legacy):
    path = tmp_path / "bomb.pt"
    torch.save({"state_dict": state, "extra": Bomb()}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match=r"^bomb\.pt: holds Python objects .* could run code; save its state_dict"):
        open_checkpoint(path)
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(WeightsError, match=r"^bomb\.pt: "):
        open_checkpoint(path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({}, "holds a dict instead of named tensors"),
        ([torch.zeros(2)], "holds a list instead of named tensors"),
        (torch.zeros(2), "holds a Tensor instead of named tensors"),
        ({"weights": {"a": torch.zeros(2)}}, "'weights' is a dict, not a tensor"),
        ({"state_dict": {"a": 3}}, "'a' is a int, not a tensor"),
        ({1: torch.zeros(2)}, "1 is a Tensor, not a tensor"),
        ({"a": torch.zeros(2, dtype=torch.int64)}, r"a holds torch\.int64 numbers"),
        ({"a": torch.tensor([1.0, float("nan")])}, "a holds NaN or infinite numbers"),
        ({"a": torch.tensor([1.0, -float("inf")])}, "a holds NaN or infinite numbers"),
    ],
)
def test_other_content(tmp_path, content, sentence):
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(WeightsError, match=rf"^odd\.pt: {sentence}"):
        open_checkpoint(tmp_path / "odd.pt")


def test_numpy_numbers_are_refused_with_the_way_out(tmp_path, state):
    torch.save({"state_dict": state, "best": np.float64(0.5)}, tmp_path / "best.pt")
    with pytest.raises(WeightsError, match=r"best\.pt: holds Python objects .* save its state_dict alone"):
        open_checkpoint(tmp_path / "best.pt")


def test_nothing_half_written_remains(tmp_path, state, monkeypatch):
    def full(*_, **__):
        raise OSError(28, os.strerror(28))

    target = tmp_path / "weights.pt"
    target.write_bytes(b"as before")
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(WriteError, match=r"weights\.pt: could not be written \(No space left on device\)"):
        write_checkpoint(state, target)
    assert target.read_bytes() == b"as before"
    assert len(list(tmp_path.iterdir())) == 1


def test_ending_chooses_the_format(tmp_path, state):
    with pytest.raises(SettingError, match=r"weights\.zip: the ending chooses the format"):
        write_checkpoint(state, tmp_path / "weights.zip")


def test_no_weights_are_loaded_where_the_environment_reopens_pickles(tmp_path, monkeypatch, state):
    write_checkpoint(state, tmp_path / "weights.pt")
    for value in ("1", "TRUE"):
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", value)
        with pytest.raises(WeightsError, match=r"^TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set, .*; unset it") as refused:
            open_checkpoint(tmp_path / "weights.pt")
        assert refused.value.code == "weights.forced"
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "0")
    open_checkpoint(tmp_path / "weights.pt")
