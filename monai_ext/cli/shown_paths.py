"""Paths as they are printed: folders may be called after patients, and what is printed is kept in logs."""

from pathlib import Path

from monai_ext.base import printable


def shown(path: str | Path) -> str:
    """Return the base name, behind ``.../`` unless it lies in the working folder.

    >>> shown("/data/Doe^Jane/ct"), shown("ct")
    ('.../ct', 'ct')
    """
    whole = Path(path).absolute()
    if whole == Path.cwd():
        return "."
    name = printable(whole.name)
    return name if whole.parent == Path.cwd() else f".../{name}"
