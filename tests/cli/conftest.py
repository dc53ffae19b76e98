"""The command line without a process of its own, for what one start of Python with torch has shown already."""

import sys
import warnings
from collections.abc import Callable

import pytest


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run ``python -m monai_ext`` in this process, and return its exit code."""
    from monai_ext.cli.app import main

    def run(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["monai_ext", *words])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what MONAI says about any configuration: that it can run code
            try:
                main()
            except SystemExit as end:
                return int(end.code or 0)
        return 0

    return run
