"""What a killed writer leaves goes with the next writing; what a living one writes stays."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from monai_ext.base import leftovers, remove_leftovers, replacing, writing

WRITER = """
import sys, time
from pathlib import Path
from monai_ext.base import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    print(temporary.name, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def writer(tmp_path: Path):
    """A process that is in the middle of writing ``mask.nii.gz``, and the name of its temporary file."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "mask.nii.gz")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    yield process, process.stdout.readline().strip()
    process.kill()
    process.communicate()


def test_a_killed_writer_leaves_nothing_for_long(tmp_path: Path, writer) -> None:
    process, name = writer
    remove_leftovers(tmp_path)
    assert (tmp_path / name).read_bytes() == b"half"  # it lives
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with replacing(tmp_path / "other.json") as temporary:
        temporary.write_text("{}")
    assert [path.name for path in tmp_path.iterdir()] == ["other.json"]


def test_a_living_writer_of_this_process_is_left_alone(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.pt") as temporary:
        temporary.write_bytes(b"abc")
        remove_leftovers(tmp_path)
    assert (tmp_path / "a.pt").read_bytes() == b"abc"


def test_files_of_others_stay(tmp_path: Path) -> None:
    names = [".writing-", ".writing-notes", "writing-0a1b2c3d-a.pt", ".writing-0A1B2C3D-a.pt", "a.pt"]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / ".writing-0a1b2c3d-folder").mkdir()
    (tmp_path / "kept").write_bytes(b"kept")
    (tmp_path / ".writing-0a1b2c3d-link").symlink_to("kept")
    os.mkfifo(tmp_path / ".writing-0a1b2c3d-pipe")
    before = set(tmp_path.iterdir())
    remove_leftovers(tmp_path)
    assert set(tmp_path.iterdir()) == before
    (tmp_path / ".writing-0a1b2c3d-a.pt").touch()
    remove_leftovers(tmp_path)
    assert set(tmp_path.iterdir()) == before
    remove_leftovers(tmp_path / "nonesuch")


def test_without_locks_files_stay_for_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*args: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    for name in ("new", "old"):
        (tmp_path / f".writing-0a1b2c3d-{name}").touch()
    os.utime(tmp_path / ".writing-0a1b2c3d-old", (0, time.time() - 90_000))  # more than a day ago
    with replacing(tmp_path / "a.json") as temporary:
        temporary.write_text("{}")
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", ".writing-0a1b2c3d-new"}


def test_a_temporary_file_taken_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, taken = leftovers.hold, []

    def late(descriptor: int) -> None:
        if not taken:
            remove_leftovers(tmp_path)
            taken.append(descriptor)
        real(descriptor)

    monkeypatch.setattr("monai_ext.base.writing.hold", late)
    with replacing(tmp_path / "a.json") as temporary:
        temporary.write_text("{}")
    assert taken
    assert (tmp_path / "a.json").read_text() == "{}"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_written_over_a_temporary_one_is_locked_like_it(tmp_path: Path) -> None:
    # As a SEG that takes its place together with other files: its own writer replaces the temporary file.
    with replacing(tmp_path / "seg.dcm") as outer:
        with replacing(outer) as inner:
            inner.write_bytes(b"abc")
        assert outer.read_bytes() == b"abc"
        remove_leftovers(tmp_path)
    assert (tmp_path / "seg.dcm").read_bytes() == b"abc"
    assert [path.name for path in tmp_path.iterdir()] == ["seg.dcm"]
    with pytest.raises(RuntimeError, match="later"), replacing(tmp_path / "b.dcm") as outer:
        with replacing(outer) as inner:
            inner.write_bytes(b"abc")
        raise RuntimeError("later")
    assert [path.name for path in tmp_path.iterdir()] == ["seg.dcm"]
    assert not writing._inherited
