"""What a client may ask of a task: every parameter named, typed and bounded; nothing of it is ever evaluated."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from monai_ext.base import SettingError

Task = TypeVar("Task")
# What clients say about the file they want back; all tasks that return one share it.
EXTENSIONS = (".nrrd", ".nii.gz", ".nii")
DTYPES = ("uint8", "uint16", "int16", "int32")
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True)
class Option:
    """One parameter.

    Attributes:
        default: what holds where a client says nothing; its type is that of the parameter.
        choices: the values that may be; any by default.
        low: smallest number, or fewest letters of a text.
        high: largest number, or most letters of a text.
        shown: whether clients show it among a model's options.
    """

    default: Any
    choices: Sequence[Any] = ()
    low: float = 0
    high: float = 0
    shown: bool = True


def chosen(what: str, name: object, there: Mapping[str, Task], code: str = "label.model") -> Task:
    """Return the task of a name that came from a client.

    Args:
        what: kind of the task, for the message.
        name: as it came.
        there: the tasks by name.
        code: of the error.

    Raises:
        SettingError: there is none of that name; the sentence lists those there are.
    """
    text = str(name or "")
    if text not in there:
        raise SettingError(f"{what} {text[:60]!r}: choose one of {', '.join(there) or 'none'}", code=code)
    return there[text]


def shown_options(options: Mapping[str, Option]) -> dict[str, Any]:
    """Return what clients build their panel of: a list where there are choices, the default first."""
    return {name: _shown(option) for name, option in options.items() if option.shown}


def _shown(option: Option) -> Any:
    if not option.choices:
        return option.default
    return [option.default, *(choice for choice in option.choices if choice != option.default)]


def coerced(request: Mapping[str, Any], options: Mapping[str, Option], task: str) -> dict[str, Any]:
    """Return a value for every option and for nothing else.

    Clients send back what they were shown and entries of their own; what is no option is dropped and its name logged.

    Args:
        request: as it came from a client.
        options: of the task.
        task: for messages.

    Raises:
        SettingError: a value of another type, out of range, or none of the choices.
    """
    unknown = [name for name in request if name not in options]
    if unknown:
        listed = ", ".join(sorted(repr(str(name)[:40]) for name in unknown)[:20])
        logging.getLogger("monai_ext").debug("%s: not an option, dropped: %s", task, listed)
    return {name: _coerced(name, request.get(name), option, task) for name, option in options.items()}


def _coerced(name: str, value: Any, option: Option, task: str) -> Any:
    if isinstance(value, list) and option.choices:
        value = value[0] if value else None  # a panel that nobody touched comes back as the list of choices
    if value is None or value == "":
        return option.default
    kind = type(option.default)
    typed = _as_bool(value) if kind is bool else _as_number(value, kind) if kind in (int, float) else _as_text(value)
    if typed is None:
        raise _refusal(task, name, value, {bool: "true or false", int: "a whole number", float: "a number"}, kind)
    if option.choices and typed not in option.choices:
        listed = ", ".join(str(choice) for choice in option.choices if choice != "")
        raise SettingError(f"{task}: {name} is {_short(value)}; give one of {listed}", code="label.choice")
    size = len(typed) if isinstance(typed, str) else typed
    if not option.choices and kind is not bool and not option.low <= size <= option.high:
        what = "letters" if kind is str else "it"
        raise SettingError(
            f"{task}: {name} is {_short(value)}; give {what} from {option.low:g} to {option.high:g}",
            code="label.range",
        )
    return typed


def _as_bool(value: Any) -> bool | None:
    word = str(value).strip().lower()
    return True if word in _TRUE else False if word in _FALSE else None


def _as_number(value: Any, kind: type) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    if kind is float:
        return number if abs(number) < float("inf") else None
    return int(number) if abs(number) < 2**53 and number == int(number) else None


def _as_text(value: Any) -> str | None:
    return value if isinstance(value, str) and value.isprintable() else None


def _refusal(task: str, name: str, value: Any, kinds: Mapping[type, str], kind: type) -> SettingError:
    return SettingError(
        f"{task}: {name} is {_short(value)}; give {kinds.get(kind, 'a printable text')}", code="label.type"
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
