"""Paths as they are printed: folders may be called after patients, and what is printed is kept in logs."""

from pathlib import Path


def shown(path: str | Path) -> str:
    """Return the base name, behind ``.../`` unless it lies in the working folder.

    >>> shown("/data/Doe^Jane/ct"), shown("ct")
    ('.../ct', 'ct')
    """
    whole = Path(path).absolute()
    if whole == Path.cwd():
        return "."
    return whole.name if whole.parent == Path.cwd() else f".../{whole.name}"
