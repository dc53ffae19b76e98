"""A checksum beside weights says when they were damaged, and never calls an interrupted writing damage."""

import hashlib
import logging
import multiprocessing
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from monai_ext.base import (
    WeightsError,
    WriteError,
    copy_weights,
    digest_path,
    digests,
    remove_weights,
    replacing_weights,
    verify_digest,
    write_digest,
    writing,
)


def put(path: Path, content: bytes) -> None:
    with replacing_weights(path) as temporary:
        temporary.write_bytes(content)


def test_sha256sum_checks_what_is_written(tmp_path: Path) -> None:
    put(tmp_path / "model.pt", b"abc")
    assert digest_path(tmp_path / "model.pt").read_text() == f"{hashlib.sha256(b'abc').hexdigest()}  model.pt\n"
    tool = shutil.which("sha256sum")
    if tool is None:
        pytest.skip("needs sha256sum")
    subprocess.run([tool, "--check", "--strict", "model.pt.sha256"], cwd=tmp_path, check=True, capture_output=True)
    assert verify_digest(tmp_path / "model.pt")
    assert verify_digest(tmp_path / "model.pt", b"abc")


@pytest.mark.parametrize("content", [b"abd", b"ab", b""])
def test_other_bytes_are_refused(tmp_path: Path, content: bytes) -> None:
    put(tmp_path / "model.pt", b"abc")
    (tmp_path / "model.pt").write_bytes(content)
    message = r"^model\.pt: its sha256 is [0-9a-f]{16}\.\.\., not that of model\.pt\.sha256: the file was damaged or"
    with pytest.raises(WeightsError, match=message) as caught:
        verify_digest(tmp_path / "model.pt")
    assert caught.value.code == "weights.sha256"
    with pytest.raises(WeightsError, match="damaged"):
        verify_digest(tmp_path / "model.pt", content)


@pytest.mark.parametrize(
    "line",
    ["{}", "{}  model.pt", "{} *model.pt", "{}  out/model.pt", "{}  model.pt\r", "# made by hand\n{}  ./model.pt"],
)
def test_checksums_of_other_tools_are_understood(tmp_path: Path, line: str) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"abc")
    digest_path(path).write_text(line.format(hashlib.sha256(b"abc").hexdigest().upper()) + "\n")
    assert verify_digest(path)
    path.write_bytes(b"abd")
    with pytest.raises(WeightsError, match="damaged"):
        verify_digest(path)


@pytest.mark.parametrize("content", [b"", b"\0" * 90, b"12ab  model.pt\n", b"a" * 64 + b"  other.pt\n"])
def test_a_checksum_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"abc")
    digest_path(path).write_bytes(content)
    with pytest.raises(WeightsError, match=r"^model\.pt\.sha256: holds no SHA-256 of model\.pt; remove it, or make"):
        verify_digest(path)


def test_weights_of_others_are_taken_and_that_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "theirs.pt").write_bytes(b"abc")
    with caplog.at_level(logging.WARNING, "monai_ext"):
        assert not verify_digest(tmp_path / "theirs.pt")
        assert not verify_digest(tmp_path / "theirs.pt")
    assert caplog.messages == ["theirs.pt: no theirs.pt.sha256 beside it, so damage to it may go unnoticed"]
    assert write_digest(tmp_path / "theirs.pt") == hashlib.sha256(b"abc").hexdigest()
    assert verify_digest(tmp_path / "theirs.pt")


