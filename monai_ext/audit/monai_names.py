"""Where a name without dots leads: MONAI looks it up among its own classes and functions."""

from functools import cache
from typing import Any


def full_names(target: str) -> list[str]:
    """Return the dotted names that a ``_target_`` may stand for.

    A name without dots that MONAI does not know is a module or a built-in of Python: it stays as it is.

    >>> full_names("monai.data.DataLoader")
    ['monai.data.DataLoader']
    """
    if "." in target:
        return [target]
    found = _locator().get_component_module_name(target) or []
    modules = [found] if isinstance(found, str) else found
    return [f"{module}.{target}" for module in modules] or [target]


@cache
def _locator() -> Any:
    # Only here, for it takes seconds, and most configurations write names out.
    import monai.transforms  # noqa: F401 - loads all that the locator looks through
    from monai.bundle.config_item import ComponentLocator

    return ComponentLocator()
