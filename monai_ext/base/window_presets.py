"""HU windows by the names that radiologists know."""

from collections.abc import Sequence
from types import MappingProxyType

from monai_ext.base.errors import SettingError
from monai_ext.base.windows import check_window

# Level and width as viewers offer them: 50/400, 30/150, -600/1500, 400/1800, 40/80 and 75/200.
WINDOWS = MappingProxyType(
    {
        "abdomen": (-150.0, 250.0),
        "liver": (-45.0, 105.0),
        "lung": (-1350.0, 150.0),
        "bone": (-500.0, 1300.0),
        "brain": (0.0, 80.0),
        "subdural": (-25.0, 175.0),
    }
)


def find_window(window: str | Sequence[float]) -> tuple[float, float]:
    """Return ``(low, high)`` in HU of a preset's name, or of two numbers.

    >>> find_window("brain"), find_window([-100, 200])
    ((0.0, 80.0), (-100.0, 200.0))

    Raises:
        SettingError: an unknown name, or not two finite numbers in rising order.
    """
    if not isinstance(window, str):
        return check_window(window)
    if window.strip().lower() not in WINDOWS:
        raise SettingError(
            f"window_hu: {window!r} is no preset; choose {', '.join(WINDOWS)}, or give [low, high] in HU",
            code="setting.window",
        )
    return WINDOWS[window.strip().lower()]
