"""What the GPU's table runs, and what each part of it takes: the open rows first, each part with a time of its own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
BENCHMARKS = HERE.parent / "benchmarks"
ROUNDS, WARM_UP = 3, 2  # of `times_of`: three rounds count, after two calls to warm up

# Seconds, one NVIDIA H200 with 16 cores (docs/benchmarks.md); what was not measured there is marked.
START = 15.0  # a process: imports, the card's context, its matrix rates, the network's operations; estimated
FIRST_STEP = {"off": 2.0, "published": 2.0, "blocks": 20.0, "network": 46.0, "graphs": 50.0}  # graphs: estimated
STEP: Mapping[int, Mapping[str, float]] = {  # of large p12 by batch
    8: {"published": 0.074, "off": 0.059, "blocks": 0.06, "graphs": 0.03},  # the last two estimated
    # Recomputing is estimated at a third more, graphs as the network that they record.
    256: {"published": 0.337, "off": 0.25, "blocks": 0.23, "network": 0.225, "graphs": 0.225, "off+recompute": 0.333},
    512: {"published": 0.653, "off": 0.5, "blocks": 0.46},  # ours: twice a batch of 256
}
CLIP_ARMS = ("published", "fp32", "bf16", "bf16+replay")
CLIP_STEP = {  # one call of each arm, by batch; 0 is a training step of stage 2
    0: (0.113, 0.096, 0.068, 0.020),
    1: (0.036, 0.033, 0.027, 0.006),
    8: (0.222, 0.206, 0.028, 0.028),
    32: (0.861, 0.796, 0.104, 0.105),
}


class Part(NamedTuple):
    """One command.

    Attributes:
        name: of the part.
        command: arguments of Python.
        limit_s: seconds after which it is ended.
        expected_s: seconds that it is planned to take; it is not begun when fewer are left.
        rows: what tells each row that it should print from the others.
    """

    name: str
    command: Sequence[str]
    limit_s: float
    expected_s: float = 0.0
    rows: Sequence[Mapping[str, Any]] = ()


def full_parts(out: Path) -> list[Part]:
    """Return what runs on a card, the open rows first; the last ones need a second command."""
    return [
        large("pretraining_256", 256, 4, "published", "blocks", "network", "graphs", "off+recompute", "off"),
        large("pretraining_512", 512, 2, "published", "off", "blocks"),
        tests_part(out, 170, 150),
        clip((1, 8, 32), 2),
        large("pretraining_8", 8, 10, "published", "off", "blocks"),
        attention(),
        large("graphs_8", 8, 10, "published", "graphs"),
        waits((8, 64), "--compile", "blocks"),
    ]


def smoke_parts(out: Path) -> list[Part]:
    """Return each kind of part, briefly, on a card."""
    scans = ("--scans", "4", "--shape", "120", "110", "120", "--iterations", "10", "--workers", "4")
    return [
        pretraining("pretraining", "base_p16", 8, 3, ("published", "off"), 60, 30),
        clip((1,), 2)._replace(limit_s=60),
        waits((8,), *scans)._replace(limit_s=90, expected_s=60),
        pretraining("compiled", "base_p16", 8, 3, ("blocks",), 90, 40),
        tests_part(out, 170, 150),
    ]


def trial_parts(out: Path) -> list[Part]:
    """Return each kind of part in the smallest size, on a CPU: its rows are worth nothing, that they come is."""
    cpu = ("--device", "cpu")
    scans = ("--tiny", "--workers", "1", "--scans", "2", "--shape", "96", "80", "96", "--spacing", "4")
    parts = [
        pretraining("pretraining", "tiny", 1, 1, ("published", "off", "off+recompute"), 0, 0, *cpu),
        clip((1,), 1, *cpu, "--small"),
        attention(*cpu, "--batch", "1"),
        waits((4,), *scans, "--iterations", "2", "--writers", "1"),
        tests_part(out, 0, 0),
    ]
    # Nothing presses there, and the machine may be busy.
    return [part._replace(limit_s=600, expected_s=20) for part in parts]


def large(name: str, batch: int, times: int, *arms: str) -> Part:
    """Return steps of large p12, planned from what they took."""
    steps = WARM_UP + ROUNDS * times
    expected = START + sum(FIRST_STEP[arm.removesuffix("+recompute")] + steps * STEP[batch][arm] for arm in arms)
    return pretraining(name, "large_p12", batch, times, arms, 1.3 * expected + 10, expected)


def pretraining(
    name: str, model: str, batch: int, times: int, arms: Sequence[str], limit_s: float, expected_s: float, *more: str
) -> Part:
    """Return steps of pretraining at one batch size, one row an arm."""
    command = ["--models", model, "--batches", str(batch), "--times", str(times), "--arms", *arms, *more]
    rows = [{"model": model, "batch": batch, "arm": arm} for arm in arms]
    return Part(name, [str(BENCHMARKS / "pretraining_step.py"), *command], limit_s, expected_s, rows)


def clip(batches: Sequence[int], times: int, *more: str) -> Part:
    """Return AA-CLIP with its published passes, ours and replayed ones, one row an arm and batch."""
    rows = [{"batch": batch, "arm": arm} for batch in batches for arm in CLIP_ARMS]
    rows += [{"batch": 1, "arm": f"stage2:{arm}"} for arm in CLIP_ARMS]
    calls = WARM_UP + ROUNDS * times
    expected = START + calls * sum(sum(CLIP_STEP[batch]) for batch in (0, *batches))
    command = ["--times", str(times), "--arms", *CLIP_ARMS, "--batches", *map(str, batches), *more]
    return Part("aa_clip", [str(BENCHMARKS / "aa_clip_step.py"), *command], 1.3 * expected + 15, expected, rows)


def attention(*more: str) -> Part:
    """Return attention by the width of its heads."""
    rows = [{"tokens": tokens, "head_width": width} for tokens, width in ((513, 33), (513, 40), (513, 48), (129, 96))]
    return Part("attention", [str(BENCHMARKS / "attention_heads.py"), *more], 30, START, rows)


def waits(batches: Sequence[int], *more: str) -> Part:
    """Return training from a store, one row a batch size."""
    command = [str(BENCHMARKS / "loader_waits.py"), "--batches", *map(str, batches), *more]
    return Part("loader", command, 130, 100, [{"batch": batch} for batch in batches])  # estimated


def tests_part(out: Path, limit_s: float, expected_s: float) -> Part:
    """Return the tests that need a card, those that no run reached yet first."""
    files = [str(HERE / f"test_{name}.py") for name in ("training", "sharding", "replaying", "precision")]
    # Warnings of other versions of other packages are no failure of ours.
    options = ["-v", "--color=no", "-p", "no:cacheprovider", f"--junitxml={out / 'tests.xml'}", "-W", "default"]
    return Part("tests", ["-m", "pytest", *files, *options, "--durations=8"], limit_s, expected_s)
