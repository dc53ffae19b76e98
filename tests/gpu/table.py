"""Everything that needs a GPU, in one command without network: tests, figures, one table, one JSON file.

    python tests/gpu/table.py --out gpu_results [--wheels FOLDER] [--minutes 7.5] [--only tests pretraining_256 ...]
    python tests/gpu/table.py --device cpu --out trial    # each kind of part in the smallest size, to see that it runs

Each part runs in a process of its own, with a time planned from what was measured (`table_parts.py`) and a limit. Its
rows are kept as they come, in ``gpu.jsonl``: a part that fails or hangs loses its own rest, nothing else. A part for
which too little time is left is not begun; it stands in the table as not reached, as do rows and tests that an ended
part still owed, and the command that makes up for it is printed. At the end ``gpu.json`` holds all rows beside the
machine's versions, ``gpu.md`` the table that is printed, and ``gpu.log`` what the parts said.

On a machine without network, packages that it lacks come along as wheels in a folder, where there is network by
``pip download --no-deps --only-binary=:all: --python-version 3.12 -d FOLDER NAME ...``; torch is not among them.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from table_machine import bring, machine
from table_parts import Part, full_parts, smoke_parts, trial_parts

REPOSITORY = Path(__file__).resolve().parents[2]
Row = dict[str, Any]
NUMBERS = ("batch", "tokens", "head_width")  # that tell rows of a part apart
A_TEST = re.compile(r"^\S+\.py::(.+) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b")
COLLECTED = re.compile(r"^collected (\d+) items")


def run(part: Part, out: Path, limit_s: float) -> Row:
    """Run one part, keeping its rows as they come; return how it went."""
    start = time.monotonic()
    tests: dict[str, int] = {}
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": path}
    process = subprocess.Popen(
        [sys.executable, *part.command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # ended with its children
    )
    timer = threading.Timer(limit_s, _end, [process])
    timer.start()
    with process, (out / "gpu.log").open("a", encoding="utf-8") as log:
        log.write(f"\n== {part.name}\n")
        for line in process.stdout or ():
            log.write(line)
            log.flush()
            keep(part.name, line, out)
            count(line, tests)
    code = process.wait()
    timer.cancel()
    seconds = round(time.monotonic() - start, 1)
    if tests:
        keep(part.name, json.dumps(tests), out)
    done = {"part": part.name, "exit_code": code, "seconds": seconds, "planned_s": round(part.expected_s)}
    return done | ({"ended": "time limit"} if seconds >= limit_s else {})


def _end(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def keep(part: str, line: str, out: Path) -> None:
    """Append a line to the rows if it is one, and show it."""
    if line.startswith("{"):
        try:
            row = {"part": part, **json.loads(line)}
        except ValueError:
            return
        with (out / "gpu.jsonl").open("a", encoding="utf-8") as rows:
            rows.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


def count(line: str, tests: dict[str, int]) -> None:
    """Count what pytest says as it goes, so that a run that is ended tells how far it came."""
    if found := COLLECTED.match(line):
        tests["not_reached"] = int(found[1])
    elif (found := A_TEST.match(line)) and tests:
        outcome = found[2].lower()
        tests[outcome] = tests.get(outcome, 0) + 1
        tests["not_reached"] -= 1


def measure(parts: Sequence[Part], out: Path, ends: float) -> list[Row]:
    """Run parts in order, each only if its planned time is left; return how each went."""
    went: list[Row] = []
    for part in parts:
        left = ends - time.monotonic()
        if left < max(part.expected_s, 5):
            none = {"part": part.name, "exit_code": None, "seconds": 0, "planned_s": round(part.expected_s)}
            went.append(none | {"ended": f"not reached: {max(left, 0):.0f} s were left"})
        else:
            went.append(run(part, out, min(part.limit_s, left)))
        print(json.dumps(went[-1]), flush=True)
    return went


def not_reached(parts: Sequence[Part], rows: Sequence[Row]) -> list[Row]:
    """Return the rows that parts owe, and parts that printed none though they have no rows by name."""
    owed: list[Row] = []
    for part in parts:
        own = [row for row in rows if row["part"] == part.name]
        missing = [wanted for wanted in part.rows or [{}] if not any(row.items() >= wanted.items() for row in own)]
        owed += [{"part": part.name, **wanted, "result": "not reached"} for wanted in missing]
    return owed


def table(about: Row, rows: Sequence[Row], ended: Sequence[Row]) -> str:
    """Return everything as Markdown."""
    lines = [", ".join(f"{key} {value}" for key, value in about.items()), ""]
    lines += ["| part | what | result |", "|---|---|---|"]
    for row in rows:
        what = [str(row[key]) for key in ("model", "arm") if key in row]
        what += [f"{key.replace('_', ' ')} {row[key]}" for key in NUMBERS if key in row]
        rest = {key: value for key, value in row.items() if key not in ("part", "model", "arm", *NUMBERS)}
        told = ", ".join(str(value) if key == "result" else f"{key} {value}" for key, value in rest.items())
        lines.append(f"| {row['part']} | {', '.join(what) or '-'} | {told} |")
    lines += ["", "| part | exit code | seconds | planned | |", "|---|---|---|---|---|"]
    for end in ended:
        code, planned = "-" if end["exit_code"] is None else end["exit_code"], end.get("planned_s", "-")
        lines.append(f"| {end['part']} | {code} | {end['seconds']} | {planned} | {end.get('ended', '')} |")
    return "\n".join(lines)


def write(out: Path, about: Row, parts: Sequence[Part], went: Sequence[Row]) -> str:
    """Write ``gpu.json`` and ``gpu.md``, and return the table."""
    rows = [json.loads(line) for line in (out / "gpu.jsonl").read_text(encoding="utf-8").splitlines()]
    owed = not_reached(parts, rows)
    everything = {"machine": about, "rows": rows, "not_reached": owed, "parts": list(went)}
    (out / "gpu.json").write_text(json.dumps(everything, indent=1), encoding="utf-8")
    text = table(about, [*rows, *owed], went)
    (out / "gpu.md").write_text(text, encoding="utf-8")
    return text


def exit_code(went: Sequence[Row]) -> int:
    """Return 1 if a part failed or was ended, 3 if one was not reached, else 0."""
    if any(one["exit_code"] for one in went):
        return 1
    return 3 if any(one["exit_code"] is None for one in went) else 0


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu_results"), help="folder of the results")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu: a trial in the smallest sizes")
    parser.add_argument("--smoke", action="store_true", help="every kind of part on a card, briefly")
    parser.add_argument("--minutes", type=float, default=7.5, help="after which no part starts or goes on")
    parser.add_argument("--only", nargs="+", default=None, help="names of parts")
    parser.add_argument("--wheels", type=Path, default=None, help="folder of wheels of packages that may be missing")
    return parser.parse_args()


def main() -> None:
    """Run the parts and print the table; the exit code is 1 when one of them failed, 3 when one was not reached."""
    args, start = arguments(), time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.wheels is not None:
        bring(args.wheels, args.out)
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA card: nothing measured")
        return
    choice = trial_parts if args.device == "cpu" else smoke_parts if args.smoke else full_parts
    parts = choice(args.out.resolve())
    if unknown := set(args.only or ()) - {part.name for part in parts}:
        raise SystemExit(f"--only: no part {', '.join(sorted(unknown))}; there are {', '.join(p.name for p in parts)}")
    parts = [part for part in parts if args.only is None or part.name in args.only]
    for name in ("gpu.jsonl", "gpu.log"):
        (args.out / name).write_text("", encoding="utf-8")
    about = machine()
    print(json.dumps(about), flush=True)
    went = measure(parts, args.out, start + 60 * args.minutes)
    print(write(args.out, about, parts, went))
    print((args.out / "gpu.log").read_text(encoding="utf-8").rpartition("\n== tests\n")[2][-3000:])
    if left := [one["part"] for one in went if "ended" in one]:
        print(f"not reached, or not to their end: --only {' '.join(left)} in a folder of its own makes up for them")
    print(f"results: {args.out}, after {time.monotonic() - start:.0f} s")
    sys.exit(exit_code(went))


if __name__ == "__main__":
    main()
