"""What is wrong with single files and entries: gathered, counted by kind, and written down, while the rest goes on."""

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Column, Table

from monai_ext.base import InputError, printable, replacing

_SHOWN = 5


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        kind: a stable, dotted word for programs, such as ``"scan.damaged"``.
        case: id of the entry or base name of the file.
        sentence: what is wrong and what to do, starting with the case.
    """

    kind: str
    case: str
    sentence: str


def problem_of(error: InputError, case: str) -> Problem:
    """Turn an error of reading into a problem of that case."""
    return Problem(error.code, case, str(error))


def problems_table(problems: Sequence[Problem]) -> Table:
    """Return the problems by kind with how many there are, the first names, and one sentence as an example."""
    by_kind = defaultdict(list)
    for problem in problems:
        by_kind[problem.kind].append(problem)
    table = Table("problem", Column("count", justify="right"), Column("which, and the first in words", overflow="fold"))
    for kind, some in sorted(by_kind.items(), key=lambda item: (-len(item[1]), item[0])):
        table.add_row(kind, str(len(some)), escape(first_names([problem.case for problem in some])))
        table.add_row("", "", escape(printable(some[0].sentence)), style="red")
    return table


def first_names(names: Sequence[str], shown: int = _SHOWN) -> str:
    """Return the first few names, each once and fit for a terminal, and how many more there are.

    >>> first_names(["a", "b", "a", "c"], 2)
    'a, b and 1 more'
    """
    once = list(dict.fromkeys(names))
    return ", ".join(map(printable, once[:shown])) + (f" and {len(once) - shown} more" if len(once) > shown else "")


def write_report(path: str | os.PathLike[str], problems: Sequence[Problem]) -> None:
    """Write every problem as a line of JSON: ``{"kind": ..., "case": ..., "sentence": ...}``.

    Raises:
        WriteError: the file could not be written.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for problem in problems:
            stream.write(json.dumps(vars(problem), ensure_ascii=False) + "\n")
