"""Nothing half-written, nothing outside its root, nothing of a path in a message."""

import errno
import hashlib
import os
import pickle
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from monai_ext.base import (
    ManifestError,
    ScanError,
    WriteError,
    case_id,
    check_output,
    inside,
    printable,
    replacing,
    save_torch,
    sha256_of,
    told_apart,
)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/data/Doe^Jane/ct_007.nii.gz", "ct_007"),
        ("a.b.NRRD", "a.b"),
        ("series folder", "series folder"),
        (".nii.gz", ".nii.gz"),
        ("x.nii", "x"),
    ],
)
def test_case_id_is_the_base_name_without_its_image_ending(path: str, expected: str) -> None:
    assert case_id(path) == expected


def test_replacing_keeps_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "mask.nii.gz"
    with replacing(target) as temporary:
        temporary.write_bytes(b"first")
    with pytest.raises(RuntimeError, match="killed"), replacing(target) as temporary:
        temporary.write_bytes(b"half")
        assert temporary.name.endswith("mask.nii.gz")
        raise RuntimeError("killed")
    assert target.read_bytes() == b"first"
    assert [p.name for p in target.parent.iterdir()] == ["mask.nii.gz"]


def test_replacing_refuses_what_verification_refuses(tmp_path: Path) -> None:
    def verify(path: Path) -> None:
        raise WriteError(f"{path.stat().st_size} bytes read back")

    with pytest.raises(WriteError, match="3 bytes"), replacing(tmp_path / "a.png", verify) as temporary:
        temporary.write_bytes(b"abc")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    message = r"^a\.pt: could not be written \(No space left on device\); free space"
    with pytest.raises(WriteError, match=message), replacing(tmp_path / "a.pt") as temporary:
        temporary.write_bytes(b"abc")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["torch", "safetensors", "bytes"])
def test_a_file_that_cannot_grow_is_one_sentence_whoever_writes_it(tmp_path: Path, how: str) -> None:
    tensors = {"a": torch.zeros(100_000)}  # 400 kB
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limit[1]))
    try:
        with (
            pytest.raises(WriteError, match=r"^a\.pt: could not be written \(File too large\); free space"),
            replacing(tmp_path / "a.pt") as temporary,
        ):
            if how == "torch":
                save_torch(tensors, temporary)
            elif how == "safetensors":
                save_file(tensors, temporary)
            else:
                temporary.write_bytes(bytes(400_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert list(tmp_path.iterdir()) == []


def test_mistakes_of_the_program_are_not_called_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(KeyError), replacing(tmp_path / "a.json"):
        raise KeyError("a")


def test_what_is_saved_loads(tmp_path: Path) -> None:
    save_torch({"a": torch.arange(7)}, tmp_path / "a.pt")
    assert torch.load(tmp_path / "a.pt", weights_only=True)["a"].tolist() == list(range(7))


def test_output_folders_are_checked_and_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_output(tmp_path / "new" / "deep")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=r"^file: is no folder; choose a writable output folder"):
        check_output(tmp_path / "file")
    with pytest.raises(WriteError, match=r"^run: file is no folder; choose"):
        check_output(tmp_path / "file" / "run")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root, as which tests may run, may write everywhere
    with pytest.raises(WriteError, match=rf"^run: {tmp_path.name} cannot be written; choose"):
        check_output(tmp_path / "run")


def test_scans_of_one_name_are_told_apart_by_their_paths() -> None:
    names = told_apart([("a", "x/a.nii"), ("A", "y/A.nii"), ("b", "b.nii"), ("a", "x/a.nii"), ("b", "b.nii")])
    assert names[0] == names[3] == "a-" + hashlib.sha256(b"x/a.nii").hexdigest()[:8]
    assert names[1].startswith("A-")
    assert [names[2], names[4]] == ["b", "b"]  # listed twice, but one scan


def test_replacing_honours_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "a.json") as temporary:
            temporary.write_text("{}")
    finally:
        os.umask(before)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("path", ["../x.nii", "a/../../x.nii", "/etc/passwd", "link/x.nii"])
def test_inside_refuses_what_leaves_the_root(tmp_path: Path, path: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(ManifestError, match="outside its root") as caught:
        inside(root, path)
    assert str(tmp_path) not in str(caught.value)


def test_inside_refuses_a_null_character(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"^a\?b: a null character"):
        inside(tmp_path, "x/a\0b.png")


def test_inside_is_not_confused_by_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert inside(tmp_path, "a").is_relative_to(tmp_path)


def test_inside_follows_links_that_stay(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert inside(tmp_path, "link/x.nii") == (tmp_path / "real" / "x.nii").resolve()


def test_errors_keep_code_and_case_across_processes() -> None:
    error = pickle.loads(pickle.dumps(ScanError("ct_1: torn", code="scan.truncated", case="ct_1")))
    assert (type(error), str(error), error.code, error.case) == (
        ScanError,
        "ct_1: torn",
        "scan.truncated",
        "ct_1",
    )


def test_sha256_of_the_standard_vector(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert sha256_of(tmp_path / "abc").startswith("ba7816bf8f01cfea414140de5dae2223")


@pytest.mark.parametrize(
    ("name", "shown"), [("x\nERROR: all\x1b[31m.nii", r"x\nERROR: all\x1b[31m.nii"), ("Größe 漢", "Größe 漢")]
)
def test_a_name_cannot_steer_a_terminal(name: str, shown: str) -> None:
    assert printable(name) == shown