def test_removing_takes_both(tmp_path: Path) -> None:
    put(tmp_path / "model.pt", b"abc")
    remove_weights(tmp_path / "model.pt")
    remove_weights(tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it runs that touches the disk."""


def killed_at(step: int, write: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run ``write`` until it has done that many steps on the disk; tell whether it was stopped before its end."""
    left, dead = [step], [False]

    def counted(name: str) -> Callable[..., object]:
        real = getattr(os, name)

        def call(*args: object, **kwargs: object) -> object:
            if dead[0] or not left[0]:
                dead[0] = True
                raise Killed
            left[0] -= 1
            return real(*args, **kwargs)

        return call

    def unlink(self: Path, missing_ok: bool = False) -> None:
        if dead[0]:
            raise Killed  # the dead clean nothing up
        os.unlink(self)

    with monkeypatch.context() as patched:
        for name in ("replace", "fsync", "chmod"):
            patched.setattr(os, name, counted(name))
        patched.setattr(Path, "unlink", unlink)
        try:
            write()
        except Killed:
            return True
    return False


@pytest.mark.parametrize("before", ["nothing", "weights with checksum", "weights alone"])
def test_weights_load_wherever_their_writing_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str) -> None:
    step, killed, seen = 0, True, set()
    while killed:
        folder = tmp_path / str(step)
        folder.mkdir()
        path = folder / "model.pt"
        if before != "nothing":
            put(path, b"old")
        if before == "weights alone":
            digest_path(path).unlink()
        killed = killed_at(step, lambda path=path: put(path, b"new"), monkeypatch)
        if path.exists():
            seen.add(path.read_bytes())
            verify_digest(path)
            if before == "weights with checksum":  # never without it: damage is noticed at any moment
                damaged = bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]
                with pytest.raises(WeightsError, match="damaged"):
                    verify_digest(path, damaged)
        # Whoever writes next finishes the matter.
        put(path, b"next")
        assert path.read_bytes() == b"next"
        assert digest_path(path).read_text() == f"{hashlib.sha256(b'next').hexdigest()}  model.pt\n"
        step += 1
    assert step > 6  # flushing, renaming and flushing the folder, of each file
    assert seen == ({b"new"} if before == "nothing" else {b"old", b"new"})


def test_two_interruptions_after_one_another_are_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pt"
    put(path, b"first")
    for content in (b"second", b"third"):  # each stops once the announcement is there, and the weights are not
        assert killed_at(6, lambda content=content: put(path, content), monkeypatch)
    assert path.read_bytes() == b"first"
    assert digest_path(path).read_text().count("# next") == 2
    assert verify_digest(path)
    with pytest.raises(WeightsError, match="damaged"):
        verify_digest(path, b"firs")


def test_a_checksum_that_cannot_be_written_leaves_the_old_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.pt"
    put(path, b"old")
    real = writing.os.replace

    def full(source: Path, target: Path) -> None:
        if str(target).endswith(".sha256"):
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(writing.os, "replace", full)
    with pytest.raises(WriteError, match=r"^model\.pt\.sha256: could not be written"):
        put(path, b"new")
    assert path.read_bytes() == b"old"
    assert verify_digest(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.pt", "model.pt.sha256"]


def _rewrite(path: Path, times: int) -> None:
    for number in range(times):
        put(path, bytes([number % 251]) * 20_000)


def test_reading_beside_a_writer_is_never_called_damage(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    put(path, b"old")
    writer = multiprocessing.get_context("fork").Process(target=_rewrite, args=(path, 60))
    writer.start()
    reads = 0
    while writer.is_alive():
        assert verify_digest(path)
        reads += 1
    writer.join()
    assert writer.exitcode == 0
    assert reads > 10
    assert digests._known(path) == {hashlib.sha256(path.read_bytes()).hexdigest()}


def test_weights_are_copied_with_their_checksum_and_damage_is_not(tmp_path: Path) -> None:
    put(tmp_path / "best.pt", b"abc")
    copy_weights(tmp_path / "best.pt", tmp_path / "app" / "model.pt")
    assert verify_digest(tmp_path / "app" / "model.pt")
    (tmp_path / "best.pt").write_bytes(b"abd")
    with pytest.raises(WeightsError, match=r"^best\.pt: its sha256 is"):
        copy_weights(tmp_path / "best.pt", tmp_path / "app" / "model.pt")
    assert (tmp_path / "app" / "model.pt").read_bytes() == b"abc"


def test_a_copy_that_reads_back_otherwise_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "best.pt").write_bytes(b"abc")
    monkeypatch.setattr(shutil, "copyfile", lambda source, target: Path(target).write_bytes(b"ab"))
    with pytest.raises(WeightsError, match=r"^model\.pt: the copy reads back otherwise"):
        copy_weights(tmp_path / "best.pt", tmp_path / "model.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["best.pt"]
