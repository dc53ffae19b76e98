"""One run a folder: a second process is refused, a killed one blocks nobody."""

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from monai_ext.base import RunError, WriteError, hold_folder, leave_folders

HOLDER = """
import sys, pathlib
from monai_ext.base import hold_folder
hold_folder(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen]:
    """Another process, which holds the folder ``run``."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


@pytest.fixture(autouse=True)
def _left() -> Iterator[None]:
    yield
    leave_folders()


def test_a_second_run_is_refused_until_the_first_is_killed(tmp_path: Path, other: subprocess.Popen) -> None:
    with pytest.raises(RunError) as caught:
        hold_folder(tmp_path / "run", patience_s=0)
    sentence = "run: another run is writing into this folder; wait for its end, or choose another output_dir"
    assert (str(caught.value), caught.value.code) == (sentence, "run.folder_busy")
    hold_folder(tmp_path / "beside", patience_s=0)
    # The ranks that torchrun starts anew may be there before the killed ones are gone.
    threading.Timer(0.2, other.kill).start()
    hold_folder(tmp_path / "run", patience_s=30)
    hold_folder(tmp_path / "run", patience_s=0)  # what the process holds it may take again


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(WriteError, match=re.escape("run: the run's folder cannot be written (File exists)")):
        hold_folder(tmp_path / "run")
