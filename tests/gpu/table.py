"""Everything that needs a GPU, in one command without network: tests, figures, one table, one JSON file.

    python tests/gpu/table.py --out gpu_results [--smoke] [--minutes 7.5] [--only tests pretraining ...]

Each part runs in a process of its own with a time limit, and its rows are kept as they come, in ``gpu.jsonl``: a part
that fails or hangs loses its own rest, nothing else. At the end ``gpu.json`` holds all rows beside the machine's
versions, ``gpu.md`` the table that is printed, and ``gpu.log`` what the parts said.
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
BENCHMARKS = REPOSITORY / "tests" / "benchmarks"
Row = dict[str, Any]


class Part(NamedTuple):
    """One command.

    Attributes:
        name: of the part.
        command: arguments of Python.
        limit_s: seconds after which it is ended.
    """

    name: str
    command: Sequence[str]
    limit_s: float


def parts(smoke: bool, out: Path) -> list[Part]:
    """Return what runs, the most important first; a smoke run touches each part briefly."""

    def benchmark(name: str, script: str, limit_s: float, *options: str) -> Part:
        return Part(name, [str(BENCHMARKS / script), *options], limit_s)

    tests = [str(REPOSITORY / "tests" / "gpu"), "-q", "-p", "no:cacheprovider", f"--junitxml={out / 'tests.xml'}"]
    # Warnings of other versions of other packages are no failure of ours.
    tests = ["-m", "pytest", *tests, "-W", "default", "--durations=8"]
    step, clip, waits = "pretraining_step.py", "aa_clip_step.py", "loader_waits.py"
    if smoke:
        small = ("--models", "base_p16", "--batches", "8", "--times", "3", "--arms")
        scans = ("--scans", "4", "--shape", "120", "110", "120", "--iterations", "10", "--batches", "8")
        return [
            benchmark("pretraining", step, 60, *small, "published", "off"),
            benchmark("aa_clip", clip, 60, "--batches", "1", "--times", "2"),
            benchmark("loader", waits, 90, *scans, "--workers", "4"),
            benchmark("compiled", step, 90, *small, "blocks"),
            Part("tests", tests, 150),
        ]
    large = ("--models", "large_p12", "--times", "10", "--batches")
    return [
        benchmark("pretraining", step, 90, *large, "8", "64", "256", "--arms", "published", "off", "off+recompute"),
        benchmark("compiled", step, 110, *large, "8", "256", "--arms", "published", "blocks", "graphs"),
        benchmark("aa_clip", clip, 80, "--batches", "1", "8", "32"),
        benchmark("loader", waits, 110, "--batches", "8", "64", "--compile", "blocks"),
        Part("tests", tests, 170),
        benchmark("attention", "attention_heads.py", 30),
        benchmark("network", step, 110, *large, "256", "--arms", "published", "network"),
    ]


def run(part: Part, out: Path, limit_s: float) -> Row:
    """Run one part, keeping its rows as they come; return how it went."""
    start = time.monotonic()
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
    code = process.wait()
    timer.cancel()
    seconds = round(time.monotonic() - start, 1)
    ended = seconds >= limit_s
    return {"part": part.name, "exit_code": code, "seconds": seconds, **({"ended": "time limit"} if ended else {})}


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


def machine() -> Row:
    """Say what this runs on."""
    names = ("torch", "triton", "monai", "numpy", "open_clip_torch", "blosc2")
    found: Row = {"date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", "python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    ask = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        found["card"] = subprocess.run(ask, capture_output=True, encoding="utf-8", timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        found["card"] = "unknown"
    return {**found, "cores": os.cpu_count()}


def table(about: Row, rows: Sequence[Row], ended: Sequence[Row]) -> str:
    """Return everything as Markdown."""
    lines = [", ".join(f"{key} {value}" for key, value in about.items()), ""]
    lines += ["| part | what | result |", "|---|---|---|"]
    for row in rows:
        what = [str(row[key]) for key in ("model", "arm") if key in row]
        what += [f"batch {row['batch']}"] if "batch" in row else []
        rest = {key: value for key, value in row.items() if key not in ("part", "model", "arm", "batch")}
        lines.append(f"| {row['part']} | {', '.join(what) or '-'} | {', '.join(f'{k} {v}' for k, v in rest.items())} |")
    lines += ["", "| part | exit code | seconds | |", "|---|---|---|---|"]
    lines += [f"| {end['part']} | {end['exit_code']} | {end['seconds']} | {end.get('ended', '')} |" for end in ended]
    return "\n".join(lines)


def main() -> None:
    """Run the parts, print the table; the exit code is 1 when one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu_results"), help="folder of the results")
    parser.add_argument("--smoke", action="store_true", help="every part, briefly")
    parser.add_argument("--minutes", type=float, default=7.5, help="after which no part starts or goes on")
    parser.add_argument("--only", nargs="+", default=None, help="names of parts")
    args = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print("no CUDA card: nothing measured")
        return
    args.out.mkdir(parents=True, exist_ok=True)
    for name in ("gpu.jsonl", "gpu.log"):
        (args.out / name).write_text("", encoding="utf-8")
    about, ended, end = machine(), [], time.monotonic() + 60 * args.minutes
    print(json.dumps(about), flush=True)
    for part in parts(args.smoke, args.out):
        left = end - time.monotonic()
        if (args.only is None or part.name in args.only) and left > 10:
            ended.append(run(part, args.out, min(part.limit_s, left)))
            print(json.dumps(ended[-1]), flush=True)
    rows = [json.loads(line) for line in (args.out / "gpu.jsonl").read_text(encoding="utf-8").splitlines()]
    text = json.dumps({"machine": about, "rows": rows, "parts": ended}, indent=1)
    (args.out / "gpu.json").write_text(text, encoding="utf-8")
    (args.out / "gpu.md").write_text(table(about, rows, ended), encoding="utf-8")
    print(table(about, rows, ended))
    print((args.out / "gpu.log").read_text(encoding="utf-8").rpartition("\n== tests\n")[2][-3000:])
    print(f"results: {args.out}")
    sys.exit(any(one["exit_code"] for one in ended))


if __name__ == "__main__":
    main()
