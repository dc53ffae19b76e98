"""Numbers are told from what a configuration may hold instead."""

import numpy as np
import pytest

from monai_ext.base import SettingError, as_numbers, check_window, is_number


@pytest.mark.parametrize("value", [3, 0.5, np.float32(2), np.int16(2)])
def test_numbers(value):
    assert is_number(value, 0, 3)


@pytest.mark.parametrize("value", ["3", None, True, float("nan"), float("inf"), [1], 3.5, -1, 10**400])
def test_no_numbers_of_that_range(value):
    assert not is_number(value, 0, 3)


@pytest.mark.parametrize("value", [(1, 2), [1.0, 2.0], np.array([1, 2])])
def test_several_numbers(value):
    assert as_numbers(value, 2) == [1.0, 2.0]


@pytest.mark.parametrize("value", [5, None, "12", [1], [1, 2, 3], [1, "2"], {"a": 1}, [1, float("nan")]])
def test_not_two_numbers(value):
    assert as_numbers(value, 2) is None
    with pytest.raises(SettingError, match=r"^window_hu: .* is not a window; give \[low, high\] in HU"):
        check_window(value)
