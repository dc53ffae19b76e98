"""Whether a setting is the number, or the numbers, that it should be: a configuration may hold anything."""

import math
from numbers import Real
from typing import Any


def is_number(value: Any, low: float = -math.inf, high: float = math.inf) -> bool:
    """Tell whether a value is a finite number from ``low`` to ``high``; truth values are none.

    >>> is_number(0.5, 0, 1), is_number("0.5", 0, 1), is_number(True)
    (True, False, False)
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        number = float(value)
    except OverflowError:
        return False  # a whole number beyond all floats
    return math.isfinite(number) and low <= number <= high


def as_numbers(value: Any, count: int) -> list[float] | None:
    """Return ``count`` finite numbers, or ``None`` if the value is something else.

    >>> as_numbers([1, 2.5], 2), as_numbers(3, 2), as_numbers("12", 2)
    ([1.0, 2.5], None, None)
    """
    try:
        items = list(value)
    except TypeError:
        return None
    return list(map(float, items)) if len(items) == count and all(map(is_number, items)) else None
