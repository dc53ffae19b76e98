"""The runner of the GPU's figures: what fails or hangs loses its own rows alone. Needs no card."""

import json
import subprocess
import sys
import time
import zipfile
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
        [{"part": "a", "model": "m", "batch": 2, "step_ms": 1.5}, {"part": "b", "arm": "n", "result": "not reached"}],
        [
            {"part": "a", "exit_code": 0, "seconds": 3, "planned_s": 4},
            {"part": "b", "exit_code": None, "seconds": 0, "planned_s": 9, "ended": "not reached: 5 s were left"},
        ],
    )
    assert "| a | m, batch 2 | step_ms 1.5 |" in shown
    assert "| b | n | not reached |" in shown
    assert "| a | 0 | 3 | 4 |  |" in shown
    assert "| b | - | 0 | 9 | not reached: 5 s were left |" in shown


def test_a_part_that_does_not_fit_is_told_and_a_smaller_one_behind_it_runs(
    tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, limits = [1000.0], []

    def run(part: table.Part, out: Path, limit_s: float) -> table.Row:
        limits.append((part.name, limit_s))
        clock[0] += part.expected_s + 1
        table.keep(part.name, json.dumps(part.rows[0]), out)
        return {"part": part.name, "exit_code": 0, "seconds": part.expected_s + 1, "planned_s": part.expected_s}

    monkeypatch.setattr(table, "run", run)
    monkeypatch.setattr(table.time, "monotonic", lambda: clock[0])
    parts = [
        table.Part("one", [], 70, 40, [{"batch": 8, "arm": "off"}, {"batch": 8, "arm": "blocks"}]),
        table.Part("two", [], 90, 60, [{"batch": 9}]),
        table.Part("three", [], 70, 50, [{"batch": 10}]),
    ]
    went = table.measure(parts, tmp_path, 1100.0)
    assert limits == [("one", 70), ("three", 59.0)]
    assert [one["exit_code"] for one in went] == [0, None, 0]
    assert table.exit_code(went) == 3
    assert table.exit_code([*went, {"exit_code": -9}]) == 1
    assert table.exit_code(went[:1]) == 0
    shown = table.write(tmp_path, {"card": "X"}, parts, went)
    told = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert told["not_reached"] == [
        {"part": "one", "batch": 8, "arm": "blocks", "result": "not reached"},
        {"part": "two", "batch": 9, "result": "not reached"},
    ]
    assert "| one | blocks, batch 8 | not reached |" in shown
    assert "| two | - | 0 | 60 | not reached: 59 s were left |" in shown


def test_tests_that_an_ended_run_did_not_reach_are_counted() -> None:
    counted: dict[str, int] = {}
    for line in (
        "collected 5 items",
        "tests/gpu/test_a.py::test_b[fp32-a b] PASSED [ 20%]",
        "tests/gpu/test_a.py::test_c SKIPPED (needs a CUDA card) [ 40%]",
        "tests/gpu/test_a.py::test_d FAILED [ 60%]",
        "FAILED tests/gpu/test_a.py::test_d - assert False",
        "words",
    ):
        table.count(line, counted)
    assert counted == {"passed": 1, "skipped": 1, "failed": 1, "not_reached": 2}


@pytest.mark.parametrize("choice", ["full_parts", "smoke_parts", "trial_parts"])
def test_parts_have_names_and_scripts_and_a_limit_beyond_their_plan(choice: str, tmp_path: Path) -> None:
    found = getattr(table, choice)(tmp_path)
    assert len({one.name for one in found}) == len(found)
    for one in found:
        scripts = one.command[2:3] if one.command[0] == "-m" else one.command[:1]
        assert all(Path(script).is_file() for script in scripts)
        assert 0 < one.expected_s < one.limit_s


def test_open_rows_come_first_and_tests_and_replays_fit_in_one_run(tmp_path: Path) -> None:
    found = table.full_parts(tmp_path)
    planned, ends = 0.0, {}
    for one in found:
        planned += one.expected_s
        ends[one.name] = planned
    first = [row["arm"] for row in found[0].rows if row["batch"] == 256]
    assert {"blocks", "network", "graphs", "off+recompute"} < set(first)
    assert {"model": "large_p12", "batch": 512, "arm": "off"} in found[1].rows
    assert ends["tests"] < ends["aa_clip"] < ends["pretraining_8"] < 450
    assert {"batch": 32, "arm": "bf16+replay"} in next(one.rows for one in found if one.name == "aa_clip")


def test_wheels_are_brought_for_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with pytest.raises(SystemExit, match="holds no wheel"):
        table.bring(wheels, tmp_path)
    for name in ("torch", "brought_along"):  # torch is there already
        with zipfile.ZipFile(wheels / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
            about = f"{name}-1.0.dist-info"
            wheel.writestr(f"{name}/__init__.py", "WORD = 'here'")
            wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{about}/RECORD", "")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    table.bring(wheels, tmp_path)
    assert sorted(path.name for path in (tmp_path / "site").iterdir()) == [
        "brought_along",
        "brought_along-1.0.dist-info",
    ]
    done = table.run(part("one", "import brought_along; print('{\"n\": 1}')"), tmp_path, 30)
    assert done["exit_code"] == 0


@pytest.mark.full
def test_the_whole_command_runs_on_a_cpu_in_the_smallest_sizes(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(table.__file__)), "--device", "cpu", "--out", str(tmp_path), "--minutes", "30"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=1900)
    assert done.returncode == 0, done.stdout[-4000:]
    told = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert told["not_reached"] == []
    assert [one["exit_code"] for one in told["parts"]] == [0] * 5
    assert all(row["step_ms"] > 0 for row in told["rows"] if "arm" in row)
    (tests,) = (row for row in told["rows"] if row["part"] == "tests")
    assert tests["not_reached"] == 0
    assert "aa_clip | bf16+replay, batch 1" in (tmp_path / "gpu.md").read_text(encoding="utf-8")
