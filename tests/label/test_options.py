"""Parameters of clients: each of its type and in its range, none evaluated, none beyond those named."""

from typing import Any

import pytest

from monai_ext.base import SettingError
from monai_ext.label.options import Option, coerced, shown_options

OPTIONS = {
    "device": Option("cpu", ("cpu", "cuda:0")),
    "epochs": Option(50, low=1, high=100),
    "overlap": Option(0.5, low=0.0, high=0.9),
    "pretrained": Option(True),
    "tag": Option("original", low=1, high=8, shown=False),
}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("device", "cuda:0", "cuda:0"),
        ("device", ["cuda:0", "cpu"], "cuda:0"),  # a panel that nobody touched sends the list back
        ("device", None, "cpu"),
        ("epochs", 7, 7),
        ("epochs", "7", 7),
        ("epochs", 7.0, 7),
        ("epochs", "", 50),
        ("overlap", "0.25", 0.25),
        ("overlap", 0, 0.0),
        ("pretrained", False, False),
        ("pretrained", "false", False),
        ("pretrained", 1, True),
        ("tag", "final", "final"),
    ],
)
def test_values_get_the_type_of_the_default(name: str, value: Any, expected: Any) -> None:
    found = coerced({name: value}, OPTIONS, "task")[name]
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("device", "$torch.device('cpu')", r"task: device is .*; give one of cpu, cuda:0"),
        ("device", "cuda:1", r"give one of"),
        ("epochs", "$1+1", r"task: epochs is '\$1\+1'; give a whole number"),
        ("epochs", 0, r"give it from 1 to 100"),
        ("epochs", 101, r"give it from 1 to 100"),
        ("epochs", 7.5, r"give a whole number"),
        ("epochs", True, r"give a whole number"),
        ("epochs", [7], r"give a whole number"),
        ("epochs", {"_target_": "os.system"}, r"give a whole number"),
        ("epochs", "1e400", r"give a whole number"),
        ("epochs", 10**400, r"give a whole number"),
        ("overlap", int("9" * 400), r"give a number"),
        ("overlap", "nan", r"give"),
        ("overlap", float("inf"), r"give a number"),
        ("overlap", 0.95, r"give it from 0 to 0.9"),
        ("pretrained", "maybe", r"give true or false"),
        ("pretrained", 2, r"give true or false"),
        ("tag", "x" * 9, r"give letters from 1 to 8"),
        ("tag", "a\nb", r"give a printable text"),
        ("tag", 3, r"give a printable text"),
    ],
)
def test_other_values_are_refused_by_name(name: str, value: Any, sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        coerced({name: value}, OPTIONS, "task")


def test_long_values_are_not_quoted_whole() -> None:
    with pytest.raises(SettingError) as caught:
        coerced({"epochs": "9" * 5000}, OPTIONS, "task")
    assert len(str(caught.value)) < 200


def test_only_options_are_returned() -> None:
    found = coerced({"image": "/etc/passwd", "model": "x", "$epochs": 3}, OPTIONS, "task")
    assert found == {"device": "cpu", "epochs": 50, "overlap": 0.5, "pretrained": True, "tag": "original"}


def test_panels_show_choices_with_the_default_first() -> None:
    options = {"class": Option("liver", ("organ", "liver")), **OPTIONS}
    assert shown_options(options) == {
        "class": ["liver", "organ"],
        "device": ["cpu", "cuda:0"],
        "epochs": 50,
        "overlap": 0.5,
        "pretrained": True,
    }
