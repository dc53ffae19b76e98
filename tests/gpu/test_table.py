"""The runner of the GPU's figures: what fails or hangs loses its own rows alone. Needs no card."""

import json
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import table


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return tmp_path / "gpu.jsonl"


def part(name: str, code: str) -> table.Part:
    return table.Part(name, ["-c", code], 30)


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def test_rows_before_a_failure_stay(tmp_path: Path, rows: Path) -> None:
    code = "import sys; print('{\"batch\": 3}'); print('words'); print('{torn'); sys.exit(7)"
    done = table.run(part("one", code), tmp_path, 30)
    assert (done["part"], done["exit_code"]) == ("one", 7)
    assert [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()] == [{"part": "one", "batch": 3}]
    assert "words" in (tmp_path / "gpu.log").read_text(encoding="utf-8")


def test_a_part_that_hangs_is_ended_with_its_children(tmp_path: Path, rows: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print('{\"child\": %d}' % child.pid, flush=True)\n"
        "time.sleep(60)"
    )
    done = table.run(part("two", code), tmp_path, 5)
    assert done["ended"] == "time limit"
    assert done["seconds"] < 20
    child = json.loads(rows.read_text(encoding="utf-8"))["child"]
    ends = time.monotonic() + 20
    while is_running(child) and time.monotonic() < ends:  # a kill is delivered when the system gets to it
        time.sleep(0.05)
    assert not is_running(child)


def test_the_table_shows_every_row_and_part() -> None:
    shown = table.table(
        {"card": "X"},
        [{"part": "a", "model": "m", "batch": 2, "step_ms": 1.5}],
        [{"part": "a", "exit_code": 0, "seconds": 3}],
    )
    assert "| a | m, batch 2 | step_ms 1.5 |" in shown
    assert "| a | 0 | 3 |  |" in shown


@pytest.mark.parametrize("smoke", [True, False])
def test_parts_name_scripts_that_exist_and_end_in_eight_minutes(smoke: bool, tmp_path: Path) -> None:
    found = table.parts(smoke, tmp_path)
    assert len({one.name for one in found}) == len(found)
    for one in found:
        script = one.command[0]
        assert script == "-m" or Path(script).is_file()
