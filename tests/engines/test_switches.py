"""Settings that are on or off, as a configuration and a command line give them."""

from typing import Any

import pytest

from monai_ext.base import SettingError
from monai_ext.engines import switch


@pytest.mark.parametrize(
    ("value", "expected"),
    [(True, True), (False, False), ("true", True), ("False", False), ("FALSE", False), (1, True), (0, False)],
)
def test_the_words_mean_what_they_say(value: Any, expected: bool) -> None:
    assert switch("assume_hu", value) is expected


@pytest.mark.parametrize("value", ["no", "", "flase", None, 2, [True]])
def test_anything_else_is_named(value: Any) -> None:
    with pytest.raises(SettingError, match=r"^assume_hu: .* is neither true nor false; give one of them"):
        switch("assume_hu", value)
