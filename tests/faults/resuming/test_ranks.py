"""Two ranks under ``torchrun``: killed, stopped, signalled; restarted, they end where the uninterrupted run ends."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.full
PATIENCE_S = 1800  # of a busy computer, where a start alone takes minutes
Record = Callable[[str, Any], None]
SLOW = {"every": 4, "keep": 3, "resume": "auto", "accumulate": 3, "pace": 0.05}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("two_ranks")


@pytest.fixture(scope="module")
def numbers(whole: Path, start_ranks: Any) -> dict[str, Any]:
    assert start_ranks(folder=str(whole), accumulate=3).wait(PATIENCE_S) == 0, (whole / "torchrun.log").read_text()
    result: dict[str, Any] = json.loads((whole / "result.json").read_text())
    return result


def test_ranks_resume_at_every_step(
    start_ranks: Any, whole: Path, numbers: dict[str, Any], record_property: Record
) -> None:
    stops = sorted(int(path.stem.split("=")[1]) for path in whole.glob("checkpoint_*.pt"))[:-1]
    assert stops == [n for n in range(1, 60) if n % 10 in (3, 6, 9, 0)]
    done = start_ranks(folder=str(whole), accumulate=3, stops=stops).wait(PATIENCE_S)
    assert done == 0, (whole / "torchrun.log").read_text()
    lost = []
    for stop in stops:
        result = json.loads((whole / f"from_{stop}" / "result.json").read_text())
        rows = [row for row in numbers["history"] if row[0] > stop // 10]
        right = result == {**numbers, "history": rows}
        record_property("fault", ["resume on two ranks", f"step {stop}", "passed" if right else "lost"])
        lost += [] if right else [stop]
    assert not lost


@pytest.mark.parametrize(
    ("name", "number", "timeout_minutes"),
    [("SIGKILL", 0, 5), ("SIGKILL", 1, 5), ("SIGSTOP", 0, 0.5), ("SIGSTOP", 1, 0.5)],
)
def test_a_lost_rank_is_recovered_from_the_last_checkpoint(
    start_ranks: Any,
    pid_of: Any,
    send: Any,
    tmp_path: Path,
    numbers: dict[str, Any],
    record_property: Record,
    name: str,
    number: int,
    timeout_minutes: float,
) -> None:
    options = ["--max-restarts", "2"]
    process = start_ranks(*options, folder=str(tmp_path), timeout_minutes=timeout_minutes, **SLOW)
    wait_for_checkpoint(tmp_path, 16)
    send(pid_of(tmp_path, number), name)
    code = process.wait(PATIENCE_S)
    result = json.loads((tmp_path / "result.json").read_text()) if code == 0 else None
    again = (tmp_path / "pid_0_1").exists()
    outcome = "crashed" if result is None else "passed" if result == numbers and again else "lost"
    record_property("fault", ["rank lost", f"{name} of rank {number}", outcome])
    assert outcome == "passed", (tmp_path / "torchrun.log").read_text()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
@pytest.mark.parametrize("whom", ["torchrun", "one rank"])
def test_a_signal_stops_all_ranks_after_one_step(
    start_ranks: Any,
    pid_of: Any,
    send: Any,
    tmp_path: Path,
    numbers: dict[str, Any],
    record_property: Record,
    name: str,
    whom: str,
) -> None:
    options = ["--signals-to-handle", "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"]
    process = start_ranks(*options, folder=str(tmp_path), workers=1, **{**SLOW, "every": 1000})
    started(tmp_path)
    time.sleep(0.6)
    send(process.pid if whom == "torchrun" else pid_of(tmp_path, 1), name)
    code = process.wait(PATIENCE_S)
    log = (tmp_path / "torchrun.log").read_text()
    saved = list(tmp_path.glob("checkpoint_*.pt"))
    right = code == 1 and len(saved) == 1 and f"stopped by {name} after iteration" in log
    record_property("fault", ["stop signal", f"{name} to {whom}", "passed" if right else "lost"])
    assert right, log
    (tmp_path / "started").unlink()
    assert start_ranks(folder=str(tmp_path), **{**SLOW, "pace": 0}).wait(PATIENCE_S) == 0
    assert json.loads((tmp_path / "result.json").read_text()) == numbers


def started(folder: Path) -> None:
    for _ in range(PATIENCE_S * 50):
        if (folder / "started").exists():
            return
        time.sleep(0.02)
    raise TimeoutError((folder / "torchrun.log").read_text())


def wait_for_checkpoint(folder: Path, iteration: int) -> None:
    for _ in range(PATIENCE_S * 50):
        if any(int(path.stem.split("=")[1]) >= iteration for path in folder.glob("checkpoint_*.pt")):
            return
        time.sleep(0.02)
    raise TimeoutError((folder / "torchrun.log").read_text())
