"""The tiny training, in this process, forked off a server that has loaded torch, or on two ranks."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("tiny_training.py")


@pytest.fixture(scope="session")
def tiny() -> Any:
    """The module of the tiny training."""
    spec = spec_from_file_location("tiny_training", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}


@pytest.fixture(scope="session")
def expected(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """The result of the uninterrupted run of the same settings, computed once, and the folder of its checkpoints."""
    known: dict[str, tuple[dict[str, Any], Path]] = {}

    def result(**settings: Any) -> tuple[dict[str, Any], Path]:
        key = json.dumps(settings, sort_keys=True)
        if key not in known:
            folder = tmp_path_factory.mktemp("whole")
            known[key] = tiny.Training(folder, **settings).run().result(), folder
        return known[key]

    return result


class Server:
    """Trainings in processes of their own, one at a time."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        command = [sys.executable, str(PROGRAM), "serve"]
        self.log = open(log, "wb")  # noqa: SIM115
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=self.log, env=environment, encoding="utf-8"
        )

    def start(self, **order: Any) -> int:
        """Start a training and wait until it runs."""
        started = Path(order["folder"]) / "started"
        started.unlink(missing_ok=True)
        self._say(json.dumps(order))
        pid = int(self._line())
        while (
            not started.exists()
            and Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").split(")")[1].split()[0] != "Z"
        ):
            time.sleep(0.005)
        return pid

    def wait(self) -> int:
        """Return the exit code; minus the signal of one that a signal ended."""
        self._say("")
        return os.waitstatus_to_exitcode(int(self._line()))

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(600)  # a busy computer takes a while to end it
        self.process.stdout.close()
        self.log.close()

    def _say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


@pytest.fixture(scope="session")
def server(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    served = Server(environment, tmp_path_factory.mktemp("server") / "log")
    yield served
    served.close()


@pytest.fixture(scope="session")
def start_ranks(environment: dict[str, str]) -> Callable[..., subprocess.Popen[bytes]]:
    """Start the tiny training under ``torchrun``: its options, then the settings."""

    def start(*options: str, **order: Any) -> subprocess.Popen[str]:
        folder = Path(order["folder"])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "order.json").write_text(json.dumps(order))
        command = [str(Path(sys.executable).parent / "torchrun"), "--standalone", "--nproc_per_node", "2", *options]
        command += [str(PROGRAM), "ranks", str(folder / "order.json")]
        with open(folder / "torchrun.log", "ab") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    return start


@pytest.fixture
def pid_of() -> Callable[..., int]:
    """Wait for a rank of ``torchrun``'s nth start, and return its process's id."""

    def find(folder: Path, number: int, start: int = 0) -> int:
        path = folder / f"pid_{number}_{start}"
        for _ in range(90_000):
            if path.exists() and path.read_text():
                return int(path.read_text())
            time.sleep(0.02)
        raise TimeoutError(path.name)

    return find


@pytest.fixture
def send() -> Callable[[int, str], None]:
    return lambda pid, name: os.kill(pid, getattr(signal, name))
