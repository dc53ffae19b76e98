"""Compare stored values with computed ones, one line each, and forget none."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch


@dataclass(frozen=True)
class Tolerance:
    """How far a value may lie from the stored one, as its README says.

    Attributes:
        limit: largest absolute difference.
        of_largest: the limit is a share of the stored tensor's largest absolute value.
        at_least: what the largest absolute value counts as if it is smaller.
    """

    limit: float
    of_largest: bool = False
    at_least: float = 0.0


EXACT = Tolerance(0.0)

# Optimisers act on the sign of tiny gradients: of a trained parameter's entries, this share may lie further away.
_NEAR, _FEW = 1e-5, 0.01

# Patterns of names, tried in order; the first that fits decides. Whatever fits none must be exact.
Tolerances = Sequence[tuple[str, Tolerance]]


@dataclass(frozen=True)
class Line:
    """The verdict on one stored value; ``None`` where no number can be given."""

    file: str
    tensor: str | None
    max_abs_err: float | None
    tol: float | None
    ok: bool
    share_beyond: float | None = None  # of the entries of a trained parameter, see Comparison.trained

    def __str__(self) -> str:
        shown = dict(vars(self))
        share = shown.pop("share_beyond")
        return json.dumps(shown if share is None else {**shown, "share_beyond_1e-5": share})


class Comparison:
    """The verdicts on one file.

    Args:
        file: how the lines name the file.
        stored: every value the file holds, by name: tensors, numbers, lists of numbers, text.
        tolerances: the table of the file's format.
    """

    def __init__(self, file: str, stored: Mapping[str, Any], tolerances: Tolerances = ()) -> None:
        self.file = file
        self.stored = stored
        self._tolerances = tolerances
        self._lines: dict[str, Line] = {}
        self._words: set[str] = set()

    def __call__(self, name: str, computed: Any, scale: float = 1.0) -> None:
        """Compare one value; without effect where the file does not hold it.

        Args:
            name: the stored value's name.
            computed: what this package makes of it.
            scale: multiplies the tolerance where the README gives it per term or per base rate.
        """
        if name not in self.stored:
            return
        stored = self.stored[name]
        tolerance = next((t for pattern, t in self._tolerances if fnmatchcase(name, pattern)), EXACT)
        tol = tolerance.limit * scale
        error: float | None
        if is_numeric(stored) and is_numeric(computed):
            expected, actual = _float64(stored), _float64(computed)
            if tolerance.of_largest:
                largest = float(expected.abs().max()) if expected.numel() else 0.0
                tol *= max(largest, tolerance.at_least)  # in this order NaN stays NaN, and never passes
            error = _largest_difference(expected, actual)
        else:
            error = 0.0 if type(stored) is type(computed) and stored == computed else None
        ok = error is not None and error <= tol
        self._lines[name] = Line(self.file, name, error, tol if math.isfinite(tol) else None, ok)
        if not ok:
            self.note(f"{name}: {_shown(stored)} is stored, {_shown(computed)} was computed")

    def trained(self, name: str, computed: torch.Tensor, furthest: float) -> None:
        """Compare a parameter after training: fewer than 1 % of its entries may lie beyond 1e-5.

        Args:
            name: the stored value's name; without effect where the file does not hold it.
            computed: what this package makes of it.
            furthest: how far any entry may lie.
        """
        if name not in self.stored:
            return
        expected, actual = _float64(self.stored[name]), _float64(computed)
        error = _largest_difference(expected, actual)
        share = None if error is None else float(((expected - actual).abs() > _NEAR).double().mean())
        ok = error is not None and error <= furthest and share is not None and share < _FEW
        self._lines[name] = Line(self.file, name, error, furthest, ok, share)
        if not ok:
            self.note(f"{name}: {_shown(self.stored[name])} is stored, {share} of its entries lie beyond {_NEAR}")

    def fail(self, name: str, reason: str) -> None:
        """Add a failing line for something that the file does not hold as a value."""
        self._lines[name] = Line(self.file, name, None, None, ok=False)
        self.note(f"{name}: {reason}")

    def expect(self, *patterns: str) -> None:
        """Add a failing line for each pattern of names that no stored value fits: the format has such values."""
        for pattern in patterns:
            if pattern not in self.stored and not any(_fits(name, pattern) for name in self.stored):
                self.fail(pattern, "the format has it, the file does not")

    def words(self, *names: str) -> None:
        """Take values as words about other programs, which nothing here could agree with or not."""
        self._words.update(names)

    def note(self, reason: str) -> None:
        """Say on standard error why a line is not ok; standard output holds lines alone."""
        print(f"{self.file}: {reason}", file=sys.stderr)

    def finish(self) -> list[Line]:
        """Return a line per stored value, in the file's order; what was not compared is not ok."""
        forgotten = [name for name in self.stored if name not in self._lines and name not in self._words]
        if forgotten:
            self.note(f"not compared: {', '.join(forgotten)}")
        for name in forgotten:
            self._lines[name] = Line(self.file, name, None, None, ok=False)
        order = {name: number for number, name in enumerate(self.stored)}
        return sorted(self._lines.values(), key=lambda line: order.get(line.tensor, len(order)))


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern.replace("[", "[[]"))  # a bracket counts entries, only * stands for others


def is_numeric(value: Any) -> bool:
    """Tell whether a value is a tensor, a number, or lists of numbers."""
    if isinstance(value, list | tuple):
        return len(value) > 0 and all(is_numeric(item) for item in value)
    return isinstance(value, torch.Tensor | int | float) and not isinstance(value, bool)


def _float64(value: Any) -> torch.Tensor:
    tensor = value if isinstance(value, torch.Tensor) else torch.tensor(value, dtype=torch.float64)
    return tensor.detach().to("cpu", torch.float64)


def _largest_difference(expected: torch.Tensor, actual: torch.Tensor) -> float | None:
    if expected.numel() == actual.numel() == 1:  # a number may be stored as a tensor of one
        expected, actual = expected.reshape(()), actual.reshape(())
    if expected.shape != actual.shape:
        return None
    error = float((expected - actual).abs().max()) if expected.numel() else 0.0
    return error if error < float("inf") else None  # NaN is not smaller either


def _shown(value: Any) -> str:
    if isinstance(value, torch.Tensor) and value.numel() > 1:
        return f"a tensor {tuple(value.shape)}"
    text = str(value.item() if isinstance(value, torch.Tensor) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."
