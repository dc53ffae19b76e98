"""Settings that are on or off, as they arrive from a configuration or from the command line."""

from monai_ext.base import SettingError


def switch(name: str, value: bool | str) -> bool:
    """Read a setting that is on or off.

    On the command line of MONAI's bundles ``true`` arrives as text, and any text would count as on.

    >>> switch("overlay", "false"), switch("overlay", True)
    (False, True)

    Args:
        name: of the setting, for the error.
        value: ``True``, ``False``, or one of these words, in small letters or not.

    Raises:
        SettingError: anything else.
    """
    known = {"true": True, "false": False, "1": True, "0": False}
    found = known.get(str(value).lower())
    if found is None:
        raise SettingError(f"{name}: {value!r} is neither true nor false; give one of them", code="setting.switch")
    return found
