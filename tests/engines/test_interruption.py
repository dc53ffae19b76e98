"""Ctrl-C ends a bundle's run wherever it falls."""

import sys
import time
from types import ModuleType, SimpleNamespace

import pytest

from monai_ext.engines import end_in_a_sentence


class Loader:
    """Clears up as torch's loader does, and is interrupted there."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __del__(self) -> None:
        raise self.error


@pytest.fixture
def bundle_run(monkeypatch: pytest.MonkeyPatch) -> None:
    main = ModuleType("__main__")
    main.__spec__ = SimpleNamespace(name="monai.bundle.__main__")  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    end_in_a_sentence()


def test_an_interruption_that_fell_into_clearing_up_is_not_lost(bundle_run: None) -> None:
    with pytest.raises(KeyboardInterrupt):
        loader = Loader(KeyboardInterrupt())
        del loader
        time.sleep(30)  # the run goes on, and is reached in a moment


def test_other_errors_in_clearing_up_are_told_as_ever(bundle_run: None, capfd: pytest.CaptureFixture[str]) -> None:
    loader = Loader(ValueError("a mistake"))
    del loader
    time.sleep(0.5)
    assert "ValueError: a mistake" in capfd.readouterr().err
