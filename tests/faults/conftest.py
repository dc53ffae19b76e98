"""The fault campaign adds itself up: a table by family at the end, and a JSON file where one is asked for.

A test records each fault that it planted with ``record_property("fault", [family, case, outcome])`` before it
fails. Properties travel with the reports, so that the sums are right under xdist too.
"""

import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest

GOOD = ("caught", "passed")  # refused by a typed error; accepted and right, or survived and equal
BAD = ("silent", "crashed", "hung", "torn", "lost")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults-report", metavar="FILE", help="write the outcomes of the fault campaign as JSON")


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    faults = _faults(terminalreporter)
    if not faults or hasattr(config, "workerinput"):  # xdist's processes know their own share alone
        return
    table = _table(faults)
    terminalreporter.section("fault campaign")
    shown = ["tried", *GOOD, *(outcome for outcome in BAD if any(row[outcome] for row in table.values()))]
    width = max(len("family"), *(len(family) for family in table))
    terminalreporter.write_line(f"{'family':{width}} " + " ".join(f"{name:>8}" for name in shown))
    for family, row in table.items():
        terminalreporter.write_line(f"{family:{width}} " + " ".join(f"{row[name]:8}" for name in shown))
    for family, case, outcome, test in faults:
        if outcome in BAD:
            terminalreporter.write_line(f"{outcome}: {family}, {case} ({test})")
    # Absent where this folder is not among the arguments: options of late conftest files are not parsed.
    if report := config.getoption("faults_report", None):
        names = ("family", "case", "outcome", "test")
        rows = [dict(zip(names, fault, strict=True)) for fault in faults]
        Path(report).write_text(json.dumps({"table": table, "faults": rows}, indent=1) + "\n", encoding="utf-8")


def _faults(terminalreporter) -> list[tuple[str, str, str, str]]:
    """Return family, case, outcome and test of each fault; each test's properties come with its teardown too."""
    found = []
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "call":
                told = [value for name, value in report.user_properties if name == "fault"]
                found += [(str(family), str(case), outcome, report.nodeid) for family, case, outcome in told]
    unknown = {outcome for _, _, outcome, _ in found} - {*GOOD, *BAD}
    if unknown:
        raise pytest.UsageError(f"unknown outcomes of faults: {', '.join(sorted(map(str, unknown)))}")
    return sorted(found)


def _table(faults: list[tuple[str, str, str, str]]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter] = defaultdict(Counter)
    for family, _, outcome, _ in faults:
        counts[family][outcome] += 1
    rows = {**counts, "all": Counter(outcome for _, _, outcome, _ in faults)}
    return {
        family: {"tried": row.total(), **{name: row[name] for name in (*GOOD, *BAD)}} for family, row in rows.items()
    }
